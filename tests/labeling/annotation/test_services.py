from collections import Counter
from datetime import timedelta

import pytest
from django.db import DatabaseError, transaction
from django.utils.timezone import now

from labeling.annotation.errors import AlreadyJudged, BadTasks, KeyReused, LeaseLost, NotRevisable
from labeling.annotation.models import Judgement, Lease, Task
from labeling.annotation.selectors import queue_figures, shown_completions
from labeling.annotation.services import (
    NewTask,
    close_tasks_of,
    create_tasks,
    create_tasks_for_prompts,
    free_expired_leases,
    judgement_body,
    judgements,
    open_leased_task,
    renew_lease,
    revise_judgement,
    save_draft,
    skip_lease,
    submit_and_take_lease,
    submit_judgement,
    take_lease,
)
from labeling.projects.feedback import BadAnswer
from labeling.projects.models import Completion, Prompt
from labeling.projects.services import add_member, change_project, publish_guideline
from tests import factories

pytestmark = pytest.mark.django_db

RANKING = {"ranking": [["b"], ["a", "c"]], "seconds": 4.5}
OTHER = {"ranking": [["a"], ["b"], ["c"]]}
SAVEPOINT = 2  # statements, where a transaction is inside that of the test


@pytest.fixture
def one_task(project):
    """A project with a single task of one slot."""
    [task] = factories.fill_project(project, 1)
    return task


@pytest.fixture
def late(project):
    return now() + timedelta(seconds=project.lease_seconds + 1)


# --- tasks --------------------------------------------------------------------------------------
def test_the_same_tasks_again_are_left_alone(filled_project):
    made, too_few = create_tasks_for_prompts(
        project=filled_project, prompts=Prompt.objects.filter(project=filled_project), completions_per_task=3
    )
    assert (made, too_few) == (0, 0)
    assert filled_project.tasks.count() == 5


def test_a_task_needs_two_to_nine_completions_and_an_overlap_of_at_least_one(one_task):
    ids = list(one_task.completions.values_list("pk", flat=True))
    for wrong in (ids[:1], ids[:1] * 3, list(range(10))):
        with pytest.raises(BadTasks):
            create_tasks(project=one_task.project, new_tasks=[NewTask(one_task.prompt_id, wrong)])
    with pytest.raises(BadTasks):
        create_tasks(project=one_task.project, new_tasks=[NewTask(one_task.prompt_id, ids)], overlap=0)


def test_prompts_with_one_distinct_completion_are_counted_and_left(project):
    factories.fill_project(project, 1)
    lone = factories.completions_rows(1, 1, start=7)
    from labeling.imports.services import import_rows

    import_rows(project=project, format="completions", lines=lone, created_by=None)
    prompt = Prompt.objects.latest("pk")
    # The same text by another model is one choice, not two.
    text = prompt.completions.get()
    Completion.objects.create(prompt=prompt, content=text.content, content_hash=text.content_hash, model_key="other@1")
    assert create_tasks_for_prompts(project=project) == (0, 1)


# --- leases -------------------------------------------------------------------------------------
def test_the_order_shown_is_random_recorded_and_the_one_judged_by(project, annotator):
    factories.fill_project(project, 40, n_completions=4)
    change_project(project=project, lease_seconds=7200)
    orders = Counter()
    while lease := take_lease(project=project, annotator=annotator):
        ids = sorted(lease.order_shown)
        orders[tuple(ids.index(pk) for pk in lease.order_shown)] += 1
        assert [shown.key for shown in shown_completions(lease)] == ["a", "b", "c", "d"]
        body = {"ranking": [["d"], ["b", "a"], ["c"]]}
        judgement = submit_judgement(lease=lease, submission_key=str(lease.pk), body=body).judgement
        a, b, c, d = lease.order_shown
        assert judgement.ranking == [[d], [b, a], [c]]
        assert judgement.order_shown == lease.order_shown
        assert judgement_body(judgement) == body
    assert sum(orders.values()) == 40
    assert len(orders) > 10  # of 24; fewer than 11 has a chance of about one in 10**8


def test_asking_again_gives_the_lease_held_and_naming_it_gives_the_next(filled_project, annotator):
    first = take_lease(project=filled_project, annotator=annotator)
    assert take_lease(project=filled_project, annotator=annotator) == first
    second = take_lease(project=filled_project, annotator=annotator, holding=[first.pk])
    third = take_lease(project=filled_project, annotator=annotator, holding=[first.pk, second.pk])
    assert len({first.task_id, second.task_id, third.task_id}) == 3
    held = [first.pk, second.pk, third.pk]
    assert take_lease(project=filled_project, annotator=annotator, holding=held) is None


def test_higher_priority_goes_first(filled_project, annotator):
    completions = Prompt.objects.filter(project=filled_project).last().completions.order_by("pk")[:2]
    urgent = NewTask(completions[0].prompt_id, [completion.pk for completion in completions])
    factories.judge_all(filled_project, annotator, limit=1)
    create_tasks(project=filled_project, new_tasks=[urgent], priority=5)
    assert take_lease(project=filled_project, annotator=annotator).task.priority == 5


def test_one_slot_is_given_to_one_person(one_task, annotator, other_annotator):
    assert take_lease(project=one_task.project, annotator=annotator)
    assert take_lease(project=one_task.project, annotator=other_annotator) is None


def test_nobody_gets_a_task_twice_though_it_wants_more_judgements(project, annotator, other_annotator):
    factories.fill_project(project, 1, overlap=2)
    assert factories.judge_all(project, annotator) == 1
    assert factories.judge_all(project, other_annotator) == 1
    assert project.tasks.get().state == Task.State.DONE


def test_a_paused_project_gives_no_new_lease_but_takes_what_is_held(filled_project, annotator, other_annotator):
    lease = take_lease(project=filled_project, annotator=annotator)
    change_project(project=filled_project, state="paused")
    assert take_lease(project=filled_project, annotator=other_annotator) is None
    assert take_lease(project=filled_project, annotator=annotator, holding=[lease.pk]) is None
    assert submit_judgement(lease=lease, submission_key="k", body=RANKING).is_new


def test_a_closed_task_is_given_to_nobody(one_task, annotator):
    close_tasks_of(prompt=one_task.prompt)
    assert take_lease(project=one_task.project, annotator=annotator) is None


def test_a_skipped_task_goes_to_others_and_never_back(one_task, annotator, other_annotator):
    project = one_task.project
    lease = take_lease(project=project, annotator=annotator)
    skip_lease(lease=lease, reason="cannot read it")
    assert take_lease(project=project, annotator=annotator) is None
    with pytest.raises(LeaseLost):
        submit_judgement(lease=lease, submission_key="k", body=RANKING)
    with pytest.raises(LeaseLost):
        skip_lease(lease=lease)
    assert take_lease(project=project, annotator=other_annotator).task == one_task


def test_a_lease_can_be_renewed_until_it_is_closed(one_task, annotator, other_annotator):
    project = one_task.project
    lease = take_lease(project=project, annotator=annotator)
    almost = now() + timedelta(seconds=project.lease_seconds - 5)
    until = renew_lease(lease=lease, at=almost)
    after_first_expiry = now() + timedelta(seconds=project.lease_seconds + 5)
    assert free_expired_leases(at=after_first_expiry) == 0
    assert take_lease(project=project, annotator=other_annotator, at=after_first_expiry) is None
    assert free_expired_leases(at=until) == 1
    with pytest.raises(LeaseLost):
        renew_lease(lease=lease)


def test_an_expired_slot_is_given_on_even_before_the_sweeper_comes(one_task, annotator, other_annotator, late):
    first = take_lease(project=one_task.project, annotator=annotator)
    second = take_lease(project=one_task.project, annotator=other_annotator, at=late)
    assert second.slot == first.slot
    first.refresh_from_db()
    assert first.state == Lease.State.EXPIRED


def test_own_leases_that_ran_out_do_not_keep_a_person_from_new_ones(filled_project, annotator, late):
    held = []
    for _ in range(3):
        held.append(take_lease(project=filled_project, annotator=annotator, holding=held).pk)
    assert take_lease(project=filled_project, annotator=annotator, at=late)


def test_a_draft_is_kept_on_an_open_and_on_an_expired_lease_and_gone_with_the_submission(one_task, annotator, late):
    lease = take_lease(project=one_task.project, annotator=annotator)
    save_draft(lease=lease, draft={"rationale": "half a"})
    free_expired_leases(at=late)
    save_draft(lease=lease, draft={"rationale": "half a thought"})
    lease.refresh_from_db()
    assert (lease.state, lease.draft) == ("expired", {"rationale": "half a thought"})
    submit_judgement(lease=lease, submission_key="k", body=RANKING)
    lease.refresh_from_db()
    assert lease.draft is None
    with pytest.raises(LeaseLost):
        save_draft(lease=lease, draft={})


# --- judgements ---------------------------------------------------------------------------------
def test_submitting_twice_with_one_key_records_one_judgement(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    first = submit_judgement(lease=lease, submission_key="k", body=RANKING)
    again = submit_judgement(lease=lease, submission_key="k", body=dict(reversed(RANKING.items())))
    assert (first.is_new, again.is_new) == (True, False)
    assert first.judgement == again.judgement == Judgement.objects.get()
    one_task.refresh_from_db()
    assert (one_task.n_judged, one_task.state) == (1, Task.State.DONE)


def test_a_key_with_another_body_or_for_another_task_is_refused(filled_project, annotator):
    lease = take_lease(project=filled_project, annotator=annotator)
    submit_judgement(lease=lease, submission_key="k", body=RANKING)
    with pytest.raises(KeyReused):
        submit_judgement(lease=lease, submission_key="k", body=OTHER)
    second = take_lease(project=filled_project, annotator=annotator)
    with pytest.raises(KeyReused):
        submit_judgement(lease=second, submission_key="k", body=RANKING)
    assert Judgement.objects.count() == 1


def test_the_same_key_of_two_people_is_two_keys(filled_project, annotator, other_annotator):
    for person in (annotator, other_annotator):
        lease = take_lease(project=filled_project, annotator=person)
        assert submit_judgement(lease=lease, submission_key="k", body=RANKING).is_new


def test_a_second_key_for_a_judged_lease_is_refused(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    submit_judgement(lease=lease, submission_key="k", body=RANKING)
    with pytest.raises(LeaseLost):
        submit_judgement(lease=lease, submission_key="k2", body=RANKING)


def test_a_wrong_answer_leaves_the_lease_open(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    for ranking in ([["a"]], [["a"], ["b"], ["c"], ["a"]], [["a"], ["b"], ["z"]]):
        with pytest.raises(BadAnswer):
            submit_judgement(lease=lease, submission_key="k", body={"ranking": ranking})
    assert submit_judgement(lease=lease, submission_key="k", body=RANKING).is_new


def test_a_late_answer_takes_its_slot_if_that_is_still_free(one_task, annotator, late):
    lease = take_lease(project=one_task.project, annotator=annotator)
    free_expired_leases(at=late)
    lease.refresh_from_db()
    judgement = submit_judgement(lease=lease, submission_key="k", body=RANKING, at=late).judgement
    assert not judgement.is_surplus
    assert queue_figures(one_task.project).n_done == 1


def test_a_late_answer_whose_slot_was_given_away_is_kept_as_surplus(one_task, annotator, other_annotator, late):
    first = take_lease(project=one_task.project, annotator=annotator)
    second = take_lease(project=one_task.project, annotator=other_annotator, at=late)
    surplus = submit_judgement(lease=first, submission_key="k", body=RANKING, at=late).judgement
    counted = submit_judgement(lease=second, submission_key="k", body=OTHER, at=late).judgement
    assert surplus.is_surplus
    assert counted.slot == second.slot
    figures = queue_figures(one_task.project)
    assert (figures.n_done, figures.n_surplus) == (1, 1)
    one_task.refresh_from_db()
    assert one_task.n_judged == 1


@pytest.mark.parametrize("knows_it_expired", [True, False])
def test_a_late_answer_counts_though_the_same_person_was_given_the_task_again(
    one_task, annotator, late, knows_it_expired
):
    old = take_lease(project=one_task.project, annotator=annotator)
    free_expired_leases(at=late)
    new = take_lease(project=one_task.project, annotator=annotator, at=late)
    assert new.pk != old.pk and new.task == old.task
    if knows_it_expired:
        old.refresh_from_db()
    judgement = submit_judgement(lease=old, submission_key="k", body=RANKING, at=late).judgement
    assert not judgement.is_surplus
    new.refresh_from_db()
    assert new.state == Lease.State.EXPIRED
    with pytest.raises(AlreadyJudged):
        submit_judgement(lease=new, submission_key="k2", body=RANKING, at=late)
    assert Judgement.objects.count() == 1


def test_a_revision_is_a_new_row_that_supersedes_the_old(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    first = submit_judgement(lease=lease, submission_key="k", body=RANKING).judgement
    revision = revise_judgement(judgement=first, submission_key="k2", body=OTHER)
    again = revise_judgement(judgement=first, submission_key="k2", body=OTHER)
    assert (revision.is_new, again.is_new, again.judgement) == (True, False, revision.judgement)
    first.refresh_from_db()
    assert first.superseded_by == revision.judgement
    assert judgement_body(first)["ranking"] == RANKING["ranking"]
    with pytest.raises(NotRevisable):
        revise_judgement(judgement=first, submission_key="k3", body=RANKING)
    assert queue_figures(one_task.project).n_done == 1


def test_a_project_may_forbid_revisions(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    judgement = submit_judgement(lease=lease, submission_key="k", body=RANKING).judgement
    change_project(project=one_task.project, allows_revision=False)
    judgement = Judgement.objects.get(pk=judgement.pk)
    with pytest.raises(NotRevisable):
        revise_judgement(judgement=judgement, submission_key="k2", body=OTHER)


def test_the_database_refuses_to_change_a_judgement(one_task, annotator):
    lease = take_lease(project=one_task.project, annotator=annotator)
    judgement = submit_judgement(lease=lease, submission_key="k", body=RANKING).judgement
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Judgement.objects.filter(pk=judgement.pk).update(seconds=1)
    judgement.refresh_from_db()
    assert judgement.seconds == 4.5


def test_a_judgement_names_its_guideline_version_and_the_kind_of_its_annotator(filled_project, lead):
    simulated = factories.make_user("simulated", kind="simulated")
    add_member(project=filled_project, user=simulated, role="annotator")
    publish_guideline(project=filled_project, markdown="Prefer *kind*.", created_by=lead)
    lease = take_lease(project=filled_project, annotator=simulated)
    publish_guideline(project=filled_project, markdown="Prefer *short*.", created_by=lead)
    judgement = submit_judgement(lease=lease, submission_key="k", body=RANKING).judgement
    assert judgement.guideline.version == 2  # the one shown, not the newest
    assert judgement.annotator_kind == "simulated"


def test_leasing_and_submitting_stay_within_their_statements(
    filled_project, annotator, django_assert_num_queries
):
    with django_assert_num_queries(4):
        lease = take_lease(project=filled_project, annotator=annotator)
    lease = Lease.objects.select_related("task__project", "annotator").get(pk=lease.pk)
    with django_assert_num_queries(5 + SAVEPOINT):
        submit_judgement(lease=lease, submission_key="k", body=RANKING)
    lease = take_lease(project=filled_project, annotator=annotator)
    with django_assert_num_queries(9 + SAVEPOINT):
        done, following = submit_and_take_lease(lease=lease, submission_key="l", body=RANKING)
        assert done.is_new and following.task.prompt.messages and len(following.texts) == 3


def test_what_was_read_is_on_the_disk_before_it_is_called_kept(one_task, annotator, monkeypatch):
    """Somebody else may have committed it and been killed before the disk had it."""
    lease = take_lease(project=one_task.project, annotator=annotator)
    submit_judgement(lease=lease, submission_key="k", body=RANKING)
    waited = []
    monkeypatch.setattr(judgements, "wait_for_disk", lambda: waited.append(True))
    lease.refresh_from_db()
    assert not submit_judgement(lease=lease, submission_key="k", body=RANKING).is_new
    assert len(waited) == 1
    # The same where the two came at once, and this one still believed the lease to be open.
    lease.state = Lease.State.OPEN
    assert not submit_judgement(lease=lease, submission_key="k", body=RANKING).is_new
    assert len(waited) == 2
    judgement = Judgement.objects.get()
    for is_new in (True, False):
        assert revise_judgement(judgement=judgement, submission_key="r", body=OTHER).is_new == is_new
    assert len(waited) == 3


def test_what_annotators_wrote_is_not_put_into_new_tasks(filled_project, annotator):
    prompt = Prompt.objects.create(project=filled_project, messages=[{"role": "user", "content": "Hi"}], content_hash="h", group_id="g")
    for text, author in (("one", None), ("two", None), ("mine", annotator)):
        Completion.objects.create(prompt=prompt, content=text, content_hash=text, author=author)
    create_tasks_for_prompts(project=filled_project, prompts=[prompt], completions_per_task=3)
    assert sorted(prompt.tasks.get().completions.values_list("content", flat=True)) == ["one", "two"]


def test_a_task_opened_for_one_person_is_leased_to_them_and_never_queued(filled_project, annotator, reviewer):
    prompt = filled_project.prompts.first()
    ids = list(prompt.completions.values_list("pk", flat=True))[:2]
    lease = open_leased_task(
        project=filled_project, prompt=prompt, completion_ids=ids, annotator=annotator, kind="conversation", order=ids[::-1]
    )
    assert lease.order_shown == ids[::-1] and lease.slot.holder == annotator
    Lease.objects.filter(pk=lease.pk).update(expires_at=now() - timedelta(seconds=1))
    free_expired_leases()
    for user in (annotator, reviewer):
        while other := take_lease(project=filled_project, annotator=user):
            assert other.task_id != lease.task_id
            skip_lease(lease=other)
    # Late, but nobody else can have taken it.
    lease.refresh_from_db()
    done = submit_judgement(lease=lease, submission_key="late", body={"ranking": [["a"], ["b"]]})
    assert not done.judgement.is_surplus
