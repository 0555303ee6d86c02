import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from labeling.annotation.models import Judgement, Lease, PromptReport, Slot, Task
from labeling.annotation.services import free_expired_leases
from labeling.projects.models import Completion, Prompt
from labeling.projects.services import change_project
from tests import factories
from tests.api_caller import Caller, code_of

GOOD = {"ranking": [["b"], ["a", "c"]], "seconds": 12.5}


@pytest.fixture
def caller(filled_project, annotator):
    return Caller(annotator)


def take(caller, **body):
    return caller.post("projects/support/leases/", body or None)


def submit(caller, lease, body=GOOD, key="key-1", query=""):
    return caller.post(f"leases/{lease['id']}/judgement/{query}", body, Idempotency_Key=key)


# --- tasks --------------------------------------------------------------------------------------
def test_tasks_are_made_over_named_prompts_or_all_that_have_none(project, lead):
    from labeling.imports.services import import_rows

    import_rows(project=project, format="completions", lines=factories.completions_rows(4), created_by=lead)
    import_rows(project=project, format="prompts", lines=[b'{"prompt": "alone"}'], created_by=lead)
    caller = Caller(lead)
    ours = str(Prompt.objects.get(external_id="p2").pk)
    some = caller.post("projects/support/tasks/", {"prompts": ["p0", "p1", ours], "overlap": 2})
    assert some.status_code == 201 and some.json() == {"created": 3, "prompts_without_enough_completions": 0}
    assert Slot.objects.count() == 6
    rest = caller.post("projects/support/tasks/", {"kind": "ranking", "completions_per_task": 3})
    assert rest.json() == {"created": 1, "prompts_without_enough_completions": 1}
    unknown = caller.post("projects/support/tasks/", {"prompts": ["p0", "nowhere"]})
    assert unknown.status_code == 400 and "prompts" in unknown.json()["error"]["fields"]


@pytest.mark.parametrize(
    "body",
    [{"overlap": 0}, {"overlap": 101}, {"completions_per_task": 10}, {"kind": "gold"}, {"prompts": []},
     {"prompts": [1]}, {"is_gold": True}, {"purpose": "evaluation"}, {"prompts": "p0"}, [], {"overlap": 1.5}],
)  # fmt: skip
def test_wrong_tasks_are_refused_by_field(project, lead, body):
    assert Caller(lead).post("projects/support/tasks/", body).status_code == 400
    assert not Task.objects.exists()


# --- leases -------------------------------------------------------------------------------------
def test_a_lease_has_the_shape_of_the_contract_and_stays_blind(caller, filled_project):
    answer = take(caller)
    assert answer.status_code == 201
    lease = answer.json()
    assert set(lease) == {"id", "expires_at", "task", "guideline", "draft"}
    assert set(lease["task"]) == {"id", "kind", "prompt", "completions", "form"}
    assert [set(item) for item in lease["task"]["completions"]] == [{"key", "content"}] * 3
    assert [item["key"] for item in lease["task"]["completions"]] == ["a", "b", "c"]
    assert lease["guideline"]["version"] == 1 and lease["draft"] is None
    text = answer.content.decode()
    for secret in ("tiny@1", "model", "gold", "purpose", "iteration", "sampling", "seed", "order_shown"):
        assert secret not in text, secret
    stored = Lease.objects.get()
    assert all(f'"{pk}"' not in text and f": {pk}" not in text for pk in stored.order_shown if pk > 9)


def test_the_same_lease_comes_back_until_one_says_to_hold_it(caller):
    first = take(caller).json()
    assert take(caller).json()["id"] == first["id"]
    second = take(caller, holding=[first["id"]]).json()
    assert second["id"] != first["id"]
    assert caller.post("projects/support/leases/", {"holding": ["x"]}).status_code == 400


def test_nothing_left_is_a_204(caller, filled_project, annotator):
    factories.judge_all(filled_project, annotator)
    answer = take(caller)
    assert answer.status_code == 204 and answer.content == b""


def test_a_draft_comes_back_with_the_lease(caller):
    lease = take(caller).json()
    assert caller.put(f"leases/{lease['id']}/draft/", {"ranking": [["a"]], "rationale": "so"}).status_code == 204
    assert take(caller).json()["draft"] == {"ranking": [["a"]], "rationale": "so"}
    assert caller.put(f"leases/{lease['id']}/draft/", ["no object"]).status_code == 400


def test_a_lease_is_renewed_and_skipped(caller):
    lease = take(caller).json()
    renewed = caller.post(f"leases/{lease['id']}/renew/")
    assert renewed.status_code == 200 and renewed.json()["expires_at"] >= lease["expires_at"]
    assert caller.post(f"leases/{lease['id']}/skip/", {"reason": "not my language"}).status_code == 204
    skipped = Lease.objects.get()
    assert (skipped.skip_reason, skipped.skip_note) == ("", "not my language")
    for path, body in (("renew/", None), ("skip/", {})):
        answer = caller.post(f"leases/{lease['id']}/{path}", body)
        assert answer.status_code == 409 and code_of(answer) == "lease_lost"
    assert caller.put(f"leases/{lease['id']}/draft/", {}).status_code == 409
    assert take(caller).json()["task"]["id"] != lease["task"]["id"]


def test_anothers_lease_is_not_there(caller, other_annotator, lead):
    lease = take(caller).json()
    for person in (other_annotator, lead):
        other = Caller(person)
        assert submit(other, lease).status_code == 404
        assert other.put(f"leases/{lease['id']}/draft/", {}).status_code == 404
        assert other.post(f"leases/{lease['id']}/skip/").status_code == 404


@pytest.mark.parametrize("id", ["0", "abc", "-1", "9" * 30, "١", "1e3", "%00", "..%2f"])
def test_what_is_no_id_names_nothing(caller, id):
    assert caller.post(f"leases/{id}/renew/").status_code == 404


# --- judgements ---------------------------------------------------------------------------------
def test_a_judgement_sent_twice_is_recorded_once(caller):
    lease = take(caller).json()
    first, again = submit(caller, lease), submit(caller, lease)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() and Judgement.objects.count() == 1
    assert first.json()["judgement"] == GOOD and first.json()["surplus"] is False
    assert set(first.json()) == {
        "id", "task", "lease", "annotator", "annotator_kind", "guideline_version", "judgement", "surplus",
        "supersedes", "created_at",
    }  # fmt: skip
    other = submit(caller, lease, {"ranking": [["a"], ["b"], ["c"]]})
    assert other.status_code == 409 and code_of(other) == "key_reused"
    closed = submit(caller, lease, key="key-2")
    assert closed.status_code == 409 and code_of(closed) == "lease_lost"


@pytest.mark.parametrize("key", [None, "", "x" * 81, "smörgås"])
def test_a_submit_needs_its_key(caller, key):
    lease = take(caller).json()
    headers = {} if key is None else {"Idempotency_Key": key}
    answer = caller.post(f"leases/{lease['id']}/judgement/", GOOD, **headers)
    assert answer.status_code == 400 and "Idempotency-Key" in answer.json()["error"]["fields"]


@pytest.mark.parametrize(
    "body",
    [{}, [], None, "x", {"ranking": [["a"]]}, {"ranking": [["a", "b", "c", "z"]]}, {"ranking": "abc"}, {"ranking": [[1]]},
     {"ranking": [["a"], ["b"], ["c"], ["a"]]}, {**GOOD, "seconds": -1}, {**GOOD, "seconds": "5"}, {**GOOD, "is_gold": True},
     {**GOOD, "strength": 2}, {**GOOD, "flags": {"a": [{}]}}, {**GOOD, "ratings": {"a": {"x": []}}}, {**GOOD, "ratings": []},
     {**GOOD, "corrections": {"a": 1}}, {**GOOD, "annotator": 1}, {**GOOD, "rationale": {}}, {**GOOD, "strength": [1]},
     {**GOOD, "none_acceptable": "yes"}, {**GOOD, "flags": {"a": [["x"]]}}],
)  # fmt: skip
def test_a_judgement_that_does_not_fit_the_form_is_refused_by_field(caller, body):
    lease = take(caller).json()
    answer = submit(caller, lease, body)
    assert answer.status_code == 400 and code_of(answer) == "invalid"
    assert not Judgement.objects.exists()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"seconds": NaN}', b'{"seconds": 1e999}',
            b'{"rationale": "\\u0000"}', b'{"rationale": "\\ud800"}', b"\xff", b'{"seconds": 1' + b"0" * 6000 + b"}"],
)  # fmt: skip
def test_malformed_json_is_a_400(caller, raw):
    lease = take(caller).json()
    answer = submit(caller, lease, raw)
    assert answer.status_code == 400 and code_of(answer) in ("parse_error", "invalid")


def test_a_body_over_the_limit_is_a_413(caller, settings):
    lease = take(caller).json()
    answer = submit(caller, lease, {**GOOD, "rationale": "x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE})
    assert answer.status_code == 413 and code_of(answer) == "request_too_large"


def test_a_late_answer_whose_slot_was_given_away_is_surplus_and_told_so(caller, filled_project, other_annotator):
    lease = take(caller).json()
    late = now() + timedelta(seconds=filled_project.lease_seconds + 1)
    free_expired_leases(at=late)
    factories.judge_all(filled_project, other_annotator)
    answer = submit(caller, lease)
    assert answer.status_code == 202 and answer.json()["surplus"] is True
    again = submit(caller, lease)
    assert again.status_code == 200 and again.json() == answer.json()
    listed = caller.get("projects/support/judgements/").json()["results"]
    assert [row["surplus"] for row in listed] == [True]


def test_next_1_adds_the_next_lease(caller, filled_project, annotator):
    lease = take(caller).json()
    answer = submit(caller, lease, query="?next=1").json()
    assert answer["next_lease"]["task"]["id"] != lease["task"]["id"]
    held = answer["next_lease"]
    other = take(caller, holding=[held["id"]]).json()
    third = submit(caller, held, key="key-2", query=f"?next=1&holding={other['id']}").json()
    assert third["next_lease"]["id"] not in (held["id"], other["id"])
    factories.judge_all(filled_project, annotator)
    assert "next_lease" not in submit(caller, lease).json()
    assert submit(caller, lease, query="?next=1").json()["next_lease"] is None


def test_annotators_see_their_own_judgements_and_readers_all(caller, filled_project, annotator, other_annotator, reviewer):
    factories.judge_all(filled_project, annotator, limit=2)
    factories.judge_all(filled_project, other_annotator, limit=1)
    mine = caller.get("projects/support/judgements/").json()["results"]
    everyone = Caller(reviewer).get("projects/support/judgements/?page_size=2").json()
    assert len(mine) == 2 and len({row["annotator"] for row in mine}) == 1
    assert len(everyone["results"]) == 2 and everyone["next"]
    assert "other-annotator" not in json.dumps(everyone)
    one = caller.get(f"projects/support/judgements/?task={mine[0]['task']}").json()["results"]
    assert one == mine[:1]
    assert caller.get("projects/support/judgements/?annotator_kind=model").json()["results"] == []
    assert caller.get("projects/support/judgements/?annotator_kind=x").status_code == 400


def test_listing_judgements_takes_as_many_queries_for_many_as_for_one(caller, filled_project, annotator):
    def count():
        with CaptureQueriesContext(connection, ) as queries:
            caller.get("projects/support/judgements/")
        return len(queries)

    factories.judge_all(filled_project, annotator, limit=1)
    count()
    one = count()
    factories.judge_all(filled_project, annotator)
    assert count() == one <= 4


def test_ones_own_judgement_is_revised_by_a_new_one(caller, filled_project, other_annotator):
    first = submit(caller, take(caller).json()).json()
    path = f"judgements/{first['id']}/revision/"
    new = {"ranking": [["a"], ["b"], ["c"]]}
    revised = caller.post(path, new, Idempotency_Key="r1")
    assert revised.status_code == 201 and revised.json()["supersedes"] == first["id"]
    assert caller.post(path, new, Idempotency_Key="r1").json() == revised.json()
    stale = caller.post(path, GOOD, Idempotency_Key="r2")
    assert stale.status_code == 409 and code_of(stale) == "not_revisable"
    listed = caller.get("projects/support/judgements/").json()["results"]
    assert [row["id"] for row in listed] == [revised.json()["id"]]
    assert Caller(other_annotator).post(path, new, Idempotency_Key="r3").status_code == 404
    # Without a key the same body is the same revision.
    path = f"judgements/{revised.json()['id']}/revision/"
    assert [caller.post(path, GOOD).status_code for _ in range(2)] == [201, 200]
    filled_project.allows_revision = False
    filled_project.save()
    path = f"judgements/{Judgement.objects.latest('pk').pk}/revision/"
    assert code_of(caller.post(path, new)) == "not_revisable"


def test_statements_of_next_and_submit_stay_few_and_constant(project, annotator):
    """The budget: five statements in the transaction of a submit, however large the project is."""

    def statements(call):
        with CaptureQueriesContext(connection) as queries:
            assert call().status_code == 201
        return [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]

    caller = Caller(annotator)
    caller.get("projects/")  # the token's last use is noted now
    seen = []
    for size in (3, 30):
        factories.fill_project(project, size)
        taken = statements(lambda: take(caller))
        lease = {"id": str(Lease.objects.latest("pk").pk)}
        sent = statements(lambda lease=lease, size=size: submit(caller, lease, key=f"key-{size}"))
        seen.append((len(taken), len(sent)))
    assert seen[0] == seen[1]
    # Of these two are the token and the project.
    assert seen[0][0] <= 6 and seen[0][1] <= 8, seen
    writes = [sql for sql in sent if not sql.startswith("SELECT")]
    assert len(writes) <= 5


def test_quality_answers_with_figures_and_their_intervals(caller, filled_project, annotator, reviewer):
    factories.judge_all(filled_project, annotator)
    figures = Caller(reviewer).get("projects/support/quality/")
    assert figures.status_code == 200 and figures.json()["n_judgements"] == 5
    assert {"agreement", "annotators", "n_tasks", "n_annotators", "consensus_method"} <= set(figures.json())
    assert caller.get("projects/support/quality/").status_code == 403


def test_a_skip_takes_a_reason_that_is_known_beside_a_note(caller):
    lease = take(caller).json()
    body = {"reason": "needs_expert", "note": "tax law"}
    assert caller.post(f"leases/{lease['id']}/skip/", body).status_code == 204
    skipped = Lease.objects.get()
    assert (skipped.skip_reason, skipped.skip_note) == ("needs_expert", "tax law")


def test_a_report_of_a_prompt_is_kept_once_for_each_person_and_the_task_stays(caller):
    lease = take(caller).json()
    for note in ("names a customer", "names two customers"):
        assert caller.post(f"leases/{lease['id']}/report/", {"reason": "personal_data", "note": note}).status_code == 204
    report = PromptReport.objects.get()
    assert (report.reason, report.note, report.state) == ("personal_data", "names two customers", "open")
    assert Lease.objects.get().state == "open"
    assert caller.post(f"leases/{lease['id']}/report/", {"reason": "dull"}).status_code == 400


def test_a_hidden_system_prompt_does_not_reach_the_annotator(caller, filled_project):
    prompt = take(caller).json()["task"]["prompt"]
    Prompt.objects.filter(project=filled_project).update(messages=[{"role": "system", "content": "Secret"}, *prompt])
    assert take(caller).json()["task"]["prompt"][0]["content"] == "Secret"
    change_project(project=filled_project, bench={"system_prompts": "hidden"})
    assert take(caller).json()["task"]["prompt"] == prompt


def test_every_part_of_a_judgement_is_read_back_unchanged(caller, filled_project):
    form = {
        "strength": True, "acceptable": True, "flags": ["unsafe"], "corrections": True, "marks": ["wrong fact"],
        "demonstration": "optional", "ratings": {"tone": {"low": 0, "high": 10, "labels": {"0": "rude"}}},
        "required": ["ratings", "strength"],
    }  # fmt: skip
    change_project(project=filled_project, form=form)
    lease = take(caller).json()
    keys = [one["key"] for one in lease["task"]["completions"]]
    body = {
        "ranking": [[keys[1]], [keys[0], keys[2]]], "strength": 3, "acceptable": {keys[0]: False},
        "flags": {keys[2]: ["unsafe"]}, "corrections": {keys[1]: "Mieux: 好 👍🏽\n\nend"}, "demonstration": "From nothing.",
        "marks": {keys[0]: [{"start": 0, "end": 6, "label": "wrong fact", "comment": "it isn't"}, {"start": 3, "end": 8, "label": "wrong fact"}]},
        "ratings": {key: {"tone": 10} for key in keys}, "rationale": "Because.", "seconds": 12.5,
    }  # fmt: skip
    sent = caller.post(f"leases/{lease['id']}/judgement/", body, Idempotency_Key="all-of-it")
    assert sent.status_code == 201, sent.json()
    assert sent.json()["judgement"] == body
    listed = caller.get("projects/support/judgements/").json()["results"]
    assert [one["judgement"] for one in listed] == [body]
    written = Completion.objects.exclude(author=None).order_by("corrects")
    assert {(one.content, one.corrects_id is not None, one.model_key) for one in written} == {
        ("Mieux: 好 👍🏽\n\nend", True, ""), ("From nothing.", False, ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"marks": {"a": [{"start": 0, "end": 900, "label": "wrong fact"}]}}, "marks.a"),
        ({"marks": {"a": [{"start": 4, "end": 4, "label": "wrong fact"}]}}, "marks.a"),
        ({"marks": {"a": [{"start": 0, "end": 4, "label": "ugly"}]}}, "marks.a"),
        ({"marks": {"a": "all of it"}}, "marks.a"),
        ({"marks": {"z": []}}, "marks.z"),
        ({"corrections": {"a": " "}}, "corrections.a"),
        ({"corrections": {"a": "SAME"}}, "corrections.a"),
        ({"demonstration": 7}, "demonstration"),
    ],
)
def test_a_wrong_part_is_refused_by_its_name(caller, filled_project, part, field):
    change_project(
        project=filled_project, form={"corrections": True, "marks": ["wrong fact"], "demonstration": "optional"}
    )
    lease = take(caller).json()
    shown = {one["key"]: one["content"] for one in lease["task"]["completions"]}
    if part.get("corrections") == {"a": "SAME"}:
        part = {"corrections": {"a": shown["a"]}}
    body = {"ranking": [sorted(shown)], **part}
    answer = caller.post(f"leases/{lease['id']}/judgement/", body, Idempotency_Key="wrong")
    assert answer.status_code == 400 and list(answer.json()["error"]["fields"]) == [field]
