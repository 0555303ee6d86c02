"""The queue of disagreements, and what becomes of a task that a reviewer settles."""

import threading

import pytest
from django.db import connection, transaction
from django.db.utils import DatabaseError
from django.test.utils import CaptureQueriesContext

from labeling.accounts.models import User
from labeling.annotation.errors import KeyReused
from labeling.annotation.models import Judgement, Slot, Task
from labeling.annotation.services import close_tasks_of, revise_judgement, take_lease
from labeling.projects.services import change_project
from labeling.quality.adjudication import (
    adjudicated_rankings,
    bench_of,
    next_in_queue,
    open_notes,
    queue_of,
    queue_page,
)
from labeling.quality.errors import AlreadyAdjudicated, BadOutcome
from labeling.quality.models import Adjudication, Disagreement, Review
from labeling.quality.services import (
    Belief,
    adjudicate,
    open_review,
    record_contradictions,
    refresh_disagreements,
    say_ranking,
    set_adjudication_mode,
    settle_note,
)
from labeling.quality.services import adjudication as services
from tests import factories
from tests.labeling.quality.judged import completion_ids, judge
from tests.services.databases import use_database_file

use_database_file()

A, B = [[0], [1], [2]], [[2], [1], [0]]


@pytest.fixture
def tasks(project):
    return factories.fill_project(project, 3, overlap=2)


@pytest.fixture
def task(project, annotator, other_annotator, tasks):
    """The first task, on which the two differ entirely."""
    judge(project, annotator, A)
    judge(project, other_annotator, B)
    refresh_disagreements()
    return Task.objects.get(disagreement__isnull=False)


def waiting(project) -> list[int]:
    return [row.task_id for row in queue_of(project)]


# --- the queue ----------------------------------------------------------------------------------
def test_tasks_come_in_the_order_of_their_disagreement(project, annotator, other_annotator, tasks):
    for places in (A, A, A):
        judge(project, annotator, places)
    for places in (A, [[1], [0], [2]], B):
        judge(project, other_annotator, places)
    assert refresh_disagreements() == 3
    assert waiting(project) == [tasks[2].pk, tasks[1].pk]
    row = Disagreement.objects.get(task=tasks[1])
    assert (row.share, row.n_comparisons, row.n_people) == (pytest.approx(1 / 3), 3, 2)
    assert Disagreement.objects.get(task=tasks[0]).urgency is None


def test_a_look_counts_only_what_came_in_since_the_last(project, annotator, other_annotator, tasks):
    judge(project, annotator, A)
    assert refresh_disagreements() == 0  # one judgement differs from nothing
    judge(project, other_annotator, B)
    assert refresh_disagreements() == 1
    assert refresh_disagreements() == 0
    with CaptureQueriesContext(connection) as queries:
        refresh_disagreements()
    assert len(queries) < 12


def test_a_look_at_many_judgements_goes_through_them_in_batches(
    monkeypatch, project, annotator, other_annotator, tasks
):
    monkeypatch.setattr(services, "BATCH", 2)
    monkeypatch.setattr(services, "LOOK_BACK", 0)
    for user, places in ((annotator, A), (other_annotator, B)):
        for _task in tasks:
            judge(project, user, places)
    monkeypatch.setattr(services, "MOST_BATCHES", 1)
    refresh_disagreements()
    assert len(waiting(project)) < 3
    for _look in range(4):
        refresh_disagreements()
    assert len(waiting(project)) == 3


def test_the_same_number_of_queries_for_few_tasks_and_for_many(project, annotator, other_annotator):
    factories.fill_project(project, 12, overlap=2)
    counts = []
    refresh_disagreements()
    for n in (2, 10):
        for _task in range(n):
            judge(project, annotator, A)
            judge(project, other_annotator, B)
        with CaptureQueriesContext(connection) as queries:
            refresh_disagreements()
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_revision_is_counted_again(project, task, annotator, other_annotator):
    mine = Judgement.objects.get(annotator=other_annotator)
    keys = {pk: "abc"[index] for index, pk in enumerate(mine.order_shown)}
    same = [[keys[pk]] for pk in completion_ids(task)]
    revise_judgement(judgement=mine, submission_key="again-12345", body={"ranking": same})
    refresh_disagreements()
    assert waiting(project) == []
    assert Disagreement.objects.get().share == 0


def test_a_judgement_that_was_set_aside_does_not_count(project, task, other_annotator):
    Slot.objects.filter(judgements__annotator=other_annotator).update(state=Slot.State.VOID)
    Disagreement.objects.update(newest_judgement=0)
    refresh_disagreements()
    assert waiting(project) == []


def test_ratings_alone_bring_a_task_here(project, annotator, other_annotator):
    scale = {"low": 1, "high": 5}
    change_project(project=project, form={"ranking": False, "ratings": {"tone": scale}, "acceptable": True})
    factories.fill_project(project, 1, n_completions=2, overlap=2)
    judge(project, annotator, [], ratings={0: {"tone": 1}, 1: {"tone": 4}}, acceptable={0: True})
    judge(project, other_annotator, [], ratings={0: {"tone": 5}, 1: {"tone": 4}}, acceptable={0: False})
    refresh_disagreements()
    row = Disagreement.objects.get()
    assert (row.share, row.spread, row.n_ratings) == (None, pytest.approx((1 + 0 + 1) / 3), 3)
    assert row.urgency == row.spread


def test_gold_tasks_are_not_for_reviewers(project, task):
    Task.objects.filter(pk=task.pk).update(purpose=Task.Purpose.GOLD)
    Disagreement.objects.all().delete()
    refresh_disagreements()
    assert Disagreement.objects.count() == 0


def test_a_task_that_was_closed_waits_for_nobody(project, task, reviewer):
    close_tasks_of(prompt=task.prompt)
    Task.objects.filter(pk=task.pk).update(state=Task.State.CLOSED)
    assert waiting(project) == []


def test_the_next_task_is_a_step_into_an_index(project, task):
    plan = queue_of(project)[:50].explain()
    if connection.vendor == "sqlite":
        assert "disagreement_queue" in plan and "TEMP B-TREE" not in plan


def test_the_queue_pages_by_place(monkeypatch, project, annotator, other_annotator, reviewer, tasks):
    monkeypatch.setattr("labeling.quality.adjudication.QUEUE_PAGE", 2)
    for user, places in ((annotator, A), (other_annotator, B)):
        for _task in tasks:
            judge(project, user, places)
    refresh_disagreements()
    first = queue_page(project, reviewer)
    second = queue_page(project, reviewer, first.further)
    assert [row.task_id for row in first.rows + second.rows] == [task.pk for task in tasks]
    assert (first.is_first, second.is_first, second.further) == (True, False, "")
    assert queue_page(project, reviewer, "x_y").rows == first.rows
    assert next_in_queue(project, first.rows[1]).pk == tasks[2].pk
    assert next_in_queue(project, second.rows[0]).pk == tasks[0].pk


# --- a reward model -----------------------------------------------------------------------------
@pytest.fixture
def agreed(project, annotator, other_annotator, tasks):
    judge(project, annotator, A)
    judge(project, other_annotator, A)
    return tasks[0]


def sure_of(task, probability, **more):
    first, _, last = completion_ids(task)
    settings = {"project": task.project, "model_key": "rm@1", "is_calibrated": True} | more
    return record_contradictions(beliefs=[Belief(task.pk, [(first, last, probability)])], **settings)


def test_a_sure_calibrated_model_brings_a_task_before_reviewers(project, agreed):
    assert sure_of(agreed, 0.04) == (1, 1)
    row = queue_of(project).get()
    assert (row.contradiction, row.contradicted_by, row.share) == (pytest.approx(0.96), "rm@1", 0)


def test_the_newest_word_of_a_model_counts(project, agreed):
    sure_of(agreed, 0.04)
    assert sure_of(agreed, 0.4) == (1, 0)
    assert waiting(project) == []


def test_a_model_that_is_not_calibrated_brings_nothing(project, agreed):
    assert sure_of(agreed, 0.04, is_calibrated=False) == (1, 0)


def test_a_majority_of_simulated_annotators_is_none_of_people(project, agreed):
    User.objects.update(kind=User.Kind.SIMULATED)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("DROP TRIGGER annotation_judgement_append_only")
        else:
            cursor.execute("DROP TRIGGER annotation_judgement_append_only ON annotation_judgement")
    Judgement.objects.update(annotator_kind=User.Kind.SIMULATED)
    assert sure_of(agreed, 0.0) == (1, 0)


def test_what_a_model_says_must_be_of_the_task(project, agreed, tasks, stranger):
    first, second, _ = completion_ids(agreed)
    elsewhere = completion_ids(tasks[1])[0]
    for task, pair in (
        (agreed.pk, (first, elsewhere, 0.1)),
        (agreed.pk, (first, first, 0.1)),
        (agreed.pk, (first, second, 1.1)),
        (0, (first, second, 0.1)),
    ):
        with pytest.raises(BadOutcome):
            record_contradictions(project=project, model_key="rm@1", is_calibrated=True, beliefs=[Belief(task, [pair])])
    other = factories.make_project(stranger, slug="elsewhere")
    with pytest.raises(BadOutcome):
        record_contradictions(
            project=other, model_key="rm@1", is_calibrated=True, beliefs=[Belief(agreed.pk, [(first, second, 0.1)])]
        )


# --- settling -----------------------------------------------------------------------------------
def settle(task, by, **more):
    return adjudicate(task=task, by=by, **{"submission_key": f"key-{by.pk}-{task.pk}", "outcome": "left"} | more)


def test_a_ranking_is_the_truth_and_no_judgement_changes(project, task, reviewer):
    before = list(Judgement.objects.values().order_by("pk"))
    first, second, third = completion_ids(task)
    done = settle(
        task, reviewer, outcome="ranking", ranking=[[second], [first, third]], becomes_gold=True, rationale=" r "
    )
    assert done.is_new
    assert done.adjudication.rationale == "r"
    assert adjudicated_rankings(project) == {task.pk: [[second], [first, third]]}
    assert waiting(project) == []
    assert list(Judgement.objects.values().order_by("pk")) == before


def test_a_settled_task_does_not_come_back(project, task, reviewer):
    settle(task, reviewer)
    Disagreement.objects.update(newest_judgement=0)
    refresh_disagreements()
    assert waiting(project) == []
    assert adjudicated_rankings(project) == {}


def test_an_unfit_task_is_closed_and_given_to_nobody(project, annotator, other_annotator, reviewer):
    factories.fill_project(project, 1, overlap=3)
    judge(project, annotator, A)
    judge(project, other_annotator, B)
    refresh_disagreements()
    task = queue_of(project).get().task
    settle(task, reviewer, outcome="unfit")
    task.refresh_from_db()
    assert task.state == Task.State.CLOSED
    assert take_lease(project=project, annotator=project.created_by) is None


def test_the_same_key_again_settles_once(task, reviewer, tasks):
    first, again = settle(task, reviewer), settle(task, reviewer, outcome="unfit")
    assert (again.adjudication, again.is_new) == (first.adjudication, False)
    with pytest.raises(KeyReused):
        settle(tasks[1], reviewer, submission_key=first.adjudication.submission_key)


def test_of_two_reviewers_one_is_told_of_the_other_and_may_replace_them(project, task, reviewer, lead):
    first = settle(task, reviewer).adjudication
    with pytest.raises(AlreadyAdjudicated, match="reviewer settled this task") as caught:
        settle(task, lead)
    assert caught.value.adjudication == first
    second = settle(task, lead, supersedes=first.pk, outcome="ranking", ranking=[completion_ids(task)]).adjudication
    assert (second.supersedes, Adjudication.objects.filter(superseded_by=None).get()) == (first, second)
    with pytest.raises(AlreadyAdjudicated):  # by now another one stands
        settle(task, reviewer, supersedes=first.pk, submission_key="another-key")
    assert list(adjudicated_rankings(project)) == [task.pk]


@pytest.mark.parametrize("ranking", [None, [], [[1]], "short", "twice", "empty"])
def test_a_ranking_names_every_completion_once(task, reviewer, ranking):
    first, second, third = completion_ids(task)
    odd = {
        "short": [[first], [second]],
        "twice": [[first], [second, third], [first]],
        "empty": [[first, second, third], []],
    }
    with pytest.raises(BadOutcome) as caught:
        settle(
            task,
            reviewer,
            outcome="ranking",
            ranking=odd.get(ranking, ranking) if isinstance(ranking, str) else ranking,
        )
    assert set(caught.value.fields) == {"ranking"}
    assert Adjudication.objects.count() == 0


def test_the_database_refuses_to_change_an_outcome_but_not_to_tick_off_its_note(task, reviewer, lead, project):
    done = settle(task, reviewer, note_to_guideline="What of emoji?").adjudication
    with pytest.raises(DatabaseError), transaction.atomic():
        Adjudication.objects.update(outcome="unfit")
    assert list(open_notes(project)) == [done]
    assert settle_note(adjudication=done, by=lead) is True
    assert settle_note(adjudication=done, by=lead) is False
    assert list(open_notes(project)) == []


# --- blind --------------------------------------------------------------------------------------
def test_in_a_blind_project_the_votes_wait_for_the_reviewers_own_ranking(project, task, reviewer):
    review = open_review(task=task, by=reviewer)
    assert review.votes_seen_at is None
    assert not bench_of(task, review).sees_votes
    ranking = [[pk] for pk in review.order_shown]
    review = say_ranking(review=review, ranking=ranking, rationale="because")
    assert review.votes_seen_at == review.said_at
    again = say_ranking(review=review, ranking=ranking[::-1])
    assert again.said == ranking
    bench = bench_of(task, again)
    assert bench.sees_votes and not bench.shows_reason
    assert bench.filled["ranking"] == [["a"], ["b"], ["c"]]
    assert settle(task, reviewer).adjudication.blind is True


def test_in_an_open_project_nothing_is_blind(project, task, reviewer):
    set_adjudication_mode(project=project, mode="open")
    task.project.refresh_from_db()
    review = open_review(task=task, by=reviewer)
    assert review.votes_seen_at is not None
    assert bench_of(task, review).shows_reason
    set_adjudication_mode(project=project, mode="blind")  # what was seen stays seen
    say_ranking(review=review, ranking=[[pk] for pk in review.order_shown])
    assert settle(task, reviewer).adjudication.blind is False


def test_the_mode_leaves_the_other_settings_alone(project):
    project.quality = {"gold_share": 0.1}
    project.save()
    set_adjudication_mode(project=project, mode="open")
    project.refresh_from_db()
    assert project.quality == {"gold_share": 0.1, "adjudication": "open"}
    with pytest.raises(BadOutcome):
        set_adjudication_mode(project=project, mode="half")


def test_each_reviewer_has_one_order_and_keeps_it(task, reviewer, lead):
    first, again = open_review(task=task, by=reviewer), open_review(task=task, by=reviewer)
    assert first.order_shown == again.order_shown
    open_review(task=task, by=lead)
    assert Review.objects.count() == 2
    assert sorted(first.order_shown) == completion_ids(task)


@pytest.mark.django_db(transaction=True)
def test_of_eight_reviewers_at_once_one_outcome_stands(project, annotator, other_annotator):
    factories.fill_project(project, 1, overlap=2)
    judge(project, annotator, A)
    judge(project, other_annotator, B)
    task = project.tasks.get()
    reviewers = [factories.make_user(f"r{number}") for number in range(8)]
    results = []
    start = threading.Barrier(8)

    def work(by):
        start.wait()
        try:
            results.append(settle(task, by).is_new)
        except AlreadyAdjudicated:
            results.append(False)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=[by]) for by in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert Adjudication.objects.count() == 1
