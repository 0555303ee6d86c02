"""Whatever a body names beside what a call takes is refused, and changes nothing."""

import pytest
from django.apps import apps
from django.forms.models import model_to_dict

from labeling.annotation.models import Judgement
from labeling.annotation.services import take_lease
from labeling.projects.models import Project
from tests.api_caller import Caller
from tests.factories import judge_all

OURS = ("accounts", "projects", "annotation", "quality", "preferences", "webhooks", "registry", "endpoints", "runs", "loop")
FIELDS = sorted(
    {
        name
        for label in OURS
        for model in apps.get_app_config(label).get_models()
        for field in model._meta.get_fields()
        for name in (field.name, getattr(field, "attname", field.name))
    }
    | {"is_superuser", "is_staff", "pk", "__class__", "created_by", "role"}
)
CALLS = {
    "POST projects/": {"slug": "new", "name": "New"},
    "PATCH projects/support/": {},
    "POST projects/support/members/": {"username": "stranger", "role": "annotator"},
    "PATCH projects/support/members/annotator/": {},
    "POST projects/support/pools/": {"name": "x"},
    "POST projects/support/tasks/assign/": {"priority": 1},
    "POST projects/support/members/annotator/pause/": {"reason": "x"},
    "POST projects/support/members/annotator/reinstate/": {},
    "POST projects/support/members/annotator/set-aside/": {"reason": "x"},
    "POST projects/support/gold/": {"text": "x"},
    "POST projects/support/webhooks/": {"url": "https://example.org/", "events": ["run"]},
    "POST projects/support/endpoints/": {"name": "gpu", "url": "https://example.org/v1", "served_model": "m", "licence": "x"},
    "POST projects/support/tasks/": {},
    "POST projects/support/leases/": {},
    "POST projects/support/snapshots/": {},
    "POST projects/support/runs/": {"kind": "sample", "model": "small@1"},
    "POST projects/support/runs/estimate/": {"kind": "sample", "model": "small@1"},
    "POST projects/support/iterations/": {"policy_before": "small@1"},
    "POST models/": {"name": "x", "folder": "models/x", "licence": "x"},
    "POST projects/support/models/import/": {"name": "x", "folder": "x", "licence": "x", "kind": "base"},
    "POST auth/token/": {"username": "x", "password": "y"},
}
TERMS = ("licence_url", "fee_due", "acceptance_due", "output_restrictions")
TAKEN = {
    "PATCH projects/support/": {
        "name", "description", "form", "bench", "quality", "overlap", "lease_seconds", "eval_share", "guideline", "state",
        "allows_revision",
    },
    "POST projects/": {"slug", "name", "description", "form", "bench", "quality", "overlap", "lease_seconds", "eval_share", "guideline"},
    "POST projects/support/members/": {"username", "role", "languages", "skills"},
    "PATCH projects/support/members/annotator/": {"languages", "skills"},
    "POST projects/support/pools/": {"name", "languages", "skills", "people"},
    "POST projects/support/tasks/assign/": {"tasks", "where", "pool", "people", "priority"},
    "POST projects/support/members/annotator/pause/": {"reason"},
    "POST projects/support/members/annotator/reinstate/": {"to_qualify", "restore"},
    "POST projects/support/members/annotator/set-aside/": {"reason", "since", "until"},
    "POST projects/support/gold/": {"task", "prompt", "completions", "text", "texts", "expected", "explanation"},
    "POST projects/support/webhooks/": {"url", "events", "description"},
    "POST projects/support/endpoints/": {
        "name", "url", "served_model", "revision", "model", "licence", "key", "concurrency", "requests_per_minute",
        "tokens_per_minute", "timeout_seconds", "prompt_price", "new_price", "currency",
    },
    "POST projects/support/tasks/": {"kind", "overlap", "prompts", "pool", "people", "priority"},
    "POST projects/support/leases/": set(),
    "POST projects/support/snapshots/": {"name", "filters", "policy"},
    "POST projects/support/runs/": {"kind", "spec", "snapshot", "model", "inputs"},
    "POST projects/support/runs/estimate/": {"kind", "spec", "snapshot", "model", "inputs"},
    "POST projects/support/iterations/": {"policy_before", "config"},
    "POST models/": {"name", "folder", "licence", "source", *TERMS},
    "POST projects/support/models/import/": {"name", "folder", "kind", "licence", "base", "source", *TERMS},
    "POST auth/token/": {"username", "password"},
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_every_other_field_of_every_model_is_refused_by_name(call, filled_project, lead, stranger, settings):
    lead.is_staff = True
    lead.save()
    caller = Caller(lead)
    before = model_to_dict(Project.objects.get())
    method, path = call.split()
    others = {name: 1 for name in FIELDS if name not in TAKEN[call]}
    answer = caller.call(method, path, {**CALLS[call], **others})
    assert answer.status_code == 400
    assert set(others) <= set(answer.json()["error"]["fields"])
    assert Project.objects.count() == 1 and model_to_dict(Project.objects.get()) == before


def test_a_judgement_takes_no_field_of_its_row(filled_project, annotator, other_annotator):
    caller = Caller(annotator)
    lease = take_lease(project=filled_project, annotator=annotator)
    good = {"ranking": [["a"], ["b"], ["c"]]}
    known = {"ranking", "seconds", "flags", "ratings", "strength", "acceptable", "corrections", "rationale", "none_acceptable"}
    others = {name: 1 for name in FIELDS if name not in known}
    answer = caller.post(f"leases/{lease.pk}/judgement/", {**good, **others}, Idempotency_Key="k")
    assert answer.status_code == 400 and set(others) <= set(answer.json()["error"]["fields"])
    assert not Judgement.objects.exists()
    judge_all(filled_project, annotator, limit=1)
    first = Judgement.objects.get()
    answer = caller.post(f"judgements/{first.pk}/revision/", {**good, **others}, Idempotency_Key="k2")
    assert answer.status_code == 400 and Judgement.objects.count() == 1
