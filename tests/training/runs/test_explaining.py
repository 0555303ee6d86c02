"""Asking why a reward model rewards something: what is refused, what the recipe gets, the pages and REST."""

import json

import numpy
import pytest
from django.conf import settings as site
from django.utils.timezone import now

from labeling.preferences.withdrawal import remove_prompt
from labeling.projects.models import Completion, Project, Prompt
from tests.api_caller import Caller
from training.registry.models import ModelVersion
from training.runs.console_explain import explanation_shown, tint
from training.runs.errors import BadSpec, RunError
from training.runs.explaining import explanation_of
from training.runs.folder import run_folder, write_inputs
from training.runs.models import Run, RunEvent
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run

HOSTILE = '<img src=x onerror=alert(1)></p><script>alert("x")</script>'
TEXTS = {"prompt": "Where is it?", "completions": ["Here.", "There."]}


@pytest.fixture
def base(db) -> ModelVersion:
    return ModelVersion.objects.create(key="small@1", name="small", version=1, kind="base", folder="models/small")


@pytest.fixture
def reward_model(project, base) -> ModelVersion:
    return ModelVersion.objects.create(
        key="support-reward@1", name="support-reward", version=1, kind="reward", folder="models/support-reward",
        project=project, base=base, parent=base, is_adapter=True,
    )  # fmt: skip


def ask(project, model, inputs, lead=None, **spec) -> Run:
    return create_run(project=project, kind="explain", created_by=lead, model=model, inputs=inputs, spec=spec)


def explained(text: str, *, values: list[float | None] | None = None, **changes: object) -> dict:
    values = values or [0.5]
    size = -(-len(text) // len(values))
    pieces = [{"text": text[i * size : (i + 1) * size], "value": value} for i, value in enumerate(values)]
    return {
        "method": "integrated_gradients", "reward": 1.5, "baseline": 1.0, "gap": 0.0, "is_complete": True, "steps": 16,
        "deviation": None, "n_tokens": len(values), "n_tokens_cut": 0, "pieces": pieces, "sentences": [], **changes,
    }  # fmt: skip


def tell(run: Run, number: int, explanation: dict) -> None:
    place = run.events.count() + 1
    RunEvent.objects.create(run=run, number=place, type="explanation", at=now(), payload={"number": number, **explanation})


@pytest.mark.recipe
def test_stored_completions_are_explained_by_the_projects_reward_model(filled_project, lead, tiny, tiny_folder, client):
    from training.sampling.model_files import hash_model
    from training.sampling.reward_head import FeatureMap, RewardHead

    project, chance = filled_project, numpy.random.default_rng(0)
    config = {"base_model_hash": hash_model(tiny_folder), "layer": 1, "pooling": "mean", "max_length": 256}
    features = FeatureMap(chance.normal(size=64), chance.normal(size=(64, 4)))
    head = RewardHead(features, chance.normal(size=4), numpy.eye(4), config, "moved away")
    head.save(tiny_folder.parent / "a-head")
    model = ModelVersion.objects.create(
        key="head@1", name="head", version=1, kind="reward", folder="models/a-head", project=project, base=tiny, parent=tiny
    )
    chosen = list(Prompt.objects.first().completions.order_by("pk")[:2])
    run = ask(project, model, {"completion_ids": [row.pk for row in chosen]}, lead)
    watch_run(claim_next_run(owner="test"))
    run.refresh_from_db()
    assert (run.state, run.error, run.status_text) == (Run.State.DONE, "", "explained")
    assert run.output_model is None
    rows = explanation_of(run)["completions"]
    assert [row["completion_id"] for row in rows] == [row.pk for row in chosen]
    for row, completion in zip(rows, chosen, strict=True):
        assert "".join(piece["text"] for piece in row["pieces"]) == completion.content
    client.force_login(lead)
    page = client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    assert "Where the reward comes from" in page and "one scale for both" in page
    told = Caller(lead).get(f"runs/{run.pk}/explanation/").json()
    assert told["difference"]["value"] == pytest.approx(rows[0]["reward"] - rows[1]["reward"], abs=1e-4)
    assert told["completions"][0]["completion_id"] == str(chosen[0].pk)


def test_the_recipe_gets_the_texts_and_where_the_models_lie(filled_project, reward_model, lead):
    completion = Completion.objects.first()
    run = ask(filled_project, reward_model, {"completion_ids": [str(completion.pk)]}, lead, baseline="end")
    folder = write_inputs(run)
    assert folder == run_folder(run)
    (row,) = map(json.loads, (folder / "dataset" / "completions.jsonl").read_text().splitlines())
    assert row == {"prompt": completion.prompt.messages, "completion": completion.content, "completion_id": completion.pk}
    spec = (folder / "spec.yaml").read_text()
    assert f"model: {site.HOME}/models/support-reward\n" in spec and f"base: {site.HOME}/models/small\n" in spec
    assert "baseline: end" in spec and "adapter" not in spec
    written = ask(filled_project, reward_model, TEXTS, lead)
    rows = (write_inputs(written) / "dataset" / "completions.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in rows] == ["Here.", "There."]
    assert json.loads(rows[0])["prompt"] == [{"role": "user", "content": "Where is it?"}]


def test_a_completion_that_was_deleted_meanwhile_is_named(project, reward_model, lead):
    prompt = Prompt.objects.create(project=project, messages=[{"role": "user", "content": "Why?"}], content_hash="1", group_id="1")
    completion = Completion.objects.create(prompt=prompt, content="So.", content_hash="2")
    run = ask(project, reward_model, {"completion_ids": [completion.pk]}, lead)
    number = completion.pk
    prompt.delete()
    with pytest.raises(RunError, match=f"The completion {number} is gone"):
        write_inputs(run)


@pytest.mark.parametrize(
    ("inputs", "field", "said"),
    [
        ({}, "inputs.prompt", "is required"),
        ({"prompt": " ", "completions": ["x"]}, "inputs.prompt", "must end with what the user says"),
        ({"prompt": [{"role": "tool", "content": "x"}], "completions": ["x"]}, "inputs.prompt", "a role"),
        ({"prompt": "Why?"}, "inputs.completions", "one or two texts"),
        ({"prompt": "Why?", "completions": ["a", "b", "c"]}, "inputs.completions", "one or two texts"),
        ({"prompt": "Why?", "completions": ["a", " "]}, "inputs.completions", "not empty"),
        ({"prompt": "Why?", "completions": ["a" * 40_001]}, "inputs.completions", "more than 40,000 characters"),
        ({"completion_ids": []}, "inputs.completion_ids", "one or two different"),
        ({"completion_ids": ["7", "7"]}, "inputs.completion_ids", "one or two different"),
        ({"completion_ids": ["../1"]}, "inputs.completion_ids", "no such completion"),
        ({"completion_ids": ["999999"]}, "inputs.completion_ids", "no such completion"),
        ({"completion_ids": ["1"], "prompt": "Why?"}, "inputs.prompt", "beside completion_ids"),
    ],
)
def test_what_cannot_be_explained_is_refused_by_name(project, reward_model, lead, inputs, field, said):
    with pytest.raises(BadSpec) as refused:
        ask(project, reward_model, inputs, lead)
    assert said in refused.value.fields[field]
    assert not Run.objects.exists()


def test_completions_must_be_of_one_prompt_of_this_project_that_was_not_removed(filled_project, reward_model, base, lead):
    first, second = (prompt.completions.first().pk for prompt in Prompt.objects.order_by("pk")[:2])
    other = Project.objects.create(slug="other", name="Other")
    elsewhere = ModelVersion.objects.create(
        key="other-reward@1", name="other-reward", version=1, kind="reward", folder="models/x", project=other, base=base
    )
    for project, model, ids, field, said in (
        (filled_project, reward_model, [first, second], "inputs.completion_ids", "of one prompt"),
        (other, elsewhere, [first], "inputs.completion_ids", "no such completion"),
        (filled_project, elsewhere, [first], "model", "belongs to another project"),
        (filled_project, base, [first], "model", "must be a reward model"),
    ):
        with pytest.raises(BadSpec) as refused:
            ask(project, model, {"completion_ids": ids}, lead)
        assert said in refused.value.fields[field]
    remove_prompt(project=filled_project, prompt=Prompt.objects.order_by("pk").first(), by=lead)
    with pytest.raises(BadSpec, match="removed"):
        ask(filled_project, reward_model, {"completion_ids": [first]}, lead)
    with pytest.raises(BadSpec, match="not for a run of kind sample"):
        create_run(project=filled_project, kind="sample", created_by=lead, model=base, inputs={"completion_ids": [first]})


def test_who_may_ask_and_who_may_read(filled_project, reward_model, lead, engineer, reviewer, annotator, stranger, client):
    body = {"kind": "explain", "model": reward_model.key, "inputs": {**TEXTS, "prompt": [{"role": "user", "content": "Where?"}]}}
    run = None
    for person, asked, read, page in (
        (lead, 201, 200, 200), (engineer, 201, 200, 200), (reviewer, 403, 200, 200), (annotator, 403, 404, 404), (stranger, 404, 404, 404),
    ):  # fmt: skip
        answer = Caller(person).post("projects/support/runs/", body)
        assert answer.status_code == asked, person
        if run is None:
            run = Run.objects.get(pk=answer.json()["id"])
            tell(run, 0, explained("Here."))
        assert Caller(person).get(f"runs/{run.pk}/explanation/").status_code == read, person
        client.force_login(person)
        assert client.get("/projects/support/runs/explain/").status_code == page, person
        assert client.get(f"/projects/support/runs/{run.pk}/").status_code == page, person
    client.force_login(reviewer)
    sent = {"model": reward_model.pk, "prompt": "Where?", "first": "Here."}
    assert client.post("/projects/support/runs/explain/", sent).status_code == 403
    waiting = Caller(lead).get(f"runs/{Run.objects.order_by('-pk').first().pk}/explanation/").json()
    assert waiting == {"completions": [], "difference": None}


def test_a_lead_asks_about_stored_completions_or_texts_of_their_own(filled_project, reward_model, lead, client):
    client.force_login(lead)
    prompt = Prompt.objects.first()
    page = client.get(f"/projects/support/prompts/{prompt.pk}/").content.decode()
    assert f"/projects/support/runs/explain/?prompt={prompt.pk}" in page
    ids = [str(id) for id in prompt.completions.order_by("pk").values_list("pk", flat=True)]
    address = f"/projects/support/runs/explain/?prompt={prompt.pk}"
    page = client.get(f"{address}&completion={ids[1]}")
    other = ModelVersion.objects.create(
        key="support-reward@2", name="support-reward", version=2, kind="reward", folder="models/other", project=filled_project
    )
    for named, chosen in (("", other), (f"&model={reward_model.pk}", reward_model), (f"&model={reward_model.key}", reward_model)):
        assert client.get(address + named).context["form"].initial["model"] == chosen.pk
    assert page.context["form"].chosen == [ids[1]]
    answer = client.post(address, {"model": reward_model.pk, "completion_ids": ids[:2]})
    run = Run.objects.get()
    assert answer.url == f"/projects/support/runs/{run.pk}/"
    assert run.inputs == {"completion_ids": [int(id) for id in ids[:2]]} and run.spec == {}
    answer = client.post(address, {"model": reward_model.pk, "completion_ids": ids[:3]})
    assert answer.status_code == 422 and "choose one or two" in answer.content.decode()
    sent = {"model": reward_model.pk, "prompt": "Where?", "first": "Here.\r\nNow.", "second": "", "option_baseline": "end"}
    client.post("/projects/support/runs/explain/", sent)
    written = Run.objects.order_by("-pk").first()
    assert written.inputs == {"prompt": [{"role": "user", "content": "Where?"}], "completions": ["Here.\nNow."]}
    assert written.spec == {"baseline": "end"}
    answer = client.post("/projects/support/runs/explain/", {**sent, "first": "a" * 40_001})
    assert answer.status_code == 422 and "more than 40,000 characters" in answer.content.decode()
    page = client.get("/projects/support/runs/new/?kind=explain")
    assert page.url == "/projects/support/runs/explain/"
    assert f"explain/?model={reward_model.pk}" in client.get(f"/projects/support/models/{reward_model.pk}/").content.decode()


def test_hostile_text_is_shown_and_never_run(project, reward_model, lead, client):
    run = ask(project, reward_model, {"prompt": HOSTILE, "completions": [HOSTILE]}, lead)
    tell(run, 0, explained(HOSTILE, values=[0.5, -0.2, None], sentences=[{"text": HOSTILE, "effect": 0.1}]))
    client.force_login(lead)
    page = client.get(f"/projects/support/runs/{run.pk}/").content.decode()
    assert "<img src=x" not in page and "<script>alert" not in page
    assert "&lt;img src=x" in page and "cut off" in page and "+0.500" in page


def test_a_resumed_run_counts_once_and_one_scale_serves_both(project, reward_model, lead):
    run = ask(project, reward_model, TEXTS, lead)
    tell(run, 0, explained("Here.", values=[9.0]))
    tell(run, 0, explained("Here.", values=[0.5, 0.1]))
    tell(run, 1, explained("There.", values=[-1.0, None]))
    Run.objects.filter(pk=run.pk).update(result={"difference": {"value": -0.4, "deviation": 0.6}})
    run.refresh_from_db()
    found = explanation_shown(run)
    assert [[piece["tint"] for piece in row["pieces"]] for row in found["completions"]] == [["up-5", "up-1"], ["down-5", "cut"]]
    assert found["scale"] == 0.5
    assert found["difference"]["size"] == 0.4 and found["difference"]["is_unsure"]
    assert [row["letter"] for row in found["completions"]] == ["A", "B"]


def test_tints() -> None:
    assert [tint(value, 1.0) for value in (0.05, 0.12, 0.31, 0.95, 7.0, -0.5, None)] == ["", "up-1", "up-2", "up-5", "up-5", "down-2", "cut"]
    assert tint(1.0, 0.0) == ""
