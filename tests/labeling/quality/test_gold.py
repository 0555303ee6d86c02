"""Gold tasks: how they are scored, and that nobody can tell one from another task."""

import re
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from labeling.annotation.bench import figures_of
from labeling.annotation.models import Judgement, Lease, Slot, Task
from labeling.annotation.selectors import prompts_for_data, prompts_for_gold, queue_figures
from labeling.annotation.services import (
    create_tasks_for_prompts,
    free_expired_leases,
    mixing,
    revise_judgement,
    skip_lease,
    take_lease,
)
from labeling.imports.services import import_rows
from labeling.live.models import Event
from labeling.projects.models import Prompt
from labeling.projects.text import sha256
from labeling.quality.errors import BadGold
from labeling.quality.gold import (
    gold_results,
    is_surely_below,
    last_surely_good,
    pass_figure,
    results_by_task,
    score_of,
    unanimous_tasks,
)
from labeling.quality.plans import plan_tasks
from labeling.quality.services import change_gold, create_gold, promote_task
from tests import factories
from tests.api_caller import Caller
from tests.labeling.quality import gold

ORDERED = {"ranking": [[1], [2], [3]]}


# --- scores -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "score"),
    [
        ([[1], [2], [3]], 1),
        ([[3], [2], [1]], 0),
        ([[2], [1], [3]], 2 / 3),
        ([[1, 2], [3]], 2.5 / 3),
        ([[1, 2, 3]], 0.5),
        ([], 0),
    ],
)
def test_each_pair_of_a_ranking_counts_and_a_tie_is_half_right(said, score):
    assert score_of(ORDERED, said, {}) == pytest.approx(score)


def test_an_expected_tie_is_right_where_it_is_said():
    assert score_of({"ranking": [[1, 2], [3]]}, [[1, 2], [3]], {}) == 1
    assert score_of({"ranking": [[1, 2], [3]]}, [[1], [2], [3]], {}) == pytest.approx(2.5 / 3)


def test_ratings_are_right_within_their_tolerance_and_parts_weigh_alike():
    expected = {
        **ORDERED,
        "ratings": {"1": {"tone": {"value": 4, "within": 1}}, "2": {"tone": {"value": 1, "within": 0}}},
        "acceptable": {"1": True},
    }
    said = {"ratings": {"1": {"tone": 5}, "2": {"tone": 2}}, "acceptable": {"1": True}}
    assert score_of(expected, [[1], [2], [3]], said) == pytest.approx((1 + 0.5 + 1) / 3)
    assert score_of(expected, [[1], [2], [3]], {}) == pytest.approx(1 / 3)  # what was left out is wrong
    assert score_of({"acceptable": {"1": False}}, [], {"acceptable": {"1": True}}) == 0


def test_the_figure_carries_its_interval_by_wilson():
    figure = pass_figure([1, 1, 0.7, 0.5, 1], 0.75)
    # statsmodels.stats.proportion.proportion_confint(3, 5, method="wilson")
    assert (figure["value"], figure["n"]) == (0.6, 5)
    assert (figure["low"], figure["high"]) == (pytest.approx(0.2307, abs=1e-4), pytest.approx(0.8824, abs=1e-4))
    assert figure["mean_score"] == pytest.approx(0.84)
    assert pass_figure([], 0.75)["value"] is None


@pytest.mark.parametrize(
    ("right", "wrong", "pauses"), [(0, 5, True), (0, 4, False), (1, 7, True), (2, 3, False), (3, 2, False), (0, 0, False)]
)
def test_only_a_bad_record_is_surely_below_the_bound(right, wrong, pauses):
    figure = pass_figure([1.0] * right + [0.0] * wrong, 0.75)
    assert is_surely_below(figure, bound=0.5, least=5) is pauses


def test_the_last_time_somebody_was_surely_good():
    start = now()
    answers = [(start + timedelta(hours=hour), score) for hour, score in enumerate([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])]
    found = last_surely_good(answers, passes_from=0.75, bound=0.5, window=20)
    assert found == start + timedelta(hours=4)  # 5 of 5 begins at 0.57, 5 of 6 at 0.44
    assert last_surely_good(answers[5:], passes_from=0.75, bound=0.5, window=20) is None


# --- mixing in ----------------------------------------------------------------------------------
@pytest.fixture
def always_gold(project, monkeypatch):
    """Ordinary tasks, gold tasks, and dice that always fall on gold."""
    factories.fill_project(project, 12)
    golds = gold.write(project, 4)
    gold.set_quality(project, gold_rate=0.5)
    monkeypatch.setattr(mixing.random, "SystemRandom", FallsOn(0.1))
    return golds


class FallsOn:
    """Dice that always fall on the same share; all else stays random."""

    def __init__(self, value: float) -> None:
        import random

        self.value, self.real = value, random.Random(3)

    def __call__(self):
        return self

    def random(self) -> float:
        return self.value

    def __getattr__(self, name: str):
        return getattr(self.real, name)


def test_about_as_many_are_gold_as_the_project_says(project, annotator):
    factories.fill_project(project, 160, n_completions=2)
    gold.write(project, 60, n_completions=2)
    gold.set_quality(project, gold_rate=0.25)
    kinds = Counter()
    for _number in range(120):
        lease = take_lease(project=project, annotator=annotator)
        kinds[lease.task.purpose] += 1
        gold.answer(lease)
    assert 12 <= kinds["gold"] <= 50  # 30 expected, 4 standard deviations
    assert queue_figures(project).n_done == kinds["preference"]


def test_a_person_meets_no_gold_task_twice_and_all_of_them_in_turn(project, annotator, other_annotator, always_gold):
    met = []
    for _number in range(4):
        lease = take_lease(project=project, annotator=annotator)
        met.append(lease.task.repeats_id)
        gold.answer(lease)
    assert sorted(met) == [answer.task_id for answer in always_gold]
    assert not take_lease(project=project, annotator=annotator).task.is_gold
    # The one shown least comes first.
    fresh = gold.write(project, 1, start=50)[0]
    assert take_lease(project=project, annotator=other_annotator).task.repeats_id == fresh.task_id


def test_a_gold_task_comes_again_after_the_days_that_are_set(project, annotator, always_gold):
    for _number in range(4):
        gold.answer(take_lease(project=project, annotator=annotator))
    Lease.objects.filter(annotator=annotator).update(created_at=now() - timedelta(days=89))
    lease = take_lease(project=project, annotator=annotator)
    assert not lease.task.is_gold
    gold.answer(lease)
    Lease.objects.filter(annotator=annotator, task__purpose="gold").update(created_at=now() - timedelta(days=91))
    lease = take_lease(project=project, annotator=annotator)
    assert lease.task.is_gold
    assert Judgement.objects.filter(annotator=annotator, task__repeats=lease.task.repeats_id).count() == 1


def test_whoever_met_the_prompt_or_wrote_the_completions_is_given_another(project, lead, annotator, always_gold):
    for answer in always_gold[1:]:
        change_gold(gold=answer, retired=True)
    assert not take_lease(project=project, annotator=lead).task.is_gold  # wrote it
    prompt = always_gold[0].task.prompt
    Task.objects.filter(purpose="preference").update(prompt=prompt)
    gold.set_quality(project, gold_rate=0.0)
    take_lease(project=project, annotator=annotator)
    gold.set_quality(project, gold_rate=0.5)
    held = list(Lease.objects.values_list("pk", flat=True))
    assert not take_lease(project=project, annotator=annotator, holding=held).task.is_gold


def test_where_the_queue_has_nothing_for_somebody_they_get_no_gold_task(project, annotator):
    gold.write(project, 2)
    gold.set_quality(project, gold_rate=0.5)
    assert [take_lease(project=project, annotator=annotator) for _ in range(20)] == [None] * 20


def test_a_retired_gold_task_is_not_handed_out_until_it_is_taken_back(project, annotator, always_gold):
    for answer in always_gold:
        change_gold(gold=answer, retired=True)
    lease = take_lease(project=project, annotator=annotator)
    assert not lease.task.is_gold
    gold.answer(lease)
    change_gold(gold=always_gold[0], retired=False)
    assert take_lease(project=project, annotator=annotator).task.is_gold


def test_skipping_or_letting_a_gold_task_run_out_never_puts_it_in_the_queue(project, annotator, other_annotator, always_gold):
    skip_lease(lease=take_lease(project=project, annotator=annotator))
    late = take_lease(project=project, annotator=annotator)
    free_expired_leases(at=now() + timedelta(days=1))
    late.refresh_from_db()
    gold.set_quality(project, gold_rate=0.0)
    assert factories.judge_all(project, other_annotator) == 12
    assert not gold.answer(late).judgement.is_surplus  # late, and nobody else took it
    assert not Task.objects.filter(purpose="gold", repeats=None).exclude(state=Task.State.OPEN).exists()


def test_it_counts_for_the_daily_cap(project, annotator, always_gold):
    project.bench["daily_cap"] = 2
    project.save()
    gold.answer(take_lease(project=project, annotator=annotator))
    gold.answer(take_lease(project=project, annotator=annotator))
    assert take_lease(project=project, annotator=annotator) is None


# --- nothing tells ------------------------------------------------------------------------------
def shape(value):
    """The same for values alike but for numbers and texts."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__ if not isinstance(value, str) else re.sub(r"[0-9a-f]{16}|\d+", "#", value[:0])


def html_shape(page: str) -> list[str]:
    page = re.sub(r'"X-CSRFToken": "\w+"', "", page)
    page = re.sub(r"Where is my \w+ parcel[^<\"]*|Answer \d+ about[^<\"]*", "TEXT", page)
    page = re.sub(r"[0-9a-f]{16,}|\d+", "#", page)
    return re.findall(r"<[^>]+>|TEXT", re.sub(r'(value|nonce|name="csrf\w*" value)="[^"]{20,}"', "", page))


def ordinary_and_gold(project, annotator, monkeypatch, what):
    """`what` of an ordinary task, then of a gold one."""
    factories.fill_project(project, 30)
    gold.write(project, 8)
    gold.set_quality(project, gold_rate=0.5)
    found = []
    for dice in (0.9, 0.1):
        monkeypatch.setattr(mixing.random, "SystemRandom", FallsOn(dice))
        found.append(what())
    purposes = list(Task.objects.filter(leases__annotator=annotator).order_by("leases__pk").values_list("purpose", flat=True))
    assert "gold" in purposes and "preference" in purposes
    return found


def test_the_lease_over_rest_tells_nothing(project, annotator, monkeypatch):
    caller = Caller(annotator)

    def taken_and_submitted():
        held = list(map(str, Lease.objects.filter(annotator=annotator).values_list("pk", flat=True)))
        lease = caller.post("projects/support/leases/", {"holding": held}).json()
        renewed = caller.post(f"leases/{lease['id']}/renew/").json()
        done = caller.post(
            f"leases/{lease['id']}/judgement/", {"ranking": [["a"], ["b", "c"]]}, Idempotency_Key=f"key-{lease['id']}"
        ).json()
        listed = caller.get("projects/support/judgements/").json()["results"][0]
        revised = caller.post(f"judgements/{done['id']}/revision/", {"ranking": [["c"], ["b", "a"]]}).json()
        assert len(lease["task"]["id"]) == 16
        return [lease, renewed, done, listed, revised]

    ordinary, of_gold = ordinary_and_gold(project, annotator, monkeypatch, taken_and_submitted)
    assert shape(ordinary) == shape(of_gold)
    assert set(ordinary[0]) == {"id", "expires_at", "task", "guideline", "draft"}


def test_the_bench_its_figures_and_the_history_tell_nothing(client, project, annotator, monkeypatch):
    client.force_login(annotator)

    def pages():
        bench = client.get("/projects/support/bench/").content.decode()
        lease = Lease.objects.filter(annotator=annotator).latest("pk")
        figures = figures_of(annotator, project)
        done = client.post(
            f"/projects/support/bench/leases/{lease.pk}/submit/",
            {"submission_key": f"a-key-of-{lease.pk}", "rank.a": "1", "rank.b": "2", "rank.c": "3"},
            headers={"X-Bench": "1"},
        ).json()
        history = client.get("/projects/support/bench/history/").content.decode()
        revision = client.get(done["undo_url"]).content.decode()
        # Only the newest judgement's row.
        row = html_shape(history.split("<li>")[1].split("</li>")[0])
        return html_shape(bench), sorted(done), row, html_shape(revision), figures.n_left, html_shape(done["figures"])

    first, again = ordinary_and_gold(project, annotator, monkeypatch, pages)
    # The first page has no judgement yet that could be undone.
    assert [tag for tag in first[0] if "data-undo-url" not in tag] == [tag for tag in again[0] if "data-undo-url" not in tag]
    assert first[1:] == again[1:]


def test_figures_of_what_is_left_are_rounded_so_that_none_stands_still(project, annotator, monkeypatch):
    factories.fill_project(project, 30)
    gold.write(project, 8)
    gold.set_quality(project, gold_rate=0.5)
    monkeypatch.setattr(mixing.random, "SystemRandom", FallsOn(0.1))
    seen = set()
    for _number in range(5):
        lease = take_lease(project=project, annotator=annotator)
        seen.add(figures_of(annotator, project).n_left)
        gold.answer(lease)
    assert seen <= {30, 40} and figures_of(annotator, project).is_rough
    gold.set_quality(project, gold_rate=0.0)
    assert figures_of(annotator, project).n_left == 30


def test_events_and_the_queue_are_the_same(project, annotator, monkeypatch):
    def events():
        before = Event.objects.count()
        gold.answer(take_lease(project=project, annotator=annotator))
        skip_lease(lease=take_lease(project=project, annotator=annotator))
        return list(Event.objects.order_by("pk").values_list("name", "payload")[before:])

    ordinary, of_gold = ordinary_and_gold(project, annotator, monkeypatch, events)
    assert ordinary == of_gold
    figures = queue_figures(project)
    assert (figures.n_tasks, figures.n_done, figures.n_surplus) == (30, 1, 0)


def test_a_hidden_gold_answer_can_be_revised_and_the_newest_counts(project, annotator, always_gold):
    lease = take_lease(project=project, annotator=annotator)
    judgement = gold.answer(lease, well=False).judgement
    assert gold_results(project).by_annotator[annotator.pk]["value"] == 0
    revise_judgement(judgement=judgement, submission_key="again-1", body=gold.body_of(lease))
    assert gold_results(project).by_annotator[annotator.pk]["value"] == 1
    assert gold_results(project).by_annotator[annotator.pk]["window"]["n"] == 1


def test_off_it_costs_no_statement_and_on_a_fixed_number(project, annotator, other_annotator, monkeypatch):
    factories.fill_project(project, 40)
    gold.write(project, 20)

    def statements(person, dice: float | None) -> int:
        if dice is not None:
            monkeypatch.setattr(mixing.random, "SystemRandom", FallsOn(dice))
        member = mixing.Membership.objects.select_related("project", "user").get(project=project, user=person)
        with CaptureQueriesContext(connection) as queries:
            mixing.mixed_in(member, at=now(), expires_at=now() + timedelta(hours=1))
        return len(queries)

    assert statements(annotator, None) == 0
    gold.set_quality(project, gold_rate=0.5)
    assert statements(annotator, 0.9) == 0
    few = statements(annotator, 0.1)
    for _number in range(12):
        gold.answer(take_lease(project=project, annotator=other_annotator))
    assert statements(annotator, 0.1) == few <= 8


# --- making them --------------------------------------------------------------------------------
def test_changing_what_is_expected_scores_past_answers_anew(project, annotator, always_gold):
    lease = take_lease(project=project, annotator=annotator)
    gold.answer(lease, well=False)
    answer = next(one for one in always_gold if one.task_id == lease.task.repeats_id)
    assert results_by_task(project)[answer.task_id]["value"] == 0
    change_gold(gold=answer, expected={"ranking": list(reversed(answer.expected["ranking"]))})
    assert results_by_task(project)[answer.task_id]["value"] == 1


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        ({}, "expected"),
        ({"ranking": [[0], [1]]}, "ranking"),
        ({"ranking": "abc"}, "ranking"),
        ({"ranking": [[0], [1], [2, 2]]}, "ranking"),
        ({"ratings": {"x": {}}}, "ratings"),
        ({"acceptable": {}, "flags": {}}, "expected"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(filled_project, expected, field):
    prompt = gold.prompts(filled_project)[0]
    ids = list(prompt.completions.values_list("pk", flat=True))
    if isinstance(expected.get("ranking"), list):
        expected = {"ranking": [[ids[place] for place in group] for group in expected["ranking"]]}
    with pytest.raises(BadGold) as refused:
        create_gold(project=filled_project, prompt=prompt, completion_ids=ids, expected=expected)
    assert list(refused.value.fields) == [field]


def test_a_gold_task_is_made_once_and_of_the_prompts_own_completions(filled_project):
    one, other = gold.prompts(filled_project)[:2]
    ids = list(one.completions.values_list("pk", flat=True))
    expected = {"ranking": [[pk] for pk in ids]}
    create_gold(project=filled_project, prompt=one, completion_ids=ids, expected=expected)
    for prompt in (one, other):
        with pytest.raises(BadGold):
            create_gold(project=filled_project, prompt=prompt, completion_ids=ids, expected=expected)
    assert not Slot.objects.filter(task__purpose="gold").exists()


def test_tasks_that_three_people_ranked_alike_are_promoted(project, lead, reviewer, annotator, other_annotator, monkeypatch):
    tasks = factories.fill_project(project, 3, overlap=3)
    for person in (annotator, other_annotator, reviewer):
        factories.judge_all(project, person)
    with_another_opinion = Judgement.objects.filter(annotator=reviewer, task=tasks[0]).get()
    revise_judgement(judgement=with_another_opinion, submission_key="other-1", body={"ranking": [["a", "b", "c"]]})
    assert [(task, n) for task, _ranking, n in unanimous_tasks(project)] == [(tasks[2], 3), (tasks[1], 3)]
    promoted = promote_task(task=tasks[1], by=lead)
    assert promoted.expected["ranking"] == Judgement.objects.filter(task=tasks[1]).first().ranking
    assert [task for task, *_ in unanimous_tasks(project)] == [tasks[2]]
    for task in tasks[:2]:
        with pytest.raises(BadGold):
            promote_task(task=task, by=lead)


# --- what was written for gold stays out of the data -----------------------------------------------
@pytest.fixture
def written(project):
    """Six ordinary prompts, of which one has a gold task, too; and two written for gold tasks."""
    factories.fill_project(project, 6)
    ordinary = gold.prompts(project)
    ids = sorted(ordinary[0].completions.values_list("pk", flat=True))
    create_gold(project=project, prompt=ordinary[0], completion_ids=ids, expected={"ranking": [[pk] for pk in ids]})
    golds = gold.write(project, 2)
    return ordinary, [answer.task.prompt for answer in golds]


def test_a_prompt_written_for_gold_is_not_for_data_and_one_that_was_there_is(project, written):
    ordinary, of_gold = written
    assert list(prompts_for_data(project).order_by("pk")) == ordinary
    assert list(prompts_for_gold(project).order_by("pk")) == of_gold
    # Imported before, it was there; a gold task written over it leaves it ordinary.
    rows = [b'{"prompt": "Where is my golden parcel 9?", "completions": [{"content": "There."}, {"content": "Here."}]}']
    import_rows(project=project, format="completions", lines=rows, created_by=project.created_by)
    gold.write(project, 1, start=9)
    assert prompts_for_data(project).count() == 7


def test_no_ordinary_task_is_made_of_it(project, written, engineer):
    _ordinary, of_gold = written
    for prompt in of_gold:  # as if it had been sampled before
        for content in ("One.", "Two."):
            prompt.completions.create(content=content, content_hash=sha256(content), model_key="tiny@1")
    made, left_out = create_tasks_for_prompts(
        project=project, prompts=Prompt.objects.filter(project=project), completions_per_task=2, iteration=2
    )
    assert (made, left_out) == (6, 0)
    plan = plan_tasks(project=project, completions_per_task=2, overlap=1, which="all")
    assert (plan.n_prompts, plan.n_bare) == (6, 0)
    answer = Caller(engineer).post("projects/support/tasks/", {"prompts": [str(of_gold[0].pk)]})
    assert answer.status_code == 400 and "written for gold tasks" in answer.json()["error"]["fields"]["prompts"][0]
    assert not Task.objects.filter(prompt__in=of_gold, purpose__in=Task.COLLECTED).exists()
