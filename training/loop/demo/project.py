"""The demo's people, project and configuration."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from labeling.accounts.models import User
from labeling.accounts.roles import Role
from labeling.accounts.services import create_token, create_user
from labeling.imports.services import import_rows
from labeling.projects.models import Project
from labeling.projects.selectors import projects_of
from labeling.projects.services import add_member, create_project

HERE = Path(__file__).parent
SLUG = "larkfell"
PEOPLE = {"annotator": Role.ANNOTATOR, "lead": Role.LEAD, "engineer": Role.ENGINEER}
SIMULATED = {"simulated-1": 1, "simulated-2": 2}  # account and seed


@dataclass(frozen=True)
class Cast:
    """Who takes part: passwords of the people, tokens of the simulated annotators."""

    passwords: dict[str, str]
    tokens: dict[str, str]


def make_cast() -> Cast:
    """Make the accounts, or remember those made before; what they log in with is kept for the operator alone."""
    path = Path(settings.HOME) / "keys" / "demo-people.json"
    known = json.loads(path.read_text()) if path.exists() else {"passwords": {}, "tokens": {}}
    for name in PEOPLE:
        if name in known["passwords"] and User.objects.filter(username=name).exists():
            continue
        password = secrets.token_urlsafe(9)
        if user := User.objects.filter(username=name).first():
            user.set_password(password)
            user.save(update_fields=["password"])
        else:
            create_user(username=name, password=password, is_staff=name == "lead")
        known["passwords"][name] = password
    for name in SIMULATED:
        user = User.objects.filter(username=name).first() or create_user(username=name, kind=User.Kind.SIMULATED)
        if name not in known["tokens"] or not user.tokens.filter(revoked_at=None).exists():
            known["tokens"][name] = create_token(
                user=user, name="demo", scopes=["annotate", "read"], project_slug=SLUG
            )[1]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(known, file, indent=1)
    return Cast(known["passwords"], known["tokens"])


def demo_prompts(scale: "Scale") -> list[bytes]:
    """Lines of prompts.jsonl: as many of the training side and of the held-out side as the scale has."""
    sides: dict[bool, list[bytes]] = {True: [], False: []}
    for line in (HERE / "prompts.jsonl").read_bytes().splitlines():
        sides["heldout" in json.loads(line)["tags"]].append(line)
    return sides[False][: scale.n_train] + sides[True][: scale.n_heldout]


def make_project(scale: "Scale") -> Project:
    """The project with its guideline, members and prompts. What is there already stays as it is."""
    lead = User.objects.get(username="lead")
    with transaction.atomic():
        project = projects_of(lead).filter(slug=SLUG).first()
        if project is None:
            project = create_project(
                slug=SLUG,
                name="Larkfell support desk",
                description="Replies to the customers of a small shop for outdoor and household goods.",
                created_by=lead,
                overlap=2,
                eval_share=scale.eval_share,
                form={"rationale": "optional"},
                guideline=(HERE / "guideline.md").read_text(),
            )
        for name, role in PEOPLE.items():
            if name != "lead":
                add_member(project=project, user=User.objects.get(username=name), role=role)
        for name in SIMULATED:
            add_member(project=project, user=User.objects.get(username=name), role=Role.ANNOTATOR)
    if not project.prompts.exists():
        import_rows(
            project=project, format="prompts", lines=demo_prompts(scale), created_by=lead, filename="prompts.jsonl"
        )
    return project


@dataclass(frozen=True)
class Scale:
    """How large the demo is: the real one, or a small one for tests on a tiny random model."""

    n_train: int | None
    n_heldout: int
    eval_share: float
    config: dict[str, Any]


def scale(*, tiny: bool, seed: int) -> Scale:
    """The iteration's configuration. `seed` is of everything random in it."""
    if tiny:
        return Scale(
            n_train=12,
            n_heldout=8,
            eval_share=0.4,
            config={
                "completions_per_task": 4,
                "overlap": 1,
                "n_compare_train": 3,
                "n_heldout": 8,
                "sample": {"max_new_tokens": 24, "temperature": 1.5, "seed": seed},
                "reward": {"layer": 1, "seed": seed},
                "policy": {"max_steps": 3, "per_device_train_batch_size": 4, "sample_every_steps": 0, "seed": seed},
            },
        )
    return Scale(
        n_train=None,
        n_heldout=64,
        eval_share=0.2,
        config={
            "completions_per_task": 4,
            "n_compare_train": 20,
            "n_heldout": 64,
            "sample": {"max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95, "seed": seed},
            "compare_sample": {"temperature": 0.7, "seed": seed + 1},
            "compare_overlap": len(SIMULATED),
            "reward": {"seed": seed},
            "policy": {"seed": seed},
        },
    )
