from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils.timezone import now

from labeling.accounts.models import User
from labeling.projects.services import add_member
from labeling.quality.models import QualityReport
from labeling.quality.services import compute_due_reports, compute_report, outdate_report, quality_figures
from labeling.quality.services import reports as services
from labeling.quality.tasks import compute_due_reports as task
from tests import factories
from tests.api_caller import Caller


@pytest.fixture
def judged(project, annotator, other_annotator):
    factories.fill_project(project, 6, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person, limit=4)
    return project


def test_a_small_projects_figures_are_of_this_moment_without_a_worker(judged, annotator):
    assert quality_figures(judged)["n_judgements"] == 8
    factories.judge_all(judged, annotator, limit=1)
    figures = quality_figures(judged)
    assert (figures["n_judgements"], figures["n_judgements_since"]) == (9, 0)


def test_figures_that_are_stored_cost_two_statements(judged, django_assert_num_queries):
    first = quality_figures(judged)
    with django_assert_num_queries(2):
        again = quality_figures(judged)
    assert again == first


def test_a_large_projects_figures_wait_for_the_worker_and_say_so(judged, annotator, monkeypatch):
    monkeypatch.setattr(services, "SMALL", 3)
    figures = quality_figures(judged)
    assert figures["computed_at"] is None
    assert "being computed" in figures["agreement"]["pairwise_raw"]["method"]
    assert task() == 1
    assert quality_figures(judged)["agreement"]["pairwise_raw"]["value"] == 1.0
    factories.judge_all(judged, annotator, limit=1)
    figures = quality_figures(judged)
    assert (figures["n_judgements"], figures["n_judgements_since"]) == (8, 1)


def test_the_worker_computes_only_what_is_behind(judged, annotator):
    assert compute_due_reports() == 1
    assert compute_due_reports() == 0
    factories.judge_all(judged, annotator, limit=1)
    later = now() + timedelta(minutes=5)
    assert compute_due_reports(at=later) == 1
    assert compute_due_reports(at=later) == 0
    outdate_report(judged)
    assert compute_due_reports(at=later) == 1


def test_a_report_that_took_long_is_followed_by_a_rest(judged, annotator):
    compute_report(project=judged)
    QualityReport.objects.update(seconds=60)
    factories.judge_all(judged, annotator, limit=1)
    assert compute_due_reports(at=now() + timedelta(minutes=9)) == 0
    assert compute_due_reports(at=now() + timedelta(minutes=11)) == 1


def test_two_never_compute_one_project_at_once_and_a_lost_claim_is_handed_on(judged):
    at = now()
    QualityReport.objects.create(project=judged, state=QualityReport.State.COMPUTING, claimed_at=at)
    assert compute_report(project=judged, at=at + timedelta(minutes=1)) is None
    assert compute_report(project=judged, at=at + timedelta(minutes=31)) is not None


def test_what_is_stored_under_a_lost_claim_is_dropped(judged, monkeypatch):
    at = now()

    def slow(*args):
        QualityReport.objects.filter(project=judged).update(claimed_at=at + timedelta(minutes=31))
        return {"late": True, "annotators": []}, {"annotators": []}

    monkeypatch.setattr(services, "figures_of", slow)
    compute_report(project=judged, at=at)
    report = QualityReport.objects.get()
    assert (report.figures, report.state) == ({}, QualityReport.State.COMPUTING)


def test_a_failure_is_kept_with_its_reason_and_tried_again_later(judged, monkeypatch):
    def broken(*args):
        raise RuntimeError("no luck")

    with monkeypatch.context() as patched:
        patched.setattr(services, "figures_of", broken)
        assert compute_due_reports() == 0
    report = QualityReport.objects.get()
    assert (report.state, report.problem) == (QualityReport.State.IDLE, "RuntimeError: no luck")
    assert compute_due_reports() == 0
    assert compute_due_reports(at=now() + timedelta(minutes=11)) == 1
    assert QualityReport.objects.get().problem == ""


def test_every_figure_that_was_promised_is_there(judged, annotator, other_annotator):
    figures = quality_figures(judged)
    names = {"pairwise_raw", "krippendorff_alpha_nominal", "krippendorff_alpha_symmetric", "krippendorff_alpha_ordinal"}
    names |= {"fleiss_kappa", "kendall_tau", "kendall_w"}
    assert names <= set(figures["agreement"])
    kappas = [name for name in figures["agreement"] if name.startswith("cohen_kappa:")]
    assert len(kappas) == 1
    assert set(kappas[0].split(":")[1].split("|")) == {row["annotator"] for row in figures["annotators"]}
    assert figures["agreement_by_tag"]["delivery"]["n_tasks"] == 4
    for row in figures["annotators"]:
        assert row["reliability"]["value"] > 0.8 and row["reliability"]["n"] == 12
        assert row["reliability"]["low"] < row["reliability"]["value"] <= row["reliability"]["high"]
        assert 0.5 < row["crowd_bt"]["value"] < 1
        assert sum(map(sum, row["confusion"])) == pytest.approx(12, abs=0.1)
        assert row["gold"] is None


def test_agreement_over_time_covers_each_shared_task_once_in_order(project, annotator, other_annotator):
    factories.fill_project(project, 23, overlap=2)
    for person in (annotator, other_annotator):
        factories.judge_all(project, person)
    parts = quality_figures(project)["agreement_over_time"]
    assert [part["n_tasks"] for part in parts] == [6, 6, 6, 5]
    assert all(before["to"] <= after["from"] for before, after in pairwise(parts))
    assert all(part["pairwise_raw"]["value"] == 1.0 for part in parts)


def test_figures_of_people_alone_leave_the_simulated_out(project, annotator, other_annotator):
    robot = factories.make_user("robot", kind=User.Kind.SIMULATED)
    add_member(project=project, user=robot, role="annotator")
    factories.fill_project(project, 5, overlap=3)
    for person in (robot, annotator, other_annotator):
        factories.judge_all(project, person)
    figures = quality_figures(project)
    assert figures["agreement"]["pairwise_raw"]["n"] == 45
    assert figures["agreement_of_people"]["pairwise_raw"]["n"] == 15
    assert figures["agreement_of_people"]["kendall_tau"]["n"] == 5


def test_a_failure_is_told_on_the_page_and_over_rest_until_figures_are_there(judged, lead, client, monkeypatch):
    monkeypatch.setattr(services, "SMALL", 3)
    later = now()
    with monkeypatch.context() as patched:
        patched.setattr(services, "figures_of", lambda *_, **__: 1 / 0)
        compute_due_reports(at=later)
    client.force_login(lead)
    page = client.get("/projects/support/quality/").content.decode()
    assert "could not be computed" in page and "in a minute or two" not in page and "ZeroDivision" not in page
    answer = Caller(lead).get("projects/support/quality/").json()
    assert answer["computed_at"] is None and "could not be computed" in answer["problem"]
    compute_due_reports(at=later + timedelta(hours=1))
    assert "could not be computed" not in client.get("/projects/support/quality/").content.decode()
    assert Caller(lead).get("projects/support/quality/").json()["problem"] == ""
