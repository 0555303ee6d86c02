from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Lease
from labeling.annotation.services import revise_judgement, skip_lease, submit_judgement, take_lease
from labeling.projects.services import add_member, change_project
from labeling.quality.own_figures import LEAST_SHARED_TASKS, own_agreement, own_record
from tests import factories

pytestmark = pytest.mark.django_db
TOMORROW = timedelta(days=1)
URL = "/projects/support/bench/figures/"


def judge(project, annotator, *, backwards=False, seconds=5.0):
    """Rank all that is left by the order of entry, or backwards."""
    while lease := take_lease(project=project, annotator=annotator):
        keys = sorted("abc", key=lambda key: lease.order_shown["abc".index(key)], reverse=backwards)
        body = {"ranking": [[key] for key in keys], "seconds": seconds}
        submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body)


def test_a_day_counts_what_was_judged_then_and_a_revision_once(project, annotator):
    factories.fill_project(project, 3)
    judge(project, annotator)
    first = project.judgements.order_by("pk").first()
    revise_judgement(judgement=first, submission_key="r", body={"ranking": [["a", "b", "c"]], "seconds": 90.0})
    record = own_record(annotator, project)
    assert (record.today.n, record.n, record.n_all, len(record.days)) == (3, 3, 3, 30)
    assert (record.seconds_median, record.seconds_today, record.per_hour) == (5.0, 15.0, 720.0)
    later = own_record(annotator, project, now() + timedelta(days=3))
    assert (later.today.n, later.days[-4].n, later.seconds_today) == (0, 3, 0)
    assert own_record(annotator, project, now() + timedelta(days=60)).n == 0


def test_what_others_did_is_not_counted_and_nothing_measured_is_said_as_such(project, annotator, other_annotator):
    factories.fill_project(project, 2, overlap=2)
    judge(project, other_annotator)
    judge(project, annotator, seconds=0)
    record = own_record(annotator, project)
    assert (record.n, record.per_hour, record.seconds_median) == (2, None, 0)
    assert record.most == 2


def test_skips_are_counted_by_reason(project, annotator):
    factories.fill_project(project, 3)
    for reason in (Lease.SkipReason.UNCLEAR, Lease.SkipReason.UNCLEAR, "of my own"):
        skip_lease(lease=take_lease(project=project, annotator=annotator), reason=reason)
    record = own_record(annotator, project)
    assert [(str(words), n) for words, n in record.skips] == [("I don't understand the prompt", 2), ("", 1)]
    assert record.n_skipped == 3


@pytest.fixture
def shared(project, annotator, other_annotator):
    """Twenty tasks on which two people say the opposite of each other."""
    change_project(project=project, bench={"shows_agreement": True})
    factories.fill_project(project, LEAST_SHARED_TASKS, overlap=4)
    judge(project, annotator)
    judge(project, other_annotator, backwards=True)
    return project


def test_agreement_waits_for_the_next_day_and_for_enough_shared_tasks(shared, annotator):
    assert own_agreement(annotator, shared).n_tasks == 0
    found = own_agreement(annotator, shared, now() + TOMORROW)
    assert (found.n_tasks, found.value, found.figure["n"]) == (LEAST_SHARED_TASKS, 0, 3 * LEAST_SHARED_TASKS)
    shared.tasks.first().delete()
    fewer = own_agreement(annotator, shared, now() + TOMORROW)
    assert (fewer.n_tasks, fewer.figure) == (LEAST_SHARED_TASKS - 1, None)


def test_ones_own_vote_is_no_part_of_what_most_say(shared, annotator, reviewer, lead):
    judge(shared, reviewer)
    found = own_agreement(annotator, shared, now() + TOMORROW)
    assert found.figure is None  # the two others are split on every pair
    judge(shared, lead)
    found = own_agreement(annotator, shared, now() + TOMORROW)
    assert (found.value, found.high) == (100, 100) and found.low < 100


def test_a_revision_does_not_move_the_figure_so_nobody_can_feel_their_way_to_the_others(shared, annotator):
    before = own_agreement(annotator, shared, now() + TOMORROW)
    for judgement in Judgement.objects.filter(annotator=annotator):
        revise_judgement(judgement=judgement, submission_key=f"r{judgement.pk}", body={"ranking": [["a", "b", "c"]]})
    assert own_agreement(annotator, shared, now() + TOMORROW) == before


def test_simulated_annotators_are_nobody_to_agree_with(project, annotator):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, LEAST_SHARED_TASKS, overlap=2)
    for person in (annotator, robot):
        judge(project, person)
    assert own_agreement(annotator, project, now() + TOMORROW).n_tasks == 0


def test_the_page_of_a_beginner_leads_to_the_bench(client, project, annotator):
    client.force_login(annotator)
    page = client.get(URL).content.decode()
    assert "Nothing to count yet" in page and 'href="/projects/support/bench/"' in page


def test_the_page_shows_agreement_only_where_the_project_does(client, shared, annotator, monkeypatch):
    client.force_login(annotator)
    monkeypatch.setattr("labeling.quality.own_figures.now", lambda: now() + TOMORROW)
    page = client.get(URL).content.decode()
    assert "Agreement with others" in page and "60 pairs of 20 tasks" in page
    for changes in (
        {"bench": {"shows_agreement": False}},
        {"bench": {"shows_agreement": True}, "form": {"ranking": False, "acceptable": True}},
    ):
        change_project(project=shared, **changes)
        assert "Agreement with others" not in client.get(URL).content.decode()


def test_the_page_names_no_task_no_model_and_no_other_person(client, shared, annotator, monkeypatch):
    client.force_login(annotator)
    monkeypatch.setattr("labeling.quality.own_figures.now", lambda: now() + TOMORROW)
    page = client.get(URL).content.decode()
    task = shared.tasks.first()
    for secret in (task.public_id, "tiny@1", "other-annotator", "annotator-", task.prompt.messages[0]["content"]):
        assert secret not in page


def test_the_number_of_queries_does_not_grow(
    client, project, annotator, other_annotator, django_assert_max_num_queries
):
    change_project(project=project, bench={"shows_agreement": True})
    factories.fill_project(project, 2, overlap=2)
    for person in (annotator, other_annotator):
        judge(project, person)
    client.force_login(annotator)
    client.get(URL)
    with django_assert_max_num_queries(20) as few:
        client.get(URL)
    factories.fill_project(project, 30, overlap=2)
    for person in (annotator, other_annotator):
        judge(project, person)
    with django_assert_max_num_queries(len(few)):
        client.get(URL)
