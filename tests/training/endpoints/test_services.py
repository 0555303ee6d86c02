"""Endpoints: who is reached, what is kept of keys, and a sample run at a real server."""

import stat
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core import serializers

from labeling.projects.models import Completion
from tests import factories
from tests.training.endpoints.conftest import KEY
from tests.training.sampling.openai_server import MODEL, completion_of
from training.endpoints.doctor import examine_endpoints
from training.endpoints.errors import BadEndpoint, Unreachable
from training.endpoints.keys import delete_key, folder
from training.endpoints.models import Endpoint
from training.endpoints.services import change_endpoint, reach, register_endpoint, try_endpoint
from training.loop.errors import BadIteration
from training.loop.services import start_iteration
from training.registry.models import ModelVersion
from training.registry.selectors import production_policy
from training.registry.serving import RegistryModels
from training.runs.errors import BadSpec
from training.runs.folder import run_folder
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run
from training.runs.watch import watch_run

PUBLIC = "https://models.example.org/v1"


def enter(project, url=PUBLIC, **fields) -> Endpoint:
    return register_endpoint(**{
        "project": project, "name": "gpu1", "url": url, "served_model": MODEL, "revision": "abc123", "licence": "MIT", **fields
    })  # fmt: skip


def execute(run: Run) -> Run:
    claimed = claim_next_run(owner="test")
    assert claimed == run
    watch_run(claimed)
    run.refresh_from_db()
    return run


def test_a_run_samples_at_the_endpoint_and_its_completions_know_where(project, lead, listed):
    factories.fill_project(project, 3)
    endpoint = enter(project, listed.url, key=KEY, prompt_price=1, new_price=2, currency="EUR", concurrency=3)
    spec = {"completions_per_prompt": 2, "seed": 3, "budget": 1.0}
    run = create_run(
        project=project, kind="sample", created_by=lead, model=endpoint.model, spec=spec, inputs={"endpoint": endpoint.pk}
    )
    execute(run)
    assert (run.state, run.error) == (Run.State.DONE, "")
    made = list(Completion.objects.filter(model_key=endpoint.model.key).select_related("prompt"))
    seeds = {line["body"]["seed"] for line in listed.seen()}
    assert len(made) == len(seeds) == 6
    for row in made:
        known = {name: row.sampling[name] for name in ("run", "endpoint", "served_model", "revision", "answered_by")}
        assert known == {
            "run": run.pk, "endpoint": "gpu1", "served_model": MODEL, "revision": "abc123", "answered_by": MODEL,
        }  # fmt: skip
        assert row.sampling["seed"] in seeds and {"temperature", "top_p", "max_new_tokens"} <= set(row.sampling)
        assert row.content == completion_of(row.prompt.messages[-1]["content"], row.sampling["seed"], 6)
    metrics = run.result["metrics"]
    assert metrics["requests"] == 6
    assert metrics["cost"] == pytest.approx((metrics["used_prompt_tokens"] + 2 * metrics["used_new_tokens"]) / 1e6)
    # The key is in its own file, and nowhere else.
    holding = [path for path in Path(django_settings.HOME).rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holding == [folder() / endpoint.key_name]
    everything = [*Endpoint.objects.all(), *Run.objects.all(), *run.events.all(), *ModelVersion.objects.all()]
    assert KEY not in serializers.serialize("json", everything)


def test_a_run_whose_endpoint_cannot_be_asked_fails_with_the_reason_before_anything_starts(project, lead, listed):
    factories.fill_project(project, 2)
    endpoint = enter(project, listed.url, key=KEY)
    run = create_run(project=project, kind="sample", created_by=lead, model=endpoint.model, inputs={"endpoint": endpoint.pk})
    delete_key(endpoint.key_name)
    execute(run)
    assert run.state == Run.State.FAILED
    assert "The key of endpoint gpu1 is not on this machine: enter it again" in run.error
    assert not run_folder(run).exists() and listed.seen() == []


def test_a_model_that_is_only_served_is_sampled_and_nothing_else(project, lead):
    factories.fill_project(project, 2)
    endpoint = enter(project)
    model = endpoint.model
    assert (model.key, model.kind, model.folder, model.licence) == ("support-gpu1@1", "base", "", "MIT")
    assert model.lineage == {"served_model": MODEL, "revision": "abc123", "endpoint": "gpu1"}
    with pytest.raises(BadSpec) as caught:
        create_run(project=project, kind="reward_head", created_by=lead, model=model)
    assert "on a server alone" in caught.value.fields["model"]
    with pytest.raises(BadSpec) as caught:
        create_run(project=project, kind="sample", created_by=lead, model=model)
    assert "weights of support-gpu1@1 are not here" in caught.value.fields["endpoint"]
    with pytest.raises(BadIteration, match="on a server alone"):
        start_iteration(project=project, policy_before=model, created_by=lead)
    assert production_policy(project) is None
    assert model.key not in list(RegistryModels().names())


def test_what_a_run_cannot_ask_of_an_endpoint_is_refused_before_it_is_queued(project, lead, stranger):
    factories.fill_project(project, 2)
    base = ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="models/small")
    mine = enter(project, model=base)
    other = enter(project, name="gpu2")
    theirs = enter(factories.make_project(stranger, slug="elsewhere"))

    def refused(model, endpoint, **spec) -> dict[str, str]:
        with pytest.raises(BadSpec) as caught:
            create_run(
                project=project, kind="sample", created_by=lead, model=model, spec=spec,
                inputs={} if endpoint is None else {"endpoint": endpoint.pk},
            )  # fmt: skip
        return caught.value.fields

    assert refused(base, other) == {"endpoint": "serves support-gpu2@1, not small@1"}
    assert "none of this project's" in refused(base, theirs)["endpoint"]
    assert "has no prices" in refused(base, mine, budget=1.0)["spec.budget"]
    assert "at most 2" in refused(base, mine, temperature=3.0)["spec.temperature"]
    assert set(refused(base, None, budget=1.0, token_budget=5)) == {"spec.budget", "spec.token_budget"}
    change_endpoint(endpoint=mine, is_active=False)
    assert "is retired" in refused(base, mine)["endpoint"]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://models.example.org/v1", "https://"),
        ("https://127.0.0.1/v1", "not a public address"),
        ("https://10.0.0.7/v1", "not a public address"),
        ("https://[::1]/v1", "not a public address"),
        ("https://models.example.org:8000/v1", "must be on port"),
        ("https://key@models.example.org/v1", "name or a password"),
        ("https://models.example.org/v1?key=abc", "must end with its path"),
        ("file:///etc/passwd", "must begin with https://"),
    ],
)
def test_private_addresses_need_the_operator(project, url, said):
    with pytest.raises(BadEndpoint) as caught:
        enter(project, url)
    assert said in caught.value.fields["url"]
    assert not Endpoint.objects.exists() and not ModelVersion.objects.exists()


def test_an_address_that_the_operator_no_longer_lists_is_not_asked(project, settings, listed):
    endpoint = enter(project, listed.url, key=KEY)
    assert reach(endpoint).addresses == ()
    assert try_endpoint(endpoint) == f"answers and serves {MODEL}"
    settings.ENDPOINT_HOSTS = []
    with pytest.raises(Unreachable, match="https://"):
        reach(endpoint)
    assert listed.seen() == []


def test_a_public_name_that_leads_to_a_private_address_is_not_asked(project, monkeypatch):
    endpoint = enter(project)
    monkeypatch.setattr("training.endpoints.services.addresses_of", lambda host, port: ["93.184.215.14", "10.0.0.7"])
    with pytest.raises(Unreachable, match="leads to an address that is not public"):
        reach(endpoint)
    monkeypatch.setattr("training.endpoints.services.addresses_of", lambda host, port: ["93.184.215.14"])
    assert reach(endpoint).addresses == ("93.184.215.14",)


def test_a_key_lies_in_a_file_for_its_owner_alone_and_goes_when_it_is_replaced(
    project, django_capture_on_commit_callbacks
):
    endpoint = enter(project, key=KEY)
    path = folder() / endpoint.key_name
    assert path.read_text() == KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(folder().stat().st_mode) == 0o700
    with django_capture_on_commit_callbacks(execute=True):
        changed = change_endpoint(endpoint=endpoint, key="sk-new", concurrency=2)
    assert not path.exists() and (folder() / changed.key_name).read_text() == "sk-new"
    with django_capture_on_commit_callbacks(execute=True):
        change_endpoint(endpoint=endpoint, key="")
    assert list(folder().iterdir()) == []
    enter(project, name="gpu2", key=KEY)
    with pytest.raises(BadEndpoint, match="is taken"):
        enter(project, name="gpu2", key="sk-other")
    assert [file.read_text() for file in folder().iterdir()] == [KEY]


def test_every_wrong_field_is_named(project):
    with pytest.raises(BadEndpoint) as caught:
        enter(
            project, "ftp://x", name="GPU 1", served_model="", licence="", key="two words", concurrency=0, new_price=-1.0,
            currency="euro", requests_per_minute=True,
        )  # fmt: skip
    assert set(caught.value.fields) == {
        "url", "name", "served_model", "licence", "key", "concurrency", "new_price", "currency", "requests_per_minute",
    }  # fmt: skip


def test_doctor_asks_each_endpoint_in_use(project, listed):
    enter(project, listed.url, key=KEY)
    enter(project, listed.url, name="gpu2", key=KEY, served_model="another")
    change_endpoint(endpoint=enter(project, listed.url, name="gpu3"), is_active=False)
    found = {finding.name: (finding.state, finding.text) for finding in examine_endpoints()}
    assert found == {
        "endpoint support/gpu1": ("ok", f"answers and serves {MODEL}"),
        "endpoint support/gpu2": ("warning", f"It answers, but doesn't serve another; it serves: {MODEL}"),
    }
