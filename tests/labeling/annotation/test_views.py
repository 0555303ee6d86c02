"""The bench without its script, what the script is answered, and who may ask."""

import re

import pytest
from django.urls import reverse
from django.utils.timezone import now, timedelta

from labeling.accounts.roles import Role
from labeling.annotation.bench import Bench, n_tasks_left
from labeling.annotation.models import Judgement, Lease, PromptReport, Slot
from labeling.annotation.services import free_expired_leases, skip_lease, submit_judgement, take_lease
from labeling.projects.models import Membership, Prompt
from labeling.projects.services import change_project
from tests import factories

BENCH = "/projects/support/bench/"
SCRIPT = {"X-Bench": "1"}


@pytest.fixture
def bench(client, filled_project, annotator):
    """The annotator's client, logged in."""
    client.force_login(annotator)
    return client


def held(user) -> Lease:
    return Lease.objects.filter(annotator=user, state=Lease.State.OPEN).order_by("pk").first()


def answer(key: str = "k" * 16, **more: object) -> dict:
    return {"submission_key": key, "rank.a": "2", "rank.b": "1", "rank.c": "2", "seconds": "12.34", **more}


def path(name: str, *args: object) -> str:
    return reverse(f"annotation:{name}", args=["support", *args])


# --- home ---------------------------------------------------------------------------------------
def test_home_sends_an_annotator_of_one_project_to_its_bench(bench):
    assert bench.get("/").url == BENCH


def test_home_lists_a_leads_projects_and_what_waits(client, filled_project, lead):
    client.force_login(lead)
    page = client.get("/").content.decode()
    assert "Support replies" in page
    assert re.search(r">5</span> tasks wait for you", page)


def test_home_without_a_project_says_what_to_do(client, stranger):
    client.force_login(stranger)
    assert "No project yet" in client.get("/").content.decode()


def test_home_asks_to_log_in(client, db):
    assert client.get("/").url == "/login/?next=/"


def test_home_counts_queries_by_project_and_no_more(client, lead, annotator, django_assert_max_num_queries):
    for number in range(5):
        factories.make_project(lead, slug=f"p{number}", members={annotator: Role.ANNOTATOR})
    client.force_login(annotator)
    with django_assert_max_num_queries(5 + 2 * 5):
        client.get("/")


# --- who may ask --------------------------------------------------------------------------------
@pytest.mark.parametrize("who", ["stranger", "engineer"])
def test_people_who_do_not_annotate_the_project_get_404_everywhere(client, filled_project, annotator, who, request):
    lease = take_lease(project=filled_project, annotator=annotator)
    judgement = submit_judgement(
        lease=lease, submission_key="first-key", body={"ranking": [["a"], ["b"], ["c"]]}
    ).judgement
    open_lease = take_lease(project=filled_project, annotator=annotator)
    client.force_login(request.getfixturevalue(who))
    gets = [BENCH, path("history"), path("revise", judgement.pk)]
    posts = [path("next"), path("revise", judgement.pk)]
    posts += [path(name, open_lease.pk) for name in ("draft", "renew", "submit", "skip")]
    assert {client.get(address).status_code for address in gets} == {404}
    assert {client.post(address, answer()).status_code for address in posts} == {404}


def test_one_annotator_cannot_touch_anothers_lease_or_judgement(client, filled_project, annotator, other_annotator):
    lease = take_lease(project=filled_project, annotator=annotator)
    judgement = submit_judgement(
        lease=lease, submission_key="first-key", body={"ranking": [["a"], ["b"], ["c"]]}
    ).judgement
    open_lease = take_lease(project=filled_project, annotator=annotator)
    client.force_login(other_annotator)
    posts = [path(name, open_lease.pk) for name in ("draft", "renew", "submit", "skip")] + [
        path("revise", judgement.pk)
    ]
    assert {client.post(address, answer()).status_code for address in posts} == {404}
    assert client.get(path("revise", judgement.pk)).status_code == 404
    assert Judgement.objects.count() == 1


def test_a_lease_of_another_project_is_not_found_under_this_one(bench, lead, annotator):
    other = factories.make_project(lead, slug="other", members={annotator: Role.ANNOTATOR})
    factories.fill_project(other)
    lease = take_lease(project=other, annotator=annotator)
    assert bench.post(path("submit", lease.pk), answer()).status_code == 404


def test_a_removed_annotator_loses_the_bench_at_once(bench, annotator, filled_project):
    bench.get(BENCH)
    Membership.objects.filter(user=annotator).delete()
    assert bench.get(BENCH).status_code == 404
    assert bench.post(path("submit", held(annotator).pk), answer()).status_code == 404


def test_nobody_reads_the_bench_without_logging_in(client, filled_project):
    assert client.get(BENCH).url.startswith("/login/")
    assert client.post(path("next")).url.startswith("/login/")


# --- what the page holds ------------------------------------------------------------------------
def test_the_page_names_no_model_no_completion_id_and_no_gold(bench, filled_project, annotator):
    filled_project.tasks.update(purpose="gold")
    pages = [bench.get(BENCH).content.decode(), bench.post(path("next"), headers=SCRIPT).content.decode()]
    lease = held(annotator)
    bench.post(path("submit", lease.pk), answer())
    pages += [
        bench.get(path("history")).content.decode(),
        bench.get(path("revise", Judgement.objects.get().pk)).content.decode(),
    ]
    for page in pages:
        assert "tiny@1" not in page
        assert "gold" not in page.lower()
        assert "public_id" not in page
        assert str(lease.order_shown) not in page


def test_completions_come_in_the_order_the_lease_recorded(bench, annotator, filled_project):
    page = bench.get(BENCH).content.decode()
    lease = held(annotator)
    contents = dict(lease.task.completions.values_list("pk", "content"))
    shown = re.findall(r'data-card="(\w)".*?(Answer \d about)', page, re.DOTALL)
    assert shown == [(key, contents[pk][:14]) for key, pk in zip("abc", lease.order_shown, strict=True)]


def test_the_page_has_no_inline_style_and_its_inline_script_carries_the_nonce(bench):
    response = bench.get(BENCH)
    page = response.content.decode()
    nonce = re.search(r"'nonce-([^']+)'", response["Content-Security-Policy"])[1]
    assert " style=" not in page and "<style" not in page
    assert re.findall(r"<script(?![^>]*src=)[^>]*>", page) == [f'<script type="importmap" nonce="{nonce}">']
    assert not re.search(r"\son[a-z]+=", page)
    assert "unsafe" not in response["Content-Security-Policy"]


def test_the_page_is_kept_in_no_cache(bench):
    assert bench.get(BENCH)["Cache-Control"] == "no-store, private"


def test_reloading_the_bench_shows_the_same_task_with_its_draft(bench, annotator):
    bench.get(BENCH)
    lease = held(annotator)
    body = {"rank.b": "1", "rank.c": "3", "rationale": "because <b>", "seconds": "7"}
    assert bench.post(path("draft", lease.pk), body).json() == {"state": "saved"}
    lease.refresh_from_db()
    assert lease.draft == {"ranking": [["b"], [], ["c"]], "rationale": "because <b>", "seconds": 7.0}
    page = bench.get(BENCH).content.decode()
    assert f'data-task="{lease.pk}"' in page
    assert 'name="rank.b" value="1"' in page and 'name="rank.c" value="3"' in page and 'name="rank.a" value=""' in page
    assert "because &lt;b&gt;</textarea>" in page


@pytest.mark.parametrize(
    "draft", [[], "text", {"ranking": "abc"}, {"ranking": [None, 3]}, {"ratings": {"a": 3}, "flags": 1}]
)
def test_a_draft_of_another_shape_breaks_no_page(bench, annotator, draft):
    bench.get(BENCH)
    Lease.objects.filter(pk=held(annotator).pk).update(draft=draft)
    assert bench.get(BENCH).status_code == 200


def test_the_bench_asks_for_every_part_of_the_form(bench, filled_project):
    form = {
        "ratings": {"tone": {"low": 1, "high": 3}}, "flags": ["unsafe"], "acceptable": True, "strength": True,
        "corrections": True, "rationale": "required",
    }  # fmt: skip
    change_project(project=filled_project, form=form)
    page = bench.get(BENCH).content.decode()
    for name in (
        "ratings.a.tone",
        "flags.b",
        "acceptable.c",
        "strength",
        "correction.a",
        "rationale",
        "none_acceptable",
    ):
        assert f'name="{name}"' in page


def test_an_empty_and_a_paused_project_say_so(bench, filled_project, annotator):
    factories.judge_all(filled_project, annotator)
    assert re.search(r"data-nothing>.*Nothing is left for you here", bench.get(BENCH).content.decode(), re.DOTALL)
    change_project(project=filled_project, state="paused")
    assert "This project is paused" in bench.get(BENCH).content.decode()


# --- submitting ---------------------------------------------------------------------------------
def test_a_plain_form_records_the_judgement_and_goes_on(bench, annotator):
    bench.get(BENCH)
    lease = held(annotator)
    assert bench.post(path("submit", lease.pk), answer(none_acceptable="on", rationale="x\r\ny")).url == BENCH
    judgement = Judgement.objects.get()
    a, b, c = lease.order_shown
    assert judgement.ranking == [[b], [a, c]]
    assert judgement.order_shown == lease.order_shown
    assert judgement.feedback == {"none_acceptable": True, "rationale": "x\ny"}
    assert judgement.seconds == 12.3


def test_a_plain_form_that_lacks_something_comes_back_filled_in(bench, annotator):
    bench.get(BENCH)
    response = bench.post(
        path("submit", held(annotator).pk), {"submission_key": "k" * 16, "rank.b": "1", "rationale": "kept"}
    )
    assert response.status_code == 422
    page = response.content.decode()
    assert "omits &#x27;a&#x27;" in page and "kept</textarea>" in page
    assert not Judgement.objects.exists()


def test_the_script_is_told_what_became_of_it(bench, annotator):
    bench.get(BENCH)
    lease = held(annotator)
    first = bench.post(path("submit", lease.pk) + "?next=1", answer(), headers=SCRIPT)
    assert first.status_code == 201
    told = first.json()
    assert told["state"] == "saved"
    assert told["undo_url"] == path("revise", Judgement.objects.get().pk)
    assert '<b class="number">1</b> today' in told["figures"]
    assert f'data-task="{held(annotator).pk}"' in told["next"]
    again = bench.post(path("submit", lease.pk), answer(), headers=SCRIPT)
    assert (again.status_code, again.json()["state"]) == (200, "saved")
    assert Judgement.objects.count() == 1


def test_one_key_for_two_answers_is_refused(bench, annotator):
    bench.get(BENCH)
    lease = held(annotator)
    bench.post(path("submit", lease.pk), answer(), headers=SCRIPT)
    response = bench.post(path("submit", lease.pk), answer(**{"rank.a": "3"}), headers=SCRIPT)
    assert (response.status_code, response.json()["state"]) == (409, "key_reused")


def test_the_script_learns_by_name_what_is_wrong(bench, annotator):
    bench.get(BENCH)
    response = bench.post(path("submit", held(annotator).pk), answer(**{"rank.a": ""}), headers=SCRIPT)
    assert response.status_code == 422
    assert list(response.json()["fields"]) == ["ranking"]


@pytest.mark.parametrize("key", ["", "short", "x" * 81, "spaces in it all"])
def test_an_answer_without_a_proper_key_is_refused(bench, annotator, key):
    bench.get(BENCH)
    assert bench.post(path("submit", held(annotator).pk), answer(key), headers=SCRIPT).status_code == 422
    assert not Judgement.objects.exists()


def test_odd_fields_are_never_a_server_error(bench, annotator):
    bench.get(BENCH)
    odd = {
        "rank.a": "9" * 50,
        "rank.b": "-1",
        "rank.c": "1.5",
        "seconds": "nan",
        "strength": "x",
        "ratings.a.b.c": "1",
        "flags.z": "x",
    }
    assert bench.post(path("submit", held(annotator).pk), answer(**odd), headers=SCRIPT).status_code == 422
    assert bench.post(path("draft", held(annotator).pk), odd).status_code == 200
    assert bench.post(path("next"), {"holding": "a,,-1,99999999999999999999999"}).status_code == 200
    assert bench.get(path("history") + "?before=x").status_code == 200


def test_a_late_answer_whose_slot_is_gone_is_kept_and_told(bench, filled_project, annotator, other_annotator):
    bench.get(BENCH)
    lease = held(annotator)
    later = now() + timedelta(hours=2)
    Lease.objects.filter(pk=lease.pk).update(expires_at=now() - timedelta(seconds=1))
    Slot.objects.filter(pk=lease.slot_id).update(expires_at=now() - timedelta(seconds=1))
    free_expired_leases()
    while (theirs := take_lease(project=filled_project, annotator=other_annotator)).task_id != lease.task_id:
        submit_judgement(
            lease=theirs, submission_key=f"key-{theirs.pk}", body={"ranking": [["a"], ["b"], ["c"]]}, at=later
        )
    response = bench.post(path("submit", lease.pk), answer(), headers=SCRIPT)
    assert response.status_code == 202
    assert response.json()["state"] == "surplus"
    assert "extra" in response.json()["message"]


# --- holding, skipping, going back --------------------------------------------------------------
def test_the_next_task_is_another_than_the_one_held(bench, annotator):
    bench.get(BENCH)
    first = held(annotator)
    task = bench.post(path("next"), {"holding": str(first.pk)}).json()["task"]
    assert "data-task=" in task and f'data-task="{first.pk}"' not in task
    assert Lease.objects.filter(annotator=annotator, state=Lease.State.OPEN).count() == 2


def test_taking_the_next_task_needs_a_post(bench):
    assert bench.get(path("next")).status_code == 405


def test_renewing_moves_the_end_and_says_when_it_is_too_late(bench, annotator):
    bench.get(BENCH)
    lease = held(annotator)
    Lease.objects.filter(pk=lease.pk).update(expires_at=now() + timedelta(seconds=5))
    assert bench.post(path("renew", lease.pk)).json()["state"] == "held"
    lease.refresh_from_db()
    assert lease.expires_at > now() + timedelta(seconds=1000)
    Lease.objects.filter(pk=lease.pk).update(state=Lease.State.EXPIRED)
    response = bench.post(path("renew", lease.pk))
    assert response.status_code == 409
    assert (response.json()["state"], response.json()["expired"]) == ("lease_lost", True)


def test_a_skipped_task_keeps_its_reason_and_does_not_come_back(bench, annotator, filled_project):
    bench.get(BENCH)
    lease = held(annotator)
    body = {"reason": "broken", "note": "b ends mid-word"}
    assert bench.post(path("skip", lease.pk), body, headers=SCRIPT).json()["state"] == "skipped"
    lease.refresh_from_db()
    assert (lease.state, lease.skip_reason, lease.skip_note) == ("skipped", "broken", "b ends mid-word")
    assert n_tasks_left(annotator, filled_project) == 4
    assert bench.post(path("skip", lease.pk), body, headers=SCRIPT).status_code == 409


def test_a_judgement_is_reopened_as_it_was_and_replaced(bench, annotator):
    bench.get(BENCH)
    bench.post(path("submit", held(annotator).pk), answer(rationale="first thought"))
    first = Judgement.objects.get()
    page = bench.get(path("revise", first.pk)).content.decode()
    assert 'name="rank.b" value="1"' in page and "first thought</textarea>" in page
    body = answer("r" * 16, **{"rank.a": "1", "rank.b": "3"})
    assert bench.post(path("revise", first.pk), body, headers=SCRIPT).status_code == 201
    assert bench.post(path("revise", first.pk), body, headers=SCRIPT).status_code == 200  # a retry
    second = Judgement.objects.get(supersedes=first)
    assert [len(group) for group in second.ranking] == [1, 1, 1]
    history = bench.get(path("history")).content.decode()
    assert "judged again" in history and history.count("past-link") == 1


def test_without_revision_past_judgements_can_only_be_looked_at(bench, annotator, filled_project):
    change_project(project=filled_project, allows_revision=False)
    bench.get(BENCH)
    assert bench.post(path("submit", held(annotator).pk), answer(), headers=SCRIPT).json()["undo_url"] == ""
    address = path("revise", Judgement.objects.get().pk)
    assert "data-submit" not in bench.get(address).content.decode()
    assert bench.post(address, answer("r" * 16), headers=SCRIPT).status_code == 409


def test_history_pages_from_newest_to_oldest(client, project, annotator):
    factories.fill_project(project, 35)
    factories.judge_all(project, annotator)
    client.force_login(annotator)
    first = client.get(path("history")).content.decode()
    assert first.count("past-link") == 30
    older = re.search(r"\?before=\d+", first)[0]
    assert client.get(path("history") + older).content.decode().count("past-link") == 5


def test_history_counts_queries_whatever_its_length(client, project, annotator, django_assert_max_num_queries):
    factories.fill_project(project, 20)
    factories.judge_all(project, annotator)
    client.force_login(annotator)
    with django_assert_max_num_queries(8):
        client.get(path("history"))


def test_a_content_warning_comes_before_the_first_task_and_once_agreed_to_is_over(bench, annotator, filled_project):
    change_project(project=filled_project, bench={"content_warning": "It holds **insults**."})
    page = bench.get(BENCH)
    assert "<strong>insults</strong>" in page.content.decode() and not Lease.objects.exists()
    assert bench.post("/projects/support/bench/agree/")["Location"] == BENCH
    assert "data-task" in bench.get(BENCH).content.decode()
    change_project(project=filled_project, bench={"content_warning": "It holds threats."})
    assert "threats" in bench.get(BENCH).content.decode()


def test_a_daily_cap_ends_the_day_and_says_so(bench, annotator, filled_project):
    change_project(project=filled_project, bench={"daily_cap": 1})
    bench.get(BENCH)
    skip_lease(lease=held(annotator))
    assert "at most 1 tasks a day" in bench.get(BENCH).content.decode()
    answer = bench.post("/projects/support/bench/next/", headers=SCRIPT).json()
    assert answer["task"] is None and "at most 1 tasks a day" in answer["nothing"]
    assert take_lease(project=filled_project, annotator=annotator, at=now() + timedelta(days=1)) is not None


def test_a_prompt_is_reported_and_the_task_stays_on_the_bench(bench, annotator, filled_project):
    bench.get(BENCH)
    lease = held(annotator)
    assert bench.post(path("report", lease.pk), {"reason": "harmful"}, headers=SCRIPT).json()["state"] == "reported"
    assert PromptReport.objects.get().prompt_id == lease.task.prompt_id
    assert bench.post(path("report", lease.pk), {}, headers=SCRIPT).status_code == 422
    assert held(annotator) == lease


def test_long_conversations_fold_all_but_their_ends(bench, annotator, filled_project):
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(21)]
    Prompt.objects.filter(project=filled_project).update(messages=messages)
    bench.get(BENCH)
    task = Bench(held(annotator), {})
    assert [turn.is_folded for turn in task.turns] == [False] + [True] * 14 + [False] * 6
    change_project(project=filled_project, bench={"fold_turns": 0})
    assert not any(turn.is_folded for turn in Bench(held(annotator), {}).turns)


def test_history_says_what_each_judgement_holds(bench, annotator, filled_project):
    change_project(
        project=filled_project,
        form={"ratings": {"tone": {"low": 1, "high": 5}}, "acceptable": True, "marks": ["rude"], "demonstration": "optional"},
    )
    lease = take_lease(project=filled_project, annotator=annotator)
    body = {
        "ranking": [["a"], ["b", "c"]], "ratings": {"a": {"tone": 1}, "b": {"tone": 2}}, "acceptable": {"a": True, "b": False},
        "marks": {"a": [{"start": 0, "end": 2, "label": "rude"}]}, "demonstration": "Better.",
    }  # fmt: skip
    submit_judgement(lease=lease, submission_key="one", body=body)
    page = bench.get(path("history")).content.decode()
    assert "2 ratings · 1 of 2 acceptable · 1 mark · written" in page
