"""Every address of the site, by every kind of caller, by every method, against the table in routes.py."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver
from django.urls.resolvers import URLResolver

from labeling.accounts.models import ApiToken
from labeling.accounts.services import create_token
from labeling.annotation.models import Judgement
from labeling.annotation.services import create_pool, take_lease
from labeling.conversation.models import Conversation, Turn
from labeling.images.services import store_image
from labeling.preferences.freezes import start_freeze
from labeling.preferences.services import create_snapshot
from labeling.preferences.withdrawal import withdraw_person
from labeling.projects.services import pseudonym_of
from labeling.quality.services import adjudicate, create_gold
from labeling.webhooks.models import Delivery
from labeling.webhooks.services import create_webhook
from tests import factories
from tests.labeling.images.pictures import png
from tests.security.routes import METHODS, ROUTES, Api, Page, Public
from tests.training.runs.reports import small_report
from training.endpoints.models import Endpoint
from training.features.models import Encoder
from training.loop.models import Iteration
from training.registry.models import ModelImport, ModelVersion
from training.runs.models import Run

WITHOUT_LOGIN = ("anonymous", "expired", "read_only")  # on pages: a token opens none
WITHOUT_TOKEN = ("anonymous", "session", "expired")
ADMIN_PARTS = {"app_label": "auth", "content_type_id": "1", "object_id": "1", "url": "nothing", "id": "1"}


def all_routes(resolver: Any = None, prefix: str = "") -> Iterator[str]:
    for item in (resolver or get_resolver()).url_patterns:
        route = prefix + str(item.pattern)
        if isinstance(item, URLResolver):
            yield from all_routes(item, route)
        else:
            yield route


@pytest.fixture
def world(project, lead, annotator, reviewer, engineer, stranger):
    """One of everything in the project `support`; the lease, judgement and token are the annotator's."""
    factories.fill_project(project, 12)
    factories.judge_all(project, annotator, limit=10)
    snapshot = create_snapshot(project=project, created_by=lead)
    lease = take_lease(project=project, annotator=annotator)
    base = ModelVersion.objects.create(name="small", version=1, key="small@1", kind="base", folder="x")
    model = ModelVersion.objects.create(
        name="p", version=1, key="p@1", kind="policy", project=project, base=base, parent=base, snapshot=snapshot, folder="x",
        files={"config.json": "0" * 64},
    )  # fmt: skip
    result = {"report": small_report()}
    run = Run.objects.create(project=project, kind="reward", model=base, output_model=model, result=result)
    taken_in = ModelImport.objects.create(project=project, wanted={"name": "m", "kind": "policy"})
    iteration = Iteration.objects.create(project=project, number=1, policy_before=base)
    talk = Conversation.objects.create(project=project, annotator=annotator, client_key="k", max_turns=3)
    Turn.objects.create(conversation=talk, number=1, client_key="k", content="Hello", speakers=[])
    token, _ = create_token(user=annotator, name="theirs")
    judged = Judgement.objects.first().task
    note = adjudicate(task=judged, by=lead, submission_key="k" * 8, outcome="left", note_to_guideline="Say more")
    picture, _ = store_image(project=project, file=png(), name="a.png", uploaded_by=lead)
    prompt = project.prompts.first()
    completions = list(prompt.completions.values_list("pk", flat=True))
    gold = create_gold(project=project, prompt=prompt, completion_ids=completions, expected={"ranking": [[pk] for pk in completions]})
    withdrawal, _ = withdraw_person(project=project, annotator=reviewer, by=lead)
    # Its address is refused before anything is sent.
    webhook, _ = create_webhook(project=project, url="https://example.org/", events=["run"])
    type(webhook).objects.update(url="https://127.0.0.1/")
    delivery = Delivery.objects.create(webhook=webhook, event="run", body="{}")
    return {
        "withdrawal_id": withdrawal.pk, "freeze_id": start_freeze(project=project, created_by=lead).pk,
        "encoder_id": Encoder.objects.create(project=project, model=base, layer=1, pooling="mean").pk,
        "endpoint_id": Endpoint.objects.create(project=project, name="gpu", model=base, url="https://127.0.0.1/v1", served_model="m").pk,
        "webhook_id": webhook.pk, "delivery_id": delivery.pk,
        "pool_id": create_pool(project=project, name="Law", skills=["law"]).pk,
        "gold_id": gold.pk, "username": reviewer.username, "file": "config.json",
        "slug": project.slug, "language": "de", "lease_id": lease.pk, "judgement_id": Judgement.objects.first().pk,
        "snapshot_id": snapshot.pk, "run_id": run.pk, "model_id": model.pk, "iteration_id": iteration.pk, "number": 1,
        "prompt_id": project.prompts.first().pk, "import_id": project.imports.first().pk, "model_import_id": taken_in.pk, "token_id": token.pk,
        "conversation_id": talk.public_id, "pseudonym": pseudonym_of(project, annotator),
        "user_id": reviewer.pk, "image_id": picture.public_id,
        "task_id": judged.public_id, "adjudication_id": note.adjudication.pk, "split": "train", "kind": "jsonl", "format": "jsonl", "view": "preference",
    }  # fmt: skip


@pytest.fixture
def people(lead, annotator, reviewer, engineer, stranger):
    admin = factories.make_user("admin", is_staff=True)
    return {
        "annotator": annotator, "reviewer": reviewer, "engineer": engineer, "lead": lead, "stranger": stranger,
        "admin": admin,
    }  # fmt: skip


@pytest.fixture
def by_token(people, lead):
    """Caller to client for the API."""
    tokens = {name: factories.token_for(user) for name, user in people.items()}
    tokens["expired"] = factories.token_for(lead, lifetime=timedelta(seconds=-1))
    tokens["read_only"] = factories.token_for(lead, [ApiToken.Scope.READ])
    clients = {name: Client(headers={"Authorization": f"Bearer {text}"}, raise_request_exception=False) for name, text in tokens.items()}
    clients["anonymous"] = Client(raise_request_exception=False)
    clients["session"] = logged_in(lead)
    return clients


@pytest.fixture
def by_session(people, by_token):
    """Caller to client for pages."""
    clients = {name: logged_in(user) for name, user in people.items()}
    return clients | {name: by_token[name] for name in WITHOUT_LOGIN}


def logged_in(user: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def address(route: str, parts: dict[str, Any]) -> str:
    return "/" + re.sub(r"<\w+:(\w+)>", lambda found: str(parts[found[1]]), route)


def ask(client: Client, method: str, path: str) -> Any:
    """The answer; whatever the request did is undone."""
    with transaction.atomic():
        response = client.generic(method, path, b"", content_type="application/json" if "/api/" in path else "application/x-www-form-urlencoded")
        if response.streaming:
            b"".join(response.streaming_content)
        transaction.set_rollback(True)
    return response


def refused_page(response: Any) -> bool:
    return response.status_code in (403, 404, 405) or sent_to_login(response)


def sent_to_login(response: Any) -> bool:
    return response.status_code == 302 and "/login/" in response["Location"]


def wrong_answer(rule: Page | Public | Api, caller: str, method: str, response: Any) -> str:
    """What is wrong with the answer, or an empty string."""
    status = response.status_code
    if status >= 500:
        return "a server error"
    if isinstance(rule, Public):
        # What the other methods answer says nothing about anybody.
        return "should be open to everyone" if method in rule.methods and status in (403, 404, 405) else ""
    if isinstance(rule, Page):
        if caller in rule.allowed(method):
            return "should get through" if refused_page(response) else ""
        if caller in WITHOUT_LOGIN and method in ("GET", "POST"):
            # A page for POST alone may say so before it asks who one is.
            return "" if sent_to_login(response) or status in (403, 405) else "should be sent to the log-in"
        return "" if refused_page(response) else "should be refused"
    allowed = rule.allowed(method)
    if caller in WITHOUT_TOKEN:
        expected = {401}
    elif caller == "read_only" and method != "GET":
        expected = {403}
    else:
        role = "lead" if caller == "read_only" else caller
        if allowed is None:
            expected = {405}
        elif role in allowed:
            return "should get through" if status in (401, 403, 404, 405) else ""
        else:
            expected = {403} if role in rule.sees else {404}
    return "" if status in expected else f"should be {expected}"


def test_every_route_is_in_the_table_and_the_table_names_no_other():
    found = {route for route in all_routes() if not route.startswith("admin/")}
    missing = sorted(found - set(ROUTES))
    assert not missing, "Add a row to ROUTES in tests/security/routes.py (its docstring shows how) for:\n" + "\n".join(
        f'    "{route}": Page(get=READING),' for route in missing
    )
    assert not set(ROUTES) - found, f"These routes are gone: take them out of routes.py: {sorted(set(ROUTES) - found)}"


def test_every_route_answers_each_caller_as_the_table_says(world, by_token, by_session):
    wrong = []
    for route, rule in ROUTES.items():
        path = address(route, world)
        clients = by_token if isinstance(rule, Api | Public) else by_session
        for method in METHODS:
            for caller, client in clients.items():
                # Methods that no page has are asked by three only: a framework answers them.
                if isinstance(rule, Page) and method not in ("GET", "POST") and caller not in ("anonymous", "annotator", "lead"):
                    continue
                response = ask(client, method, path)
                if problem := wrong_answer(rule, caller, method, response):
                    wrong.append(f"{method} {route} by {caller}: {response.status_code}, {problem}")
    assert not wrong, "\n".join(wrong)


def test_every_page_that_changes_something_refuses_a_form_without_its_token(world, lead, annotator):
    for route, rule in ROUTES.items():
        if isinstance(rule, Page) and rule.post:
            client = Client(enforce_csrf_checks=True)
            client.force_login(annotator if "annotator" in rule.post else lead, backend="django.contrib.auth.backends.ModelBackend")
            assert ask(client, "POST", address(route, world)).status_code == 403, route


def test_the_admin_is_for_staff_alone(by_session, by_token):
    """One rule for all its routes: whoever is not staff is sent to its log-in or refused."""
    wrong = []
    for route in all_routes():
        if not route.startswith("admin/"):
            continue
        path = re.sub(r"<\w+:(\w+)>", "1", route)
        path = "/" + re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda found: ADMIN_PARTS.get(found[1], "1"), path).translate(
            {ord(mark): None for mark in "^$"}
        )
        for caller in ("anonymous", "stranger", "annotator", "lead", "expired"):
            for method in ("GET", "POST"):
                response = ask(by_session[caller], method, path)
                opens = path in ("/admin/login/", "/admin/logout/") and response.status_code in (200, 302)
                if not (opens or refused_page(response)):
                    wrong.append(f"{method} {path} by {caller}: {response.status_code}")
    assert not wrong, "\n".join(wrong)
    for path in ("/admin/", "/admin/accounts/user/", "/admin/annotation/judgement/"):
        assert ask(by_session["admin"], "GET", path).status_code in (200, 404)


def test_nothing_of_another_project_leaks_through_a_list(world, by_token, stranger):
    """A stranger with a project of their own sees nothing of `support` anywhere."""
    factories.make_project(stranger, slug="elsewhere")
    for route, rule in ROUTES.items():
        if isinstance(rule, Api) and rule.get is not None:
            response = ask(by_token["stranger"], "GET", address(route, world).replace("/support/", "/elsewhere/"))
            body = b"" if response.streaming else response.content
            assert b"support" not in body and b"parcel" not in body, route
