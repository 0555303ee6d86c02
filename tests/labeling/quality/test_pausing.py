"""Pausing by gold answers, the qualification round, and repeats."""

from datetime import timedelta

import pytest
from django.utils import translation
from django.utils.timezone import now

from labeling.annotation import reasons
from labeling.annotation.errors import NotRevisable
from labeling.annotation.models import Judgement, Lease, SetAside, Task
from labeling.annotation.selectors import queue_figures, standing_judgements
from labeling.annotation.services import (
    mixing,
    reinstate_member,
    revise_judgement,
    skip_lease,
    submit_and_take_lease,
    take_lease,
)
from labeling.projects.models import Membership
from labeling.projects.services import add_member
from labeling.quality.gold import gold_results
from labeling.quality.models import QualificationAnswer
from labeling.quality.repeats import position_bias, repeat_results, self_consistency
from tests import factories
from tests.api_caller import Caller
from tests.labeling.quality import gold
from tests.labeling.quality.test_gold import FallsOn


def state_of(project, user) -> str:
    return project.memberships.get(user=user).state


@pytest.fixture
def dice(monkeypatch):
    def falls(value: float) -> None:
        monkeypatch.setattr(mixing.random, "SystemRandom", FallsOn(value))

    return falls


@pytest.fixture
def gold_project(project):
    factories.fill_project(project, 12)
    gold.write(project, 12)
    gold.set_quality(project, gold_rate=0.5)
    return project


def judge(project, person, dice, kinds: str) -> list[Lease]:
    """One task for each letter: `o` an ordinary one, `r` a gold one answered right, `w` a gold one answered wrong."""
    leases = []
    for kind in kinds:
        dice(0.9 if kind == "o" else 0.1)
        leases.append(lease := take_lease(project=project, annotator=person))
        assert lease.task.is_gold is (kind != "o")
        gold.answer(lease, well=kind != "w")
    return leases


# --- pausing ------------------------------------------------------------------------------------
def test_a_bad_record_pauses_and_sets_aside_what_was_judged(gold_project, annotator, other_annotator, dice):
    judge(gold_project, annotator, dice, "oowwowwo")
    assert state_of(gold_project, annotator) == "active"
    held = take_lease(project=gold_project, annotator=annotator)
    dice(0.1)
    lease = take_lease(project=gold_project, annotator=annotator, holding=[held.pk])
    gold.answer(lease, well=False)
    member = gold_project.memberships.get(user=annotator)
    assert member.state == Membership.State.PAUSED
    assert member.state_reason == reasons.GOLD % {"n": 5, "right": 0}
    held.refresh_from_db()
    assert held.state == Lease.State.EXPIRED
    assert SetAside.objects.count() == 4
    assert not standing_judgements(gold_project).exists()
    assert queue_figures(gold_project).n_free == 12
    dice(0.9)
    assert factories.judge_all(gold_project, other_annotator) == 12


def test_what_was_judged_while_surely_good_stays(gold_project, annotator, dice):
    gold.set_quality(gold_project, gold_window=6)
    judge(gold_project, annotator, dice, "orrrrr")
    good_until = Judgement.objects.count()
    judge(gold_project, annotator, dice, "owowwwo")
    assert state_of(gold_project, annotator) == "active"
    judge(gold_project, annotator, dice, "w")
    assert state_of(gold_project, annotator) == "active"  # 1 of 6 in the window
    judge(gold_project, annotator, dice, "w")
    assert state_of(gold_project, annotator) == "paused"
    aside = SetAside.objects.values_list("judgement", flat=True)
    assert len(aside) == 3 and min(aside) > good_until


def test_nothing_older_than_the_days_that_are_set_is_set_aside(gold_project, annotator, dice, monkeypatch):
    judge(gold_project, annotator, dice, "oowwww")
    gold.set_quality(gold_project, requeue_days=0)
    judge(gold_project, annotator, dice, "w")
    assert state_of(gold_project, annotator) == "paused"
    assert not SetAside.objects.exists()


def test_a_bound_of_zero_pauses_nobody(gold_project, annotator, dice):
    gold.set_quality(gold_project, gold_bound=0)
    judge(gold_project, annotator, dice, "wwwwww")
    assert state_of(gold_project, annotator) == "active"
    assert gold_results(gold_project).by_annotator[annotator.pk]["n"] == 6


def test_whoever_is_reinstated_begins_with_a_clean_slate(gold_project, annotator, dice):
    judge(gold_project, annotator, dice, "wwwww")
    reinstate_member(membership=gold_project.memberships.select_related("project").get(user=annotator))
    judge(gold_project, annotator, dice, "wwww")
    assert state_of(gold_project, annotator) == "active"
    judge(gold_project, annotator, dice, "w")
    assert state_of(gold_project, annotator) == "paused"
    assert gold_results(gold_project).by_annotator[annotator.pk]["n"] == 10


def test_sending_a_gold_answer_twice_is_harmless(gold_project, annotator, dice):
    lease = judge(gold_project, annotator, dice, "wwwww")[-1]
    again = gold.answer(lease, well=False)
    assert not again.is_new and again.feedback is None
    assert Judgement.objects.count() == 5


def test_the_reason_is_shown_in_the_readers_language_and_a_leads_words_as_they_are():
    with translation.override("de"):
        said = reasons.in_own_language(reasons.GOLD % {"n": 5, "right": 0})
        assert "5" in said and "0" in said and said != reasons.GOLD % {"n": 5, "right": 0}
        said = reasons.in_own_language(reasons.QUALIFICATION % {"n": 3, "right": 1, "needed": 2})
        assert said.startswith("Qualifi") and said != reasons.QUALIFICATION % {"n": 3, "right": 1, "needed": 2}
        assert reasons.in_own_language("Please call me") == "Please call me"


# --- qualification ------------------------------------------------------------------------------
@pytest.fixture
def newcomer(project):
    factories.fill_project(project, 5)
    gold.write(project, 8)
    gold.set_quality(project, qualification={"n": 3, "pass": 0.6})
    person = factories.make_user("newcomer")
    add_member(project=project, user=person, role="annotator")
    return person


def test_a_newcomer_gets_gold_tasks_with_feedback_and_then_the_queue(project, newcomer):
    outcomes = []
    for number, well in enumerate((True, False, True), 1):
        lease = take_lease(project=project, annotator=newcomer)
        assert lease.task.is_gold
        feedback = gold.answer(lease, well=well).feedback
        assert (feedback.is_right, feedback.number, feedback.n) == (well, number, 3)
        assert feedback.explanation == "The *first* is kind."
        assert [line.is_right for line in feedback.compared] == [well]
        outcomes.append(feedback.outcome)
    assert outcomes == ["going on", "going on", "passed"]
    assert state_of(project, newcomer) == "active"
    assert not take_lease(project=project, annotator=newcomer).task.is_gold
    assert gold_results(project).by_annotator == {}  # they knew


def test_whoever_fails_is_paused_and_can_be_given_another_round(project, lead, newcomer):
    for _number in range(3):
        feedback = gold.answer(take_lease(project=project, annotator=newcomer), well=False).feedback
    assert feedback.outcome == "failed"
    member = project.memberships.select_related("project").get(user=newcomer)
    assert (member.state, member.state_reason) == ("paused", "Qualification: 0 of 3 right, 2 were needed")
    assert take_lease(project=project, annotator=newcomer) is None
    reinstate_member(membership=member, to_qualify=True)
    for number in range(3):
        feedback = gold.answer(take_lease(project=project, annotator=newcomer)).feedback
        assert feedback.number == number + 1
    assert state_of(project, newcomer) == "active"


def test_the_round_hands_out_no_more_than_it_asks_for(project, newcomer):
    held = []
    while lease := take_lease(project=project, annotator=newcomer, holding=held):
        held.append(lease.pk)
    assert len(held) == 3
    skip_lease(lease=Lease.objects.get(pk=held[0]))
    another = take_lease(project=project, annotator=newcomer, holding=held[1:])
    assert another.pk not in held and another.task.is_gold


def test_feedback_comes_again_with_a_retry_and_the_answer_stays(project, newcomer):
    lease = take_lease(project=project, annotator=newcomer)
    first, again = gold.answer(lease, well=False), gold.answer(lease, well=False)
    assert again.feedback == first.feedback and not again.is_new
    assert QualificationAnswer.objects.count() == 1
    with pytest.raises(NotRevisable):
        revise_judgement(judgement=first.judgement, submission_key="again-1", body=gold.body_of(lease))


def test_feedback_is_part_of_the_answer_over_rest(project, newcomer):
    caller = Caller(newcomer)
    lease = caller.post("projects/support/leases/").json()
    answer = caller.post(
        f"leases/{lease['id']}/judgement/?next=1", {"ranking": [["a", "b", "c"]]}, Idempotency_Key="key-1"
    ).json()
    assert answer["next_lease"]["id"] != lease["id"]
    feedback = answer["feedback"]
    assert (feedback["is_right"], feedback["score"], feedback["outcome"]) == (False, 0.5, "going on")
    assert feedback["compared"][0]["said"] == "a = b = c"
    assert sorted(feedback["compared"][0]["expected"].split(" › ")) == ["a", "b", "c"]


@pytest.mark.parametrize(("well", "state"), [(True, "active"), (False, "paused")])
def test_what_the_last_answer_decides_holds_for_the_lease_that_comes_with_it(project, newcomer, well, state):
    for _ in range(2):
        gold.answer(take_lease(project=project, annotator=newcomer), well=well)
    lease = take_lease(project=project, annotator=newcomer)
    _done, following = submit_and_take_lease(lease=lease, submission_key="last", body=gold.body_of(lease, well=well))
    assert Membership.objects.get(user=newcomer).state == state
    assert (following is not None and not following.task.is_gold) == well


def test_feedback_is_on_the_bench_with_and_without_the_script(client, project, newcomer):
    client.force_login(newcomer)
    lease = take_lease(project=project, annotator=newcomer)
    sent = {"submission_key": "a-key-of-mine", "rank.a": "1", "rank.b": "2", "rank.c": "3"}
    path = f"/projects/support/bench/leases/{lease.pk}/submit/"
    page = client.post(path, sent, follow=True).content.decode()
    assert "Qualification: 1 of 3 answered" in page and "You said" in page and "is kind" in page
    scripted = client.post(path, sent, headers={"X-Bench": "1"}).json()
    assert "Qualification: 1 of 3 answered" in scripted["feedback"]
    assert "≤" not in scripted["figures"] and ">2<" in scripted["figures"]


def test_feedback_on_a_hidden_gold_task_is_never_shown(client, gold_project, annotator, dice):
    judge(gold_project, annotator, dice, "r")
    client.force_login(annotator)
    answered = Judgement.objects.get()
    page = client.get(f"/projects/support/bench/?told={answered.pk}").content.decode()
    assert "You said" not in page


def test_without_gold_tasks_the_bench_says_whom_to_ask(client, project):
    gold.set_quality(project, qualification={"n": 3, "pass": 0.6})
    newcomer = factories.make_user("newcomer")
    add_member(project=project, user=newcomer, role="annotator")
    client.force_login(newcomer)
    assert "No task to qualify with is left" in client.get("/projects/support/bench/").content.decode()


# --- repeats ------------------------------------------------------------------------------------
def test_a_repeat_shows_ones_own_task_once_in_the_opposite_order(project, annotator, other_annotator, dice):
    factories.fill_project(project, 6)
    gold.set_quality(project, repeat_rate=0.5, repeat_after=2, repeat_hours=12)
    dice(0.9)
    first = [take_and_answer(project, annotator) for _ in range(4)]
    dice(0.1)
    soon = take_lease(project=project, annotator=annotator)
    assert soon.task.purpose == "preference"  # not after 12 hours yet
    later = now() + timedelta(hours=13)
    by_task = {lease.task_id: lease for lease in first}
    repeated = []
    for _number in range(2):
        lease = take_lease(project=project, annotator=annotator, holding=[soon.pk], at=later)
        assert lease.task.purpose == "repeat"
        assert lease.order_shown == by_task[lease.task.repeats_id].order_shown[::-1]
        repeated.append(lease.task.repeats_id)
        gold.answer(lease)
    assert set(repeated) == {lease.task_id for lease in first[:2]}  # at least two judgements lie between
    gold.answer(soon)
    assert not take_lease(project=project, annotator=other_annotator, at=later).task.repeats_id
    assert queue_figures(project).n_done == standing_judgements(project).count() == 5
    results = repeat_results(project)[0][annotator.pk]
    assert (results["self_consistency"]["value"], results["self_consistency"]["n"]) == (1, 6)
    assert results["position_bias"]["value"] == 0


def take_and_answer(project, person) -> Lease:
    lease = take_lease(project=project, annotator=person)
    gold.answer(lease)
    return lease


def test_self_consistency_counts_pairs_said_alike():
    order = [1, 2, 3]
    figure = self_consistency([([[1], [2], [3]], [[1], [3], [2]], order), ([[1, 2], [3]], [[1, 2], [3]], order)])
    assert (figure["value"], figure["n"]) == (pytest.approx(5 / 6), 6)
    assert figure["low"] < 5 / 6 < figure["high"]
    assert self_consistency([])["value"] is None


def test_position_bias_is_what_is_left_when_the_texts_cancel_out():
    order = [1, 2]
    always_first = [([[1], [2]], [[2], [1]], order)] * 8  # in the repeat 2 is shown first
    assert position_bias(always_first)["value"] == 0.5
    assert position_bias([([[2], [1]], [[1], [2]], order)] * 8)["value"] == -0.5
    by_the_text = [([[1], [2]], [[1], [2]], order), ([[2], [1]], [[2], [1]], order)]
    assert position_bias(by_the_text)["value"] == 0
    figure = position_bias(always_first[:2] + by_the_text * 3)
    assert (figure["value"], figure["n"]) == (pytest.approx((2 * 2 + 6) / 16 - 0.5), 16)
    assert position_bias([([[1, 2]], [[1, 2]], order)])["value"] is None


def test_a_repeat_of_a_gold_task_or_of_what_was_set_aside_never_comes(gold_project, annotator, dice):
    gold.set_quality(gold_project, gold_rate=0.1, repeat_rate=0.5, repeat_after=1, repeat_hours=0)
    dice(0.05)
    for _number in range(3):
        gold.answer(take_lease(project=gold_project, annotator=annotator))
    dice(0.3)
    assert take_lease(project=gold_project, annotator=annotator).task.purpose == "preference"
    assert not Task.objects.filter(purpose="repeat").exists()
