import random

import pytest

from labeling.annotation.services import submit_judgement, take_lease
from labeling.projects.services import add_member, pseudonym_of
from labeling.quality.person import person_record
from labeling.quality.services import quality_figures
from labeling.quality.services import reports as services
from tests import factories


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


def test_the_page_shows_every_figure_with_its_n_in_few_statements(client, judged, lead, django_assert_max_num_queries):
    quality_figures(judged)
    client.force_login(lead)
    # Thirteen of them are the shell's: who asks, the strip, the menus.
    with django_assert_max_num_queries(17):
        text = client.get("/projects/support/quality/").content.decode()
    for word in ("Krippendorff", "Fleiss", "Kendall", "Two by two", "delivery", "over-time-data", "Reliability"):
        assert word in text
    assert text.count("n 96") >= 4  # 32 tasks of three pairs


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


def test_a_record_takes_three_queries(judged, annotator, django_assert_num_queries):
    with django_assert_num_queries(3):
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
