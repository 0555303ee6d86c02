import random

import pytest

from labeling.annotation.selectors import queue_figures
from labeling.annotation.services import set_aside_judgements, submit_judgement, take_lease
from labeling.projects.services import add_member, pseudonym_of
from labeling.quality.adjudication import queue_of
from labeling.quality.person import person_record
from labeling.quality.services import adjudicate, quality_figures, refresh_disagreements, set_adjudication_mode
from labeling.quality.services import reports as services
from tests import factories
from tests.labeling.quality import gold


def judge_with_noise(project, people, noise):
    """Everyone ranks by the order of entry, each with their own carelessness."""
    for person, careless in zip(people, noise, strict=True):
        while lease := take_lease(project=project, annotator=person):
            rng = random.Random(f"{person.username} {lease.task.prompt.external_id}")
            quality = {pk: number + rng.gauss(0, careless) for number, pk in enumerate(sorted(lease.order_shown))}
            order = sorted(range(len(lease.order_shown)), key=lambda index: quality[lease.order_shown[index]])
            body = {"ranking": [["abc"[index]] for index in order], "seconds": rng.uniform(5, 60)}
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body=body)


@pytest.fixture
def judged(project, annotator, other_annotator):
    third = factories.make_user("third")
    add_member(project=project, user=third, role="annotator")
    factories.fill_project(project, 32, overlap=3)
    judge_with_noise(project, [annotator, other_annotator, third], [0.3, 0.6, 2.5])
    return project


PARTS = {
    "": ["Two say the same", "over-time-data", "differing-data", "To settle", "Gold answered right"],
    "annotators": ["Reliability", "pace-data", "Agreement by the time taken", "What is said of what holds", "Two by two"],
    "checks": ["Nobody answered a gold task yet", "No task was shown to anybody again yet"],
    "coefficients": ["Krippendorff", "Fleiss", "Kendall", "delivery"],
}


def part_of(client, part):
    return client.get(f"/projects/support/quality/?show={part}").content.decode()


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_page_shows_its_figures_with_their_n(client, judged, lead, part):
    client.force_login(lead)
    text = part_of(client, part)
    assert [word for word in PARTS[part] if word not in text] == []
    if part == "coefficients":
        assert text.count("n 96") >= 4  # 32 tasks of three pairs


def test_an_unknown_part_is_not_found(client, judged, lead):
    client.force_login(lead)
    assert client.get("/projects/support/quality/?show=everything").status_code == 404


@pytest.mark.parametrize("part", PARTS)
def test_the_page_takes_few_statements_however_many_judged(
    client, project, lead, reviewer, django_assert_max_num_queries, part
):
    people = [factories.make_user(f"person-{number}") for number in range(20)]
    for person in people:
        add_member(project=project, user=person, role="annotator")
    factories.fill_project(project, 12, overlap=20)
    judge_with_noise(project, people, [0.3 + number / 5 for number in range(20)])
    refresh_disagreements()
    for row in queue_of(project).select_related("task")[:2]:
        ids = list(row.task.completions.values_list("pk", flat=True))
        adjudicate(task=row.task, by=reviewer, submission_key=f"key-{row.pk}", outcome="ranking", ranking=[ids])
    figures = quality_figures(project)
    assert (figures["n_annotators"], figures["adjudication"]["outcomes"]["ranking"]) == (20, 2)
    client.force_login(lead)
    # Eleven of them are the shell's: who asks, the strip, the menus.
    with django_assert_max_num_queries(15):
        assert client.get(f"/projects/support/quality/?show={part}").status_code == 200


def test_the_queue_is_offered_to_those_who_may_settle_and_its_reasons_only_where_votes_are_open(
    client, judged, lead, engineer
):
    refresh_disagreements()
    task = queue_of(judged).first().task
    link = f"/projects/support/adjudication/{task.public_id}/"
    client.force_login(lead)
    text = part_of(client, "")
    assert link in text and ">rankings differ<" not in text
    set_adjudication_mode(project=judged, mode="open")
    assert ">rankings differ<" in part_of(client, "")
    client.force_login(engineer)
    text = part_of(client, "")
    assert link not in text and f"/projects/support/prompts/{task.prompt_id}/" in text


def test_gold_and_repeats_are_shown_of_each_and_of_all(client, project, annotator, lead):
    gold.set_quality(project, gold_rate=0.5, repeat_rate=0.5, repeat_after=2, repeat_hours=0, gold_bound=0)
    gold.write(project, 4)
    factories.fill_project(project, 20)
    while lease := take_lease(project=project, annotator=annotator):
        gold.answer(lease, well=False)
    client.force_login(lead)
    text = part_of(client, "checks")
    assert text.count(">annotator</a>") == 2
    assert "0.00 to 0.49 · n 4" in text.replace("</span>", "").replace('<span class="fig-note">', "")
    assert "A line needs twenty answers; there are 4." in text


def test_who_only_answered_checks_is_shown_and_has_a_page(client, project, annotator, lead):
    """As it is with those whose judgements were all set aside."""
    gold.set_quality(project, gold_rate=0.5, gold_bound=0)
    gold.write(project, 2)
    factories.fill_project(project, 6)
    while lease := take_lease(project=project, annotator=annotator):
        gold.answer(lease, well=False)
    set_aside_judgements(project=project, annotator=annotator, reason="careless")
    client.force_login(lead)
    assert ">annotator</a>" in part_of(client, "checks")
    page = client.get(f"/projects/support/quality/{pseudonym_of(project, annotator)}/").content.decode()
    assert "No judgement that counts" in page and "Gold tasks they missed" in page
    assert page.count("Where is my golden parcel") == 2


def test_who_only_judges_is_not_told_which_tasks_are_gold(client, project, annotator, lead, reviewer, engineer):
    gold.set_quality(project, gold_rate=0.5, gold_bound=0)
    gold.write(project, 2)
    factories.fill_project(project, 6)
    while lease := take_lease(project=project, annotator=annotator):
        gold.answer(lease, well=False)
    path = f"/projects/support/quality/{pseudonym_of(project, annotator)}/"
    for user, sees in ((lead, True), (engineer, True), (reviewer, False)):
        client.force_login(user)
        text = client.get(path).content.decode()
        assert ("golden parcel" in text) is sees
        assert "Gold tasks answered right" in text


def test_a_person_is_shown_where_reviewers_settled_otherwise(client, judged, lead, reviewer):
    refresh_disagreements()
    careless = judged.memberships.get(user__username="third").user
    path = f"/projects/support/quality/{pseudonym_of(judged, careless)}/"
    for row in queue_of(judged).select_related("task")[:4]:
        ids = sorted(row.task.completions.values_list("pk", flat=True))
        adjudicate(
            task=row.task, by=reviewer, submission_key=f"key-{row.pk}", outcome="ranking", ranking=[[pk] for pk in ids]
        )
    record = person_record(judged, careless)
    assert record.n_settled == 4 and 0 < record.n_unlike == len(record.unlike) <= 4
    assert all(0 < item.n_unlike <= item.n_pairs == 3 for item in record.unlike)
    client.force_login(lead)
    text = client.get(path).content.decode()
    assert "Where reviewers settled otherwise" in text
    assert f"/projects/support/adjudication/{record.unlike[0].adjudication.task.public_id}/" in text


def test_the_page_of_a_person_has_their_trend_and_where_they_stood_alone(client, judged, lead):
    careless = judged.memberships.get(user__username="third").user
    client.force_login(lead)
    text = client.get(f"/projects/support/quality/{pseudonym_of(judged, careless)}/").content.decode()
    for word in ("third", "trend-data", "What they say of what holds", "Time taken against agreement", "of 3"):
        assert word in text
    assert client.get("/projects/support/quality/annotator-0000000000/").status_code == 404


def test_a_record_counts_only_what_others_are_of_one_mind_on(judged, annotator):
    careless = judged.memberships.get(user__username="third").user
    of_careless, of_careful = person_record(judged, careless), person_record(judged, annotator)
    assert of_careless.n_alone > of_careful.n_alone
    assert all(0 < item.n_alone <= item.n_pairs == 3 and item.n_others == 2 for item in of_careless.alone)
    assert len(of_careful.trend) == of_careful.n_shared // 10 >= 2
    assert sum(part.n_rankings for part in of_careful.trend) == of_careful.n_shared
    seconds = [part.seconds_median for part in of_careful.by_time]
    assert seconds == sorted(seconds)


def test_a_record_takes_four_queries(judged, annotator, django_assert_num_queries):
    with django_assert_num_queries(4):
        person_record(judged, annotator)


def test_someone_who_judged_alone_has_a_page_that_says_so(client, project, annotator, lead):
    factories.fill_project(project, 2)
    factories.judge_all(project, annotator)
    client.force_login(lead)
    text = client.get(f"/projects/support/quality/{pseudonym_of(project, annotator)}/").content.decode()
    assert "Nobody to compare with yet" in text


def test_annotators_do_not_see_the_page_of_a_person(client, judged, annotator):
    client.force_login(annotator)
    assert client.get(f"/projects/support/quality/{pseudonym_of(judged, annotator)}/").status_code == 404


def test_a_large_project_without_a_report_says_that_it_is_being_computed(client, judged, lead, monkeypatch):
    monkeypatch.setattr(services, "SMALL", 3)
    client.force_login(lead)
    assert "being computed" in client.get("/projects/support/quality/").content.decode()
    assert client.get("/projects/support/").status_code == 200


def test_the_tasks_of_an_empty_project_and_closed_ones_are_told_as_they_are(client, project, lead):
    client.force_login(lead)
    assert "there are no prompts yet" in client.get("/projects/support/tasks/").content.decode()
    factories.fill_project(project, 3)
    assert "every prompt has one" in client.get("/projects/support/tasks/").content.decode()
    project.tasks.filter(pk=project.tasks.first().pk).update(state="closed")
    assert queue_figures(project).n_tasks == 2
