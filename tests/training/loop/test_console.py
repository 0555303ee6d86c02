from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.annotation.selectors import QueueFigures
from tests import factories
from training.loop.console import steps_of
from training.loop.models import Iteration
from training.loop.overview import days_in_words, pace
from training.registry.models import ModelVersion


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(
        key="small@1", name="small", version=1, kind="base", folder="b", stage="production"
    )


FORM = {
    "train_tag": "", "heldout_tag": "heldout", "completions_per_task": "4", "overlap": "", "quota_per_cent": "80",
    "reward_kind": "reward_head",
}  # fmt: skip


def test_an_engineer_starts_an_iteration_and_only_one(client, filled_project, base, engineer):
    client.force_login(engineer)
    answer = client.post("/projects/support/iterations/new/", FORM | {"policy_before": base.pk})
    assert answer.url == "/projects/support/iterations/1/"
    iteration = Iteration.objects.get()
    assert (iteration.config["quota"], iteration.config["overlap"]) == (0.8, None)
    answer = client.post("/projects/support/iterations/new/", FORM | {"policy_before": base.pk})
    assert "iteration 1 is still at" in answer.content.decode()


def test_a_wrong_quota_is_named_at_its_field(client, filled_project, base, lead):
    client.force_login(lead)
    answer = client.post("/projects/support/iterations/new/", FORM | {"policy_before": base.pk, "quota_per_cent": "0"})
    assert answer.status_code == 422
    assert "quota_per_cent" in answer.context["form"].errors


def test_an_iteration_shows_its_steps_and_what_it_waits_for(
    client, filled_project, base, reviewer, engineer, lead, annotator
):
    factories.judge_all(filled_project, annotator, limit=2)
    Iteration.objects.create(
        project=filled_project, number=1, policy_before=base, stage="collecting", config={"quota": 1.0},
        stage_log=[
            {"stage": "sampling", "at": "2026-11-20T08:00:00+00:00"}, {"stage": "collecting", "at": "2026-11-20T08:05:00+00:00"}
        ],
    )  # fmt: skip
    client.force_login(reviewer)
    page = client.get("/projects/support/iterations/1/").content.decode()
    assert "2 of 5 judgements over 5 tasks" in page
    assert "Enough: go on" not in page
    assert client.get("/projects/support/iterations/").status_code == 200
    assert client.post("/projects/support/iterations/1/proceed/").status_code == 403
    client.force_login(engineer)
    assert "A lead decides that" in client.post("/projects/support/iterations/1/proceed/", follow=True).content.decode()
    client.force_login(lead)
    client.post("/projects/support/iterations/1/proceed/")
    assert Iteration.objects.get().config["quota"] == pytest.approx(0.4)
    client.post("/projects/support/iterations/1/cancel/")
    assert Iteration.objects.get().stage == "failed"


def test_steps_are_past_now_or_ahead_with_their_times(base):
    log = [("sampling", 0), ("collecting", 300), ("freezing", 360)]
    iteration = Iteration(
        stage="freezing", policy_before=base,
        stage_log=[{"stage": stage, "at": f"2026-11-20T08:{s // 60:02}:{s % 60:02}+00:00"} for stage, s in log],
    )  # fmt: skip
    steps = steps_of(iteration)
    assert [step["state"] for step in steps] == ["past", "past", "now", "ahead", "ahead", "ahead", "ahead"]
    assert [step["seconds"] for step in steps[:2]] == [300, 60]


def test_the_forecast_is_an_interval_and_none_from_too_little(filled_project, annotator):
    def queue(n_done: int) -> QueueFigures:
        return QueueFigures(5, n_done, 105, 100, 0, n_done, 0)

    assert pace(filled_project, queue(0)).days_left is None
    factories.judge_all(filled_project, annotator, limit=4)
    assert pace(filled_project, queue(4)).days_left is None
    factories.judge_all(filled_project, annotator)
    found = pace(filled_project, queue(5), at=now() + timedelta(hours=2))
    low, high = found.days_left
    assert found.n_recent == 5
    # 5 judgements in 2 hours and 100 to go: 40 hours, give or take.
    assert low < 40 / 24 < high
    assert sum(n for _, n in found.points) == 5


def test_forecasts_read_as_words():
    assert days_in_words((2.6, 4.2)) == "3 to 5 days"
    assert days_in_words((0.05, 0.2)) == "1 to 5 h"
    assert days_in_words(None) == ""


def test_the_list_takes_as_many_queries_for_thirty_as_for_three(
    client, project, base, lead, django_assert_max_num_queries
):
    def add(numbers: range) -> None:
        for number in numbers:
            Iteration.objects.create(
                project=project, number=number, policy_before=base, policy_after=base, stage="done"
            )

    client.force_login(lead)
    add(range(1, 4))
    with django_assert_max_num_queries(40) as few:
        client.get("/projects/support/iterations/")
    add(range(4, 31))
    with django_assert_max_num_queries(len(few)):
        assert len(client.get("/projects/support/iterations/").context["page"]["rows"]) == 30
