"""What runs of a real model on a real snapshot would take, told to pages, REST and the command line; and what is refused."""

import json
import shutil
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from labeling.preferences.services import create_snapshot
from tests import factories
from tests.api_caller import Caller
from training.endpoints.models import Endpoint
from training.registry.models import ModelVersion
from training.runs import planning
from training.runs.catalogue import KINDS
from training.runs.checking import check_run
from training.runs.errors import BadSpec
from training.runs.estimates_shown import against, basis, in_words, size, time
from training.runs.machines import note_machine
from training.runs.models import Run
from training.runs.planning import past_of
from training.runs.services import create_run
from training.sampling.foreign_model import read_json

MACHINE = {
    "cores": 2, "memory_bytes": 24e9, "gpus": [], "bf16": True, "flops": {"float32": 4e10, "bfloat16": 2e11},
    "copied_bytes_a_second": 2e10,
}  # fmt: skip
RULES = {"rewards": [{"rule": "length:target=20", "weight": 1.0}]}


@pytest.fixture
def snapshot(project, annotator, lead):
    factories.fill_project(project, 16)
    factories.judge_all(project, annotator)
    return create_snapshot(project=project, created_by=lead)


@pytest.fixture
def box(db):
    return note_machine(MACHINE, "box")


@pytest.fixture
def spoiled(tiny_folder):
    """Registers a copy of the tiny model after something was done to its folder."""
    folders = []

    def spoil(change) -> ModelVersion:
        folder = Path(settings.MODELS) / f"spoiled-{len(folders)}"
        folders.append(shutil.copytree(tiny_folder, folder))
        change(folder)
        return ModelVersion.objects.create(key="spoiled@1", name="spoiled", version=1, kind="base", folder=f"models/{folder.name}")

    yield spoil
    for folder in folders:
        shutil.rmtree(folder)


def forget_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = read_json(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def arguments_of(kind, snapshot, tiny):
    known = KINDS[kind]
    spec = {"layer": 1} if kind == "reward_head" else {"preamble": "Be brief."} if kind == "distill" else {}
    inputs = RULES if known.needs_rewards else {}
    if known.explains:
        inputs = {"prompt": [{"role": "user", "content": "Hello?"}], "completions": ["Yes."]}
    return {"project": snapshot.project, "kind": kind, "model": tiny, "spec": spec, "inputs": inputs, "snapshot": snapshot if known.needs_snapshot else None}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("merge", "explain", "encode")])  # encode needs an encoder in use
def test_every_kind_is_planned_from_what_is_there(kind, snapshot, tiny, box):
    try:
        checked = check_run(**arguments_of(kind, snapshot, tiny))
    except BadSpec as error:
        pytest.fail(str(error))
    if kind == "kto":  # nobody was asked what is acceptable
        assert set(checked.wrong) == {"snapshot"} and not checked.plan.estimate
        return
    told = checked.plan.estimate
    assert checked.wrong == {} and told["machine"] == "box"
    assert 0 < told["seconds"]["low"] <= told["seconds"]["likely"] <= told["seconds"]["high"] < 1000
    assert told["rows"] > 0 and told["memory_there_bytes"] == 24e9
    assert {name for name, _ in in_words(told)} >= {"Time", "Memory", "Disk", "Rows"}
    assert "no run of this kind has finished" in basis(told)


def test_the_estimate_is_kept_and_later_runs_learn_from_it(snapshot, tiny, lead, box):
    run = create_run(project=snapshot.project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    said = run.estimate["seconds"]["likely"]
    ended = now()
    Run.objects.filter(pk=run.pk).update(
        state=Run.State.DONE, attempts=1, owner="box:7:9", started_at=ended - timedelta(seconds=3 * run.estimate["raw_seconds"]), finished_at=ended,
        result={"peak_rss_bytes": 7e8, "peak_gpu_bytes": None},
    )  # fmt: skip
    run.refresh_from_db()
    assert [past.took_seconds / past.said_seconds for past in past_of("dpo", box)] == [pytest.approx(3, rel=0.01)]
    told = check_run(project=snapshot.project, kind="dpo", snapshot=snapshot, model=tiny).plan.estimate
    assert told["seconds"]["likely"] == pytest.approx(3 * said, rel=0.02) and told["n_past"] == 1
    assert basis(told) == "By 1 past run of this kind on box."
    assert [row[0] for row in against(run)] == ["Time", "Memory at its peak"] and against(run)[1][2] == "700 MB"
    Run.objects.filter(pk=run.pk).update(attempts=2)  # a run that was lost on the way tells nothing
    assert past_of("dpo", box) == []


def test_without_a_machine_the_time_is_not_told(snapshot, tiny):
    told = check_run(project=snapshot.project, kind="dpo", snapshot=snapshot, model=tiny).plan.estimate
    assert told["seconds"] is None and told["memory_bytes"]["low"] > 0
    assert any("No worker" in note for note in told["notes"])
    assert "Time" not in dict(in_words(told)) and basis(told) == ""


def test_a_model_whose_files_are_elsewhere_is_not_estimated(snapshot):
    model = ModelVersion.objects.create(key="far@1", name="far", version=1, kind="base", folder="models/far")
    checked = check_run(project=snapshot.project, kind="dpo", snapshot=snapshot, model=model)
    assert checked.wrong == {} and "not on this machine" in checked.plan.estimate["notes"][0]


def test_a_price_an_hour_gives_what_it_costs(snapshot, tiny, box, settings):
    settings.PRICE_AN_HOUR, settings.CURRENCY = 3600.0, "CHF"
    told = check_run(project=snapshot.project, kind="dpo", snapshot=snapshot, model=tiny).plan.estimate
    assert told["cost"]["currency"] == "CHF" and told["cost"]["high"] == pytest.approx(told["seconds"]["high"], rel=0.01)
    assert dict(in_words(told))["Cost"].endswith(" CHF")


def test_sampling_at_an_endpoint_costs_what_its_tokens_cost(snapshot, tiny, box, lead):
    endpoint = Endpoint.objects.create(
        project=snapshot.project, name="gpu", model=tiny, url="https://gpu.example/v1", served_model="t", prompt_price=1, new_price=2, currency="EUR",
    )  # fmt: skip
    told = check_run(project=snapshot.project, kind="sample", model=tiny, inputs={"endpoint": endpoint.pk}).plan.estimate
    assert told["seconds"] is None and told["endpoint"] == "gpu"
    assert 16 * 4 * 64 <= told["tokens"]["high"] < 16 * 4 * 200 and told["cost"]["currency"] == "EUR"


def test_rows_that_are_too_long_are_counted_and_refused_only_where_nothing_is_left(snapshot, tiny, box):
    usual = check_run(project=snapshot.project, kind="reward", snapshot=snapshot, model=tiny)
    assert not any("more than" in note for note in usual.plan.estimate["notes"])
    lengths = sorted(usual.plan.data.lengths.texts)
    some = check_run(project=snapshot.project, kind="reward", snapshot=snapshot, model=tiny, spec={"max_length": lengths[len(lengths) // 2]})
    (note,) = [note for note in some.plan.estimate["notes"] if "more than" in note]
    assert "are left out and counted" in note and some.wrong == {}
    assert 0 < some.plan.estimate["rows"] < usual.plan.estimate["rows"]
    none = check_run(project=snapshot.project, kind="reward", snapshot=snapshot, model=tiny, spec={"max_length": 16})
    assert list(none.wrong) == ["spec.max_length"] and "leaves nothing" in none.wrong["spec.max_length"]


@pytest.mark.parametrize(
    ("kind", "spec", "machine", "field", "said"),
    [
        ("dpo", {}, {"memory_bytes": 1e8}, "model", "needs at least"),
        ("dpo", {"per_device_train_batch_size": 512}, {"memory_bytes": 5e8}, "spec.per_device_train_batch_size", "make it smaller"),
        ("dpo", {"quantised_base": "4bit"}, {}, "spec.quantised_base", "no machine that executes runs has one"),
        ("reward_head", {}, {}, "spec.layer", "is 20, and tiny@1 has 2 layers"),
    ],
)
def test_what_no_machine_can_do_is_refused_before_it_is_queued(snapshot, tiny, lead, kind, spec, machine, field, said):
    note_machine({**MACHINE, **machine}, "box")
    with pytest.raises(BadSpec) as refused:
        create_run(project=snapshot.project, kind=kind, created_by=lead, snapshot=snapshot, model=tiny, spec=spec)
    assert said in refused.value.fields[field] and list(refused.value.fields) == [field]
    assert not Run.objects.exists()


def test_a_run_that_fits_one_machine_is_told_for_that_one(snapshot, tiny, box):
    note_machine({**MACHINE, "memory_bytes": 1e8, "flops": {"float32": 1e15}}, "small")
    told = check_run(project=snapshot.project, kind="dpo", snapshot=snapshot, model=tiny).plan.estimate
    assert told["machine"] == "box" and any("whichever is free first" in note for note in told["notes"])


def test_an_unfit_model_is_refused_by_name_wherever_it_stands(snapshot, tiny, lead, spoiled, box):
    spoilt = spoiled(forget_template)
    for kind, role, inputs in (("dpo", "model", {}), ("evaluate", "inputs.reference", {"reference": spoilt.pk})):
        with pytest.raises(BadSpec) as refused:
            create_run(
                project=snapshot.project, kind=kind, created_by=lead, snapshot=snapshot if kind == "dpo" else None,
                model=spoilt if role == "model" else tiny, inputs=inputs,
            )  # fmt: skip
        assert refused.value.fields == {role: f"spoiled@1 can't be used: {planning.why_unfit(planning.folder_of(spoilt))}"}
    assert not Run.objects.exists()


def test_rest_tells_what_a_run_would_take_and_queues_nothing(snapshot, tiny, box, engineer):
    caller = Caller(engineer)
    body = {"kind": "dpo", "model": "tiny@1", "snapshot": str(snapshot.pk)}
    answer = caller.post("projects/support/runs/estimate/", body)
    assert answer.status_code == 200, answer.json()
    told = answer.json()
    assert told["estimate"]["seconds"]["low"] > 0 and told["wrong"] == {} and told["suggested"] == {}
    assert "raw_seconds" not in told["estimate"]
    refused = caller.post("projects/support/runs/estimate/", {**body, "kind": "reward_head"}).json()
    assert "spec.layer" in refused["wrong"]
    assert refused["suggested"] == {"layer": {"value": 1, "why": "two thirds up its 2 layers"}}
    assert "spec.beta" in caller.post("projects/support/runs/estimate/", {**body, "spec": {"beta": -1}}).json()["wrong"]
    assert caller.post("projects/support/runs/estimate/", {**body, "kind": "shell"}).status_code == 400
    assert not Run.objects.exists()
    (machine,) = caller.get("projects/support/machines/").json()["results"]
    assert (machine["name"], machine["facts"]["cores"]) == ("box", 2) and "2 cores" in machine["description"]
    queued = caller.post("projects/support/runs/", body).json()
    assert queued["estimate"]["seconds"] == told["estimate"]["seconds"]


def test_the_command_line_says_it_before_it_starts(snapshot, tiny, box):
    printed = StringIO()
    call_command("train", "dpo", "support", "--snapshot=1", "--model=tiny@1", "--estimate", stdout=printed)
    assert "Time: " in printed.getvalue() and "Memory: " in printed.getvalue() and not Run.objects.exists()
    with pytest.raises(CommandError, match=r"spec\.beta"):
        call_command("train", "dpo", "support", "--snapshot=1", "--model=tiny@1", "--set=beta=-1", "--estimate", stdout=printed)


def test_the_form_is_filled_in_for_the_model_and_asks_what_it_will_take(client, snapshot, tiny, box, engineer, annotator):
    client.force_login(engineer)
    page = client.get("/projects/support/runs/new/?kind=reward_head")
    assert page.context["form"]["option_layer"].value() == 1
    text = page.content.decode()
    assert "two thirds up its 2 layers" in text and "box" in text and "2 cores, 24 GB of memory" in text
    form = page.context["form"]
    sent = {f"option_{name}": form[f"option_{name}"].value() for name in form.option_names}
    sent |= {"kind": "reward_head", "model": tiny.pk, "snapshot": snapshot.pk}
    told = client.post("/projects/support/runs/estimate/", sent)
    assert told.status_code == 200 and "no run of this kind has finished" in told.content.decode()
    refused = client.post("/projects/support/runs/estimate/", {**sent, "option_layer": 9}).content.decode()
    assert "is 9, and tiny@1 has 2 layers" in refused and "Fill the form in anew" in refused
    assert "Choose a model" in client.post("/projects/support/runs/estimate/", {"kind": "dpo"}).content.decode()
    assert not Run.objects.exists()
    client.force_login(annotator)
    assert client.post("/projects/support/runs/estimate/", sent).status_code in (403, 404)


def test_a_runs_page_shows_what_was_told_and_what_it_took(client, snapshot, tiny, box, lead):
    run = create_run(project=snapshot.project, kind="dpo", created_by=lead, snapshot=snapshot, model=tiny)
    client.force_login(lead)
    assert "Estimated: time" in client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    Run.objects.filter(pk=run.pk).update(
        state=Run.State.DONE, attempts=1, started_at=now() - timedelta(seconds=42), finished_at=now(), result={"peak_rss_bytes": 1_230_000_000}
    )
    page = client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    assert "Estimated and taken" in page and "42 s" in page and "1.2 GB" in page


def test_sizes_and_times_in_words():
    assert [time(seconds) for seconds in (0.2, 42, 600, 7200, 300_000)] == ["1 s", "42 s", "10 min", "2.0 h", "3.5 days"]
    assert [size(n) for n in (5e5, 5e8, 2.34e9, 2.34e11)] == ["1 MB", "500 MB", "2.3 GB", "234 GB"]
    told = {"seconds": {"low": 200, "likely": 400, "high": 800}, "tokens": {"low": 1500, "likely": 1600, "high": 2_000_000}}
    assert in_words(told) == [("Time", "3 to 13 min, likely 7 min"), ("Tokens", "1.5 thousand to 2.0 million, likely 1.6 thousand")]
