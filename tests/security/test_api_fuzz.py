"""Requests drawn from the API's own schema, good and bad: no server error, and answers of the shape that is promised."""

import json

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from config.wsgi import application
from labeling.annotation.services import take_lease
from labeling.preferences.freezes import start_freeze
from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import withdraw_person
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.services import create_webhook
from tests import factories
from tests.api_caller import Caller
from training.registry.models import ModelVersion

EXAMPLES = 12
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance, content_type_conformance]
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def world(filled_project, lead, annotator):
    factories.fill_project(filled_project, 14)
    factories.judge_all(filled_project, annotator, limit=7)
    factories.judge_all(filled_project, lead, limit=2)
    ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="models/small")
    lead.is_staff = True
    lead.save()
    # Its address is refused before anything is sent.
    webhook, _ = create_webhook(project=filled_project, url="https://example.org/", events=["run"])
    Webhook.objects.update(url="https://127.0.0.1/")
    return {
        "webhook_id": str(webhook.pk), "delivery_id": str(Delivery.objects.create(webhook=webhook, event="run", body="{}").pk),
        "slug": "support", "lease_id": str(take_lease(project=filled_project, annotator=lead).pk),
        "snapshot_id": str(create_snapshot(project=filled_project, created_by=lead).pk), "model_id": "1",
        "freeze_id": str(start_freeze(project=filled_project, created_by=lead).pk),
        "withdrawal_id": str(withdraw_person(project=filled_project, annotator=annotator, by=lead)[0].pk),
        "judgement_id": str(filled_project.judgements.filter(annotator=lead).first().pk), "split": "train", "kind": "jsonl",
    }  # fmt: skip


@pytest.fixture
def one_connection():
    """Requests of the bare application stay inside the test's transaction."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_what_the_schema_allows_is_answered_as_the_schema_says(world, lead, monkeypatch, one_connection):
    from rest_framework.throttling import SimpleRateThrottle

    monkeypatch.setattr(SimpleRateThrottle, "allow_request", lambda *_: True)
    schema = schemathesis.openapi.from_wsgi("/api/v1/schema/?format=json", application)
    headers = {"Authorization": f"Bearer {factories.token_for(lead)}"}
    count = 0
    failures = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @QUIET
        @given(case=operation.as_strategy())
        def ask(case):
            nonlocal count
            # Made-up ids are answered 404 before anything else is looked at: give real ones.
            case.path_parameters = {**(case.path_parameters or {}), **{
                name: world[name] for name in (case.path_parameters or {}) if name in world
            }}
            count += 1
            case.call_and_validate(headers=headers, checks=CHECKS)

        try:
            ask()
        except Exception as error:  # one report for all calls
            failures.append(f"{operation.label}: {error} {getattr(error, 'exceptions', '')}")
    assert not failures, "\n\n".join(failures)
    assert count > 150


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "b", "c"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["ranking", "a", "form", "filters", "policy", "spec", "kind", "model", "config", "flags", "ratings",
                         "seconds", "name", "slug", "prompts", "margins", "inputs", "rationale", "overlap", "reason"]),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)


def test_odd_bodies_are_refused_and_never_break_anything(world, lead):
    caller = Caller(lead, raises=False)
    calls = [
        ("POST", "projects/"), ("PATCH", "projects/support/"), ("POST", "projects/support/members/"),
        ("POST", "projects/support/tasks/"), ("POST", "projects/support/leases/"), ("POST", "projects/support/runs/"),
        ("POST", "projects/support/iterations/"), ("POST", "projects/support/snapshots/"), ("POST", "models/"),
        ("POST", f"leases/{world['lease_id']}/judgement/"), ("PUT", f"leases/{world['lease_id']}/draft/"),
        ("POST", f"judgements/{world['judgement_id']}/revision/"), ("PATCH", "models/1/"), ("POST", "auth/token/"),
        ("POST", "projects/support/imports/?format=completions"),
    ]  # fmt: skip

    @settings(QUIET, max_examples=250)
    @given(st.sampled_from(calls), JSON, st.text(alphabet="abc019-", min_size=1, max_size=10))
    def ask(call, body, key):
        method, path = call
        kind = "text/plain" if "imports" in path else "application/json"
        raw = json.dumps(body).encode("utf-8", "surrogatepass")
        answer = caller.call(method, path, raw, content_type=kind, Idempotency_Key=key)
        assert answer.status_code < 500, (method, path, body)
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"code", "message", "fields"}

    ask()
