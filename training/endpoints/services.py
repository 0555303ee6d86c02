"""Entering endpoints, changing how they are asked, and reaching them."""

import math
import re
from functools import partial
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from labeling.accounts.models import User
from labeling.live.services import notify
from labeling.projects.models import Project
from labeling.webhooks.addresses import BadAddress, Rules, check_found, read_address
from labeling.webhooks.sending import addresses_of
from training.endpoints.errors import BadEndpoint, Unreachable
from training.endpoints.keys import delete_key, read_key, write_key
from training.endpoints.models import Endpoint
from training.registry.models import ModelVersion
from training.registry.services import register_served_model
from training.sampling.openai_compatible import Endpoint as Place
from training.sampling.openai_compatible import EndpointError, served_models

MOST_A_PROJECT = 50
MAX_KEY = 4096
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# Lowest and highest value of what may be changed later.
WHOLE = {
    "concurrency": (1, 256), "requests_per_minute": (0, 1_000_000), "tokens_per_minute": (0, 1_000_000_000),
    "timeout_seconds": (1, 3600),
}  # fmt: skip
PRICES = {"prompt_price": (0, 100_000), "new_price": (0, 100_000)}
TEXTS = {"served_model": 200, "revision": 200, "licence": 80}


def rules() -> Rules:
    return Rules(hosts=tuple(settings.ENDPOINT_HOSTS), public=settings.ENDPOINT_PUBLIC)


def register_endpoint(
    *,
    project: Project,
    name: str,
    url: str,
    served_model: str,
    revision: str = "",
    model: ModelVersion | None = None,
    licence: str = "",
    key: str = "",
    created_by: User | None = None,
    **limits: Any,
) -> Endpoint:
    """Enter where a model is served. Without `model`, one whose weights are only there is entered with it.

    `limits` are the settings that `change_endpoint` takes. Raises BadEndpoint.
    """
    wrong = _wrong(served_model=served_model, revision=revision, licence=licence, key=key, **limits)
    if not NAME.fullmatch(name):
        wrong["name"] = "must be small letters, digits, - and _, at most 40"
    if not served_model:
        wrong["served_model"] = "is required: the name that the server knows the model by"
    try:
        target = read_address(url, rules())
        if "?" in target.path:
            wrong["url"] = "must end with its path, such as /v1"
        url = target.url.rstrip("/")
    except BadAddress as error:
        wrong["url"] = str(error)
    if model is None and not licence:
        wrong["licence"] = "is required for a model that is only served: its completions are data of this project"
    if model is not None and model.project_id not in (None, project.pk):
        wrong["model"] = "belongs to another project"
    elif model is not None and model.kind == ModelVersion.Kind.REWARD:
        wrong["model"] = "must be a base model, a policy or its GGUF file"
    if wrong:
        raise BadEndpoint(wrong)
    key_name = write_key(key) if key else ""
    try:
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)  # counts its endpoints one at a time
            if project.endpoints.count() >= MOST_A_PROJECT:
                raise BadEndpoint({"name": f"there are {MOST_A_PROJECT} endpoints already"})
            if project.endpoints.filter(name=name).exists():
                raise BadEndpoint({"name": "is taken, perhaps by one that is retired"})
            if model is None:
                model = register_served_model(
                    name=f"{project.slug}-{name}", project=project, licence=licence, source=served_model,
                    lineage={"served_model": served_model, "revision": revision, "endpoint": name},
                )  # fmt: skip
            endpoint = Endpoint.objects.create(
                project=project, name=name, model=model, url=url, served_model=served_model, revision=revision,
                key_name=key_name, created_by=created_by, **limits,
            )  # fmt: skip
            notify(project.live_group, "model", model=model.pk)
    except (BadEndpoint, IntegrityError):
        delete_key(key_name)
        raise
    return endpoint


def change_endpoint(*, endpoint: Endpoint, key: str | None = None, is_active: bool | None = None, **limits: Any) -> Endpoint:
    """Change limits, prices, whether it is used, or its key: None leaves it, an empty text takes it away.

    Raises BadEndpoint. A run under way keeps what it began with.
    """
    wrong = _wrong(key=key or "", **limits)
    if wrong:
        raise BadEndpoint(wrong)
    fields = dict(limits)
    if is_active is not None:
        fields["is_active"] = is_active
    earlier = ""
    if key is not None:
        earlier, fields["key_name"] = endpoint.key_name, write_key(key) if key else ""
    with transaction.atomic():
        Endpoint.objects.filter(pk=endpoint.pk).update(**fields)
        transaction.on_commit(partial(delete_key, earlier))
    endpoint.refresh_from_db()
    return endpoint


def _wrong(**fields: Any) -> dict[str, str]:
    """What is wrong with them, by name."""
    wrong = {}
    for name, value in fields.items():
        if name in WHOLE:
            low, high = WHOLE[name]
            if type(value) is not int or not low <= value <= high:
                wrong[name] = f"must be a whole number from {low} to {high}"
        elif name in PRICES:
            low, high = PRICES[name]
            if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
                wrong[name] = f"must be a number from {low} to {high}"
        elif name == "currency":
            if not re.fullmatch(r"([A-Z]{3})?", value):
                wrong[name] = "must be three capital letters, such as EUR"
        elif name == "key":
            if len(value) > MAX_KEY or not re.fullmatch(r"[\x21-\x7e]*", value):
                wrong[name] = "must be without spaces and line breaks, in ASCII"
        elif name not in TEXTS:
            wrong[name] = "can't be set"
        elif len(value) > TEXTS[name] or not value.isprintable():
            wrong[name] = f"must be at most {TEXTS[name]} characters on one line"
    return wrong


def wrong_use_of(
    *, project: Project, model: ModelVersion | None, endpoint_id: Any, spec: dict[str, Any]
) -> dict[str, str]:
    """What keeps a sample run from using this endpoint, or from using none, by field; empty: nothing."""
    if endpoint_id is None:
        wrong = {
            f"spec.{name}": "counts what an endpoint is asked for: choose one, too"
            for name in ("budget", "token_budget")
            if name in spec
        }
        if model is not None and not model.folder:
            wrong["endpoint"] = f"is required: the weights of {model.key} are not here"
        return wrong
    endpoint = project.endpoints.filter(pk=endpoint_id, is_active=True).select_related("model").first()
    if endpoint is None:
        return {"endpoint": "is none of this project's, or is retired"}
    wrong = {}
    if model is not None and endpoint.model_id != model.pk:
        wrong["endpoint"] = f"serves {endpoint.model.key}, not {model.key}"
    if "budget" in spec and not endpoint.has_prices:
        wrong["spec.budget"] = f"{endpoint.name} has no prices to count with: enter them, or use token_budget"
    if isinstance(spec.get("temperature"), int | float) and spec["temperature"] > 2:
        wrong["spec.temperature"] = "must be at most 2: that is the protocol's limit"
    return wrong


def reach(endpoint: Endpoint) -> Place:
    """The endpoint as the sampler takes it, with its key and with the addresses that its host has now, judged.

    A host that the operator lists is connected to wherever it is. Raises Unreachable.
    """
    try:
        target = read_address(endpoint.url, rules())
        addresses: tuple[str, ...] = ()
        if not rules().lists(target):
            addresses = tuple(map(str, check_found(addresses_of(target.host, target.port), target, rules())))
    except BadAddress as error:
        raise Unreachable(f"The address of {endpoint} {error}") from None
    except OSError:
        raise Unreachable(f"There is no host of the name in the address of {endpoint}") from None
    try:
        key = read_key(endpoint.key_name)
    except OSError:
        raise Unreachable(f"The key of {endpoint} is not on this machine: enter it again") from None
    return Place(
        url=endpoint.url, model=endpoint.served_model, name=endpoint.name, revision=endpoint.revision, key=key,
        addresses=addresses, concurrency=endpoint.concurrency, requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute, timeout_seconds=float(endpoint.timeout_seconds),
    )  # fmt: skip


def recipe_options(endpoint: Endpoint, place: Place) -> dict[str, Any]:
    """What the sample recipe is told: all but the key, which goes by its environment."""
    return {
        "endpoint": place.url, "endpoint_name": place.name, "served_model": place.model, "revision": place.revision,
        "addresses": list(place.addresses), "concurrency": place.concurrency,
        "requests_per_minute": place.requests_per_minute, "tokens_per_minute": place.tokens_per_minute,
        "timeout_seconds": place.timeout_seconds, "prompt_price": endpoint.prompt_price, "new_price": endpoint.new_price,
    }  # fmt: skip


def try_endpoint(endpoint: Endpoint) -> str:
    """Ask which models are there: a sentence on what was found. Raises Unreachable, within some 10 s."""
    try:
        names = served_models(reach(endpoint))
    except EndpointError as error:
        raise Unreachable(str(error)) from None
    if endpoint.served_model not in names:
        told = ", ".join(name[:80] for name in names[:5]) or "none"
        raise Unreachable(f"It answers, but doesn't serve {endpoint.served_model}; it serves: {told}")
    return f"answers and serves {endpoint.served_model}"
