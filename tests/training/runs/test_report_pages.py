"""The report of a reward model in the console and over REST, from a real run on a tiny model."""

import pytest

from labeling.annotation.models import Task
from labeling.annotation.services import submit_judgement, take_lease
from labeling.preferences.services import create_snapshot
from labeling.projects.services import pseudonym_of
from tests import factories
from tests.api_caller import Caller
from tests.training.runs.reports import small_report
from training.registry.models import ModelVersion
from training.registry.report_serializers import RewardReportSerializer
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run


@pytest.fixture
def judged(project, annotator, other_annotator, reviewer):
    project.overlap = 3
    project.eval_share = 0.5
    project.save()
    factories.fill_project(project, 24, overlap=3)
    for number, person in enumerate((annotator, other_annotator, reviewer)):
        while lease := take_lease(project=project, annotator=person):
            keys = "abc"
            order = sorted(keys, key=lambda key: lease.order_shown[keys.index(key)], reverse=number == 2 and lease.task_id % 2)
            submit_judgement(lease=lease, submission_key=f"{person.pk}-{lease.pk}", body={"ranking": [[key] for key in order]})


@pytest.fixture
def run(project, judged, tiny, lead) -> Run:
    snapshot = create_snapshot(project=project, created_by=lead)
    run = create_run(project=project, kind="reward_head", created_by=lead, snapshot=snapshot, model=tiny, spec={"layer": 2})
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.DONE, "")
    return run


def described(serializer, value, path="report"):
    """Every name in the value is in the schema, and the other way round."""
    for field in serializer.fields.values():
        if field.required:
            assert field.field_name in value, f"{path}.{field.field_name}"
    assert set(value) <= set(serializer.fields), f"{path}: {set(value) - set(serializer.fields)}"
    for name, field in serializer.fields.items():
        many = getattr(field, "child", None)
        if many is not None and hasattr(many, "fields"):
            for item in value[name]:
                described(many, item, f"{path}.{name}")
        elif hasattr(field, "fields") and value.get(name) is not None:
            described(field, value[name], f"{path}.{name}")


@pytest.mark.recipe
def test_the_report_of_a_run_is_a_page_an_answer_and_on_the_card(
    client, run, project, tiny, lead, engineer, annotator, stranger, reviewer
):
    report = run.result["report"]
    described(RewardReportSerializer(), report)
    by = {part["by"]: part for part in report["slices"]}
    assert {row["name"] for row in by["tag"]["rows"]} == {"delivery"}
    names = {pseudonym_of(project, person) for person in (annotator, reviewer)}
    assert names < {row["name"] for row in by["annotator"]["rows"]}
    assert report["majority"]["against"]["n"] > 10 and report["majority"]["n_unclear"] > 0
    assert report["position"]["first_won"]["n"] > 0

    answer = Caller(engineer).get(f"models/{run.output_model.pk}/report/")
    assert answer.status_code == 200 and answer.json() == report
    assert Caller(stranger).get(f"models/{run.output_model.pk}/report/").status_code == 404
    assert Caller(engineer).get(f"models/{tiny.pk}/report/").status_code == 404  # a base model has none
    assert Caller(engineer).get(f"runs/{run.pk}/").json()["result"]["report"] == report
    [listed] = Caller(engineer).get("projects/support/runs/").json()["results"]
    assert "report" not in listed["result"] and "figures" in listed["result"]
    assert "## How far to trust it" in Caller(engineer).get(f"models/{run.output_model.pk}/card/").content.decode()

    url = f"/projects/support/runs/{run.pk}/report/"
    for person, status in ((annotator, 404), (stranger, 404), (lead, 200)):
        client.force_login(person)
        assert client.get(url).status_code == status
    page = client.get(url).content.decode()
    assert "It is right on" in page and annotator.username in page and "delivery" in page
    assert page.count('class="interval-plot"') > 10 and "reliability-data" in page
    for part in (f"/projects/support/runs/{run.pk}/", f"/projects/support/models/{run.output_model.pk}/"):
        assert url in client.get(part).content.decode()


@pytest.fixture
def reported(project, annotator, lead) -> Run:
    """Of a run that left a report with cases, without training."""
    tasks = factories.fill_project(project, 3)
    gold = tasks[2]
    Task.objects.filter(pk=gold.pk).update(purpose=Task.Purpose.GOLD)
    cases = [
        {"id": f"p{number}", "task": id, "probability": 0.1, "n_votes": 5, "share": 0.8}
        for number, id in enumerate([tasks[0].public_id, gold.public_id, "gone", None])
    ]
    report = small_report(cases)
    model = ModelVersion.objects.create(key="r@1", name="r", version=1, kind="reward", project=project, folder="r")
    return Run.objects.create(
        project=project, kind="reward", state="done", output_model=model, result={"report": report, "figures": {"accuracy": report["accuracy"]}}
    )


def test_the_page_says_what_is_missing_and_shows_no_task_that_checks_people(client, reported, lead, engineer):
    url = f"/projects/support/runs/{reported.pk}/report/"
    client.force_login(lead)
    page = client.get(url).content.decode()
    assert "No pairs were held out" in page and "2 more pairs were too long" in page
    assert "9 others together" in page and "&lt;b&gt;" in page
    assert "no pair says how strong the preference is" in page and "which completion was shown first" in page
    assert "A curve needs twenty pairs" in page and "3 can’t be opened here" in page
    first, _, gold = Task.objects.order_by("pk")
    assert f"/adjudication/{first.public_id}/" in page and gold.public_id not in page
    assert f"/prompts/{first.prompt_id}/" in page and f"/prompts/{gold.prompt_id}/" not in page
    client.force_login(engineer)
    assert "/adjudication/" not in client.get(url).content.decode()


def test_a_run_without_a_report_has_no_such_page(client, reported, lead):
    reported.result = {"figures": {}}
    reported.save()
    client.force_login(lead)
    assert client.get(f"/projects/support/runs/{reported.pk}/report/").status_code == 404
    assert "How far to trust it" not in client.get(f"/projects/support/runs/{reported.pk}/").content.decode()
