from datetime import timedelta

import pytest
from django.utils.timezone import now

from labeling.preferences.services import create_snapshot
from tests import factories
from training.registry.models import ModelVersion
from training.runs.comparing import MOST_RUNS
from training.runs.console import by_prompt, time_left
from training.runs.curves import MAX_POINTS, metric_rows
from training.runs.models import Run, RunEvent


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.fixture
def snapshot(filled_project, lead, annotator):
    factories.judge_all(filled_project, annotator)
    return create_snapshot(project=filled_project, created_by=lead)


def add_metrics(run: Run, steps: range) -> None:
    RunEvent.objects.bulk_create(
        RunEvent(
            run=run, number=step, type="metric", step=step, at=now(),
            payload={"metrics": {"loss": 1 / step, "epoch": step, **({"eval_loss": 2.0} if step % 100 == 0 else {})}},
        )
        for step in steps
    )  # fmt: skip


def test_an_engineer_starts_a_run_with_what_differs_from_the_defaults(client, snapshot, base, engineer):
    client.force_login(engineer)
    page = client.get("/projects/support/runs/new/?kind=dpo")
    form = page.context["form"]
    assert form.initial["snapshot"] == snapshot.pk
    sent = {f"option_{name}": form[f"option_{name}"].value() for name in form.option_names}
    sent |= {
        "kind": "dpo",
        "model": base.pk,
        "snapshot": snapshot.pk,
        "option_beta": "0.05",
        "other_options": "save_steps: 7",
    }
    answer = client.post("/projects/support/runs/new/", sent)
    run = Run.objects.get()
    assert answer.url == f"/projects/support/runs/{run.pk}/"
    assert run.spec == {"beta": 0.05, "save_steps": 7}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("other_options", "trust_remote_code: true", "is not an option of dpo"),
        ("other_options", "[1, 2", "Not YAML"),
        ("other_options", "save_steps: many", "must be a whole number"),
        ("option_beta", "-1", "greater than"),
        ("model", "", "required"),
    ],
)
def test_what_a_run_cannot_have_is_said_beside_the_field(client, snapshot, base, lead, field, value, said):
    client.force_login(lead)
    sent = {"kind": "dpo", "model": base.pk, "snapshot": snapshot.pk, "other_options": ""} | {field: value}
    answer = client.post("/projects/support/runs/new/", sent)
    assert answer.status_code == 422
    assert said in " ".join(answer.context["form"].errors[field])
    assert not Run.objects.exists()


def test_a_sample_run_takes_tags(client, filled_project, base, lead):
    client.force_login(lead)
    sent = {"kind": "sample", "model": base.pk, "tags": "no-such-tag"}
    answer = client.post("/projects/support/runs/new/", sent)
    assert "no prompt fits" in " ".join(answer.context["form"].errors["tags"])
    client.post("/projects/support/runs/new/", sent | {"tags": "delivery"})
    assert Run.objects.get().inputs == {"tags": ["delivery"]}


def test_a_reviewer_follows_a_run_and_touches_nothing(client, project, base, reviewer):
    run = Run.objects.create(project=project, kind="sample", model=base, state="running")
    client.force_login(reviewer)
    assert client.get(f"/projects/support/runs/{run.pk}/").status_code == 200
    for url in ("new/", f"{run.pk}/cancel/", f"{run.pk}/resume/"):
        assert client.post(f"/projects/support/runs/{url}").status_code == 403


def test_cancel_and_resume(client, project, base, lead):
    run = Run.objects.create(project=project, kind="sample", model=base)
    client.force_login(lead)
    client.post(f"/projects/support/runs/{run.pk}/cancel/")
    run.refresh_from_db()
    assert run.state == "cancelled"
    again = client.post(f"/projects/support/runs/{run.pk}/cancel/", follow=True)
    assert "over already" in again.content.decode()
    client.post(f"/projects/support/runs/{run.pk}/resume/")
    run.refresh_from_db()
    assert run.state == "queued"


def test_a_failed_run_says_why_and_offers_the_way_forward(client, project, base, lead):
    run = Run.objects.create(
        project=project, kind="dpo", model=base, state="failed", error="Out of memory.\nLower max_length."
    )
    client.force_login(lead)
    page = client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    assert "Out of memory.<br>Lower max_length." in page
    assert "Resume from the last checkpoint" in page


def test_events_after_a_number_are_what_is_new(client, project, base, lead, annotator):
    run = Run.objects.create(project=project, kind="dpo", model=base, state="running")
    add_metrics(run, range(1, 6))
    client.force_login(lead)
    body = client.get(f"/projects/support/runs/{run.pk}/events/?after=3").json()
    assert [row["step"] for row in body["rows"]] == [4, 5]
    assert body["rows"][0]["metrics"] == {"loss": 0.25}
    assert body["last"] == 5
    assert client.get(f"/projects/support/runs/{run.pk}/events/?after=5").json()["rows"] == []
    client.force_login(annotator)
    assert client.get(f"/projects/support/runs/{run.pk}/events/").status_code == 404


def test_a_long_run_is_thinned_but_keeps_every_evaluation(project, base, django_assert_num_queries):
    run = Run.objects.create(project=project, kind="dpo", model=base)
    add_metrics(run, range(1, 4001))
    with django_assert_num_queries(2):
        rows = metric_rows(run)
    assert MAX_POINTS * 0.8 < len(rows) < MAX_POINTS + 60
    assert rows[-1]["step"] == 4000
    assert sum("eval_loss" in row["metrics"] for row in rows) == 40


def test_time_left_goes_by_the_share_done(project, base):
    at = now()
    run = Run(state="running", progress=0.25, started_at=at - timedelta(seconds=100))
    assert time_left(run, at) == pytest.approx(300)
    run.progress = 0.01
    assert time_left(run, at) is None


def test_samples_are_gathered_by_prompt():
    def event(step: int, prompt: object, text: str) -> RunEvent:
        return RunEvent(step=step, payload={"prompt": prompt, "completion": text})

    blocks = by_prompt(
        [event(2, [{"role": "user", "content": "Hi"}], "new"), event(1, "Hi", "old"), event(1, "Bye", "x")]
    )
    assert [(block["prompt"], len(block["completions"])) for block in blocks] == [("Hi", 2), ("Bye", 1)]


@pytest.mark.parametrize("page", ["runs/", "models/"])
def test_lists_take_as_many_queries_for_thirty_as_for_three(
    client, project, base, lead, page, django_assert_max_num_queries
):
    def add(numbers: range) -> None:
        for number in numbers:
            made = ModelVersion.objects.create(
                key=f"p@{number}", name="p", version=number, kind="policy", project=project, parent=base, folder="x"
            )
            Run.objects.create(
                project=project, kind="dpo", model=base, output_model=made, created_by=lead, state="done"
            )

    client.force_login(lead)
    add(range(1, 4))
    with django_assert_max_num_queries(40) as few:
        client.get(f"/projects/support/{page}")
    add(range(4, 31))
    with django_assert_max_num_queries(len(few)):
        assert len(client.get(f"/projects/support/{page}").context["page"]["rows"]) >= 30


# --- side by side -------------------------------------------------------------------------------
@pytest.fixture
def two_runs(snapshot, base, filled_project):
    """The second with another learning rate and figures of its own, which logged more."""
    accuracy = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 40, "method": "bootstrap"}
    first = Run.objects.create(
        project=filled_project, kind="dpo", model=base, snapshot=snapshot, state="done",
        result={"figures": {"rewards/accuracies": accuracy}, "dataset": {"n_eval": 40}},
    )  # fmt: skip
    second = Run.objects.create(
        project=filled_project, kind="dpo", model=base, snapshot=snapshot, state="failed", spec={"learning_rate": 5e-5},
        result={"figures": {"rewards/margins": accuracy}, "dataset": {"n_eval": 40}},
    )  # fmt: skip
    add_metrics(first, range(1, 6))
    add_metrics(second, range(98, 103))
    # A resumed run repeats a step: its last value counts.
    RunEvent.objects.create(
        run=first, number=6, type="metric", step=5, at=now(), payload={"metrics": {"loss": 9.0}}
    )
    return first, second


def test_runs_are_drawn_into_the_same_plots_with_the_options_that_differ(client, two_runs, lead):
    first, second = two_runs
    client.force_login(lead)
    page = client.get(f"/projects/support/runs/compare/?run={second.pk}&run={first.pk}")
    panels = page.context["curves"]["panels"]
    assert [panel["key"] for panel in panels] == ["loss"]
    assert [(line["label"], line["isEval"], line["colour"]) for line in panels[0]["series"]] == [
        (f"run {second.pk}", False, 0), (f"run {second.pk}, held out", True, 0), (f"run {first.pk}", False, 1),
    ]  # fmt: skip
    assert panels[0]["series"][1]["points"] == [(100, 2.0)]
    assert panels[0]["series"][2]["points"][-1] == (5, 9.0)
    assert page.context["options"] == [{"name": "learning_rate", "values": [5e-5, 6e-4]}]
    assert [(row["name"], [value and value["n"] for value in row["values"]]) for row in page.context["figures"]] == [
        ("rewards/margins", [40, None]), ("rewards/accuracies", [None, 40]),
    ]  # fmt: skip
    assert not page.context["caution"]


def test_figures_of_other_rows_are_not_held_against_each_other(client, two_runs, lead):
    first, second = two_runs
    second.result["dataset"]["n_eval"] = 7
    second.save()
    client.force_login(lead)
    page = client.get(f"/projects/support/runs/compare/?run={first.pk}&run={second.pk}").content.decode()
    assert "did not evaluate on the same rows" in page


def test_only_runs_one_may_see_are_compared_and_no_more_than_there_are_colours(
    client, two_runs, base, lead, annotator, django_assert_max_num_queries
):
    first, second = two_runs
    elsewhere = factories.make_project(factories.make_user("other"), slug="elsewhere")
    foreign = Run.objects.create(project=elsewhere, kind="dpo", model=base)
    many = [Run.objects.create(project=first.project, kind="dpo", model=base).pk for _ in range(MOST_RUNS)]
    path = "/projects/support/runs/compare/"
    client.force_login(lead)
    assert client.get(f"{path}?run={first.pk}&run={foreign.pk}&run=x&run={first.pk}").context["runs"] == [first]
    with django_assert_max_num_queries(40):
        page = client.get(path, {"run": [first.pk, second.pk, *many]})
    assert len(page.context["runs"]) == MOST_RUNS and page.context["n_left_out"] == 2
    assert "Tick two runs" in client.get(path).content.decode()
    client.force_login(annotator)
    assert client.get(f"{path}?run={first.pk}&run={second.pk}").status_code == 404


def test_the_forms_of_sft_and_kto_count_their_own_rows_of_a_snapshot(client, snapshot, base, lead):
    client.force_login(lead)
    texts = snapshot.manifest["views"]["sft.train"]
    page = client.get("/projects/support/runs/new/?kind=sft").content.decode()
    assert f"#1 · {texts} texts to imitate · {snapshot.n_pairs} pairs" in page
    assert page.count('name="option_sources"') == 3 and page.count("checked") == 3
    page = client.get("/projects/support/runs/new/?kind=kto").content.decode()
    assert f"#1 · 0 labelled completions · {snapshot.n_pairs} pairs" in page
    # Of one frozen before anybody counted nothing is said.
    del snapshot.manifest["views"]
    snapshot.save()
    assert f"#1 · {snapshot.n_pairs} pairs" in client.get("/projects/support/runs/new/?kind=kto").content.decode()


def test_an_sft_run_takes_the_sources_that_are_ticked(client, snapshot, base, lead):
    client.force_login(lead)
    sent = {"kind": "sft", "model": base.pk, "snapshot": snapshot.pk, "other_options": ""}
    answer = client.post("/projects/support/runs/new/", sent)
    assert "not empty" in " ".join(answer.context["form"].errors["option_sources"])
    answer = client.post("/projects/support/runs/new/", sent | {"option_sources": ["correction"]})
    assert "only of best" in " ".join(answer.context["form"].errors["snapshot"])
    client.post("/projects/support/runs/new/", sent | {"option_sources": ["best", "correction"]})
    assert Run.objects.get().spec == {"sources": ["best", "correction"]}
    page = client.get(f"/projects/support/runs/{Run.objects.get().pk}/")
    assert "SFT (LoRA)" in page.content.decode()


def test_a_kto_run_without_labels_says_the_way_forward_beside_the_snapshot(client, snapshot, base, lead):
    client.force_login(lead)
    sent = {"kind": "kto", "model": base.pk, "snapshot": snapshot.pk, "other_options": ""}
    answer = client.post("/projects/support/runs/new/", sent)
    assert "set labels_from: pairs" in " ".join(answer.context["form"].errors["snapshot"])
    client.post("/projects/support/runs/new/", sent | {"option_labels_from": "pairs"})
    assert Run.objects.get().spec == {"labels_from": "pairs"}
