"""Consent, withdrawal, and what either means for what was frozen before and is frozen after."""

import pytest
from django.db import IntegrityError, transaction

from labeling.annotation.models import Task
from labeling.annotation.services import close_tasks_of, create_tasks_for_prompts, take_lease
from labeling.preferences.contents import contents_of
from labeling.preferences.errors import NotUndone
from labeling.preferences.models import Withdrawal
from labeling.preferences.services import create_snapshot, snapshots_folder
from labeling.preferences.withdrawal import (
    give_consent,
    models_made_of,
    remove_prompt,
    touched_by,
    undo_withdrawal,
    withdraw_person,
    withdrawn_rows_in,
)
from labeling.projects.models import Completion, Membership
from tests import factories
from training.registry.models import ModelVersion
from training.runs.models import Run


@pytest.fixture
def judged(project, annotator, other_annotator):
    """Six tasks, each judged by two people."""
    factories.fill_project(project, 6, overlap=2)
    factories.judge_all(project, annotator)
    factories.judge_all(project, other_annotator)
    return project


def model(name, project, **of):
    return ModelVersion.objects.create(
        key=f"{name}@1", name=name, version=1, kind="policy", project=project, folder=name, **of
    )


def test_a_withdrawal_marks_the_snapshots_that_hold_the_person_and_no_later_one(judged, annotator, lead):
    before = create_snapshot(project=judged, created_by=lead)
    assert withdrawn_rows_in([before]) == {}
    withdrawal, is_new = withdraw_person(project=judged, annotator=annotator, by=lead, reason="asked by letter")
    assert is_new and withdrawal.reason == "asked by letter"
    assert str(withdrawn_rows_in([before])[before.pk]) == "6 judgements of 1 person"
    after = create_snapshot(project=judged, created_by=lead)
    assert after.n_judgements == 6 and after.pk not in withdrawn_rows_in([before, after])


def test_a_removed_prompt_counts_apart_from_people_who_withdrew(judged, annotator, lead):
    snapshot = create_snapshot(project=judged, created_by=lead)
    withdraw_person(project=judged, annotator=annotator, by=lead)
    remove_prompt(project=judged, prompt=judged.prompts.first(), by=lead)
    held = withdrawn_rows_in([snapshot])[snapshot.pk]
    assert (held.n_by_people, held.n_people, held.n_on_prompts, held.n_prompts) == (6, 1, 1, 1)
    assert str(held) == "6 judgements of 1 person and 1 judgement on 1 removed prompt" and held.n_judgements == 7


def test_judgements_of_others_on_a_text_that_the_person_wrote_are_held_too(judged, annotator, lead):
    task = judged.tasks.first()
    written = task.completions.first()
    Completion.objects.filter(pk=written.pk).update(author=annotator)
    snapshot = create_snapshot(project=judged, created_by=lead)
    (touched,) = touched_by(project=judged, annotator=annotator)
    assert (touched.n_judgements, touched.n_on_texts) == (6, 1)
    withdraw_person(project=judged, annotator=annotator, by=lead)
    held = withdrawn_rows_in([snapshot])[snapshot.pk]
    assert held.n_judgements == 7
    assert str(held) == "6 judgements of 1 person and 1 judgement of others on texts written by who withdrew"
    assert create_snapshot(project=judged, created_by=lead).n_judgements == 5


def test_one_withdrawal_stands_at_a_time_and_the_second_gets_the_first(judged, annotator, lead):
    first, _ = withdraw_person(project=judged, annotator=annotator, by=lead, reason="a")
    again, is_new = withdraw_person(project=judged, annotator=annotator, by=lead, reason="b")
    assert again == first and not is_new and Withdrawal.objects.count() == 1
    undo_withdrawal(withdrawal=first, by=lead)
    with pytest.raises(NotUndone):
        undo_withdrawal(withdrawal=first, by=lead)
    _, is_new = withdraw_person(project=judged, annotator=annotator, by=lead)
    assert is_new and Withdrawal.objects.count() == 2


def test_undoing_lets_the_rows_in_again(judged, annotator, lead):
    before = create_snapshot(project=judged, created_by=lead)
    withdrawal, _ = withdraw_person(project=judged, annotator=annotator, by=lead)
    undo_withdrawal(withdrawal=withdrawal, by=lead)
    assert create_snapshot(project=judged, created_by=lead) == before and withdrawn_rows_in([before]) == {}


def test_a_person_gives_and_takes_back_consent_and_a_lead_cannot_answer_for_them(judged, annotator, lead):
    membership = Membership.objects.get(project=judged, user=annotator)
    give_consent(membership=membership, by=annotator)
    membership.refresh_from_db()
    assert membership.consent == "given" and membership.consent_at
    own, _ = withdraw_person(project=judged, annotator=annotator, by=annotator)
    membership.refresh_from_db()
    assert membership.consent == "" and membership.consent_at is None
    for answer in (lambda: undo_withdrawal(withdrawal=own, by=lead), lambda: give_consent(membership=membership, by=lead)):
        with pytest.raises(NotUndone, match="only they"):
            answer()
    give_consent(membership=membership, by=annotator)
    own.refresh_from_db()
    assert own.undone_by == annotator


def test_consent_given_again_leaves_what_a_lead_recorded(judged, annotator, lead):
    withdrawal, _ = withdraw_person(project=judged, annotator=annotator, by=lead, reason="not their own work")
    give_consent(membership=Membership.objects.get(project=judged, user=annotator), by=annotator)
    withdrawal.refresh_from_db()
    assert withdrawal.stands


def test_a_removed_prompt_is_asked_about_no_more_until_the_removal_is_undone(project, annotator, lead):
    first, second = factories.fill_project(project, 2)
    settled = project.prompts.get(tasks=second)
    close_tasks_of(prompt=settled)
    withdrawal, _ = remove_prompt(project=project, prompt=first.prompt, by=lead, reason="personal data")
    remove_prompt(project=project, prompt=settled, by=lead)
    assert take_lease(project=project, annotator=annotator) is None
    assert create_tasks_for_prompts(project=project, prompts=[first.prompt], iteration=2) == (0, 0)
    undo_withdrawal(withdrawal=withdrawal, by=lead)
    assert take_lease(project=project, annotator=annotator).task_id == first.pk
    undo_withdrawal(withdrawal=Withdrawal.objects.get(prompt=settled), by=lead)
    second.refresh_from_db()
    assert second.state == Task.State.CLOSED  # it was before the prompt was removed


def test_what_a_withdrawal_touches_is_walked_to_the_models_made_of_models(judged, annotator, other_annotator, lead):
    snapshot = create_snapshot(project=judged, created_by=lead)
    base = ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="b")
    policy = model("policy", judged, parent=base, base=base, snapshot=snapshot)
    found = model("found", judged)
    Run.objects.create(project=judged, kind="dpo", model=base, snapshot=snapshot, output_model=found)
    tuned = model("tuned", judged, parent=policy, base=base)
    Run.objects.create(project=judged, kind="dpo", model=tuned, output_model=model("last", judged))
    model("apart", judged, parent=base, base=base)
    (touched,) = touched_by(project=judged, annotator=annotator)
    assert touched.snapshot == snapshot and touched.n_judgements == 6
    assert [made.key for made in touched.models] == ["policy@1", "found@1", "tuned@1", "last@1"]
    (touched,) = touched_by(project=judged, prompt=judged.prompts.first())
    assert touched.n_judgements == 2 and len(touched.models) == 4
    assert touched_by(project=judged, annotator=lead) == []


def test_the_walk_to_models_takes_queries_by_depth_and_not_by_number(
    judged, lead, django_assert_max_num_queries, django_assert_num_queries
):
    snapshot = create_snapshot(project=judged, created_by=lead)
    policies = [model(f"policy{number}", judged, snapshot=snapshot) for number in range(3)]
    with django_assert_max_num_queries(12) as few:
        models_made_of([snapshot])
    for number, parent in enumerate(policies * 4):
        model(f"other{number}", judged, snapshot=snapshot, parent=parent)
    with django_assert_max_num_queries(len(few)):
        assert len(models_made_of([snapshot])[snapshot.pk]) == 15
    with django_assert_num_queries(1):
        withdrawn_rows_in([snapshot])


def test_ids_of_a_snapshot_frozen_without_them_are_found_again(judged, annotator, other_annotator, lead):
    snapshot = create_snapshot(project=judged, created_by=lead)
    folder = snapshots_folder() / snapshot.folder
    for name in ("judgements.u64", "prompts.u64", "annotators.json"):
        (folder / name).unlink(missing_ok=True)
    contents = contents_of(snapshot)
    assert contents.judgements.tolist() == sorted(judged.judgements.values_list("pk", flat=True))
    assert contents.prompts.tolist() == sorted(judged.prompts.values_list("pk", flat=True))
    assert contents.people == {annotator.pk: 6, other_annotator.pk: 6}
    assert contents.n_of([annotator.pk, lead.pk]) == 6 and contents.n_among([0, contents.judgements[0]]) == 1


def test_the_database_keeps_a_withdrawal_to_one_person_or_one_prompt(judged, annotator, lead):
    for what in ({}, {"annotator": annotator, "prompt": judged.prompts.first()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Withdrawal.objects.create(project=judged, by=lead, **what)
