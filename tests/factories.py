"""Small projects for tests, made by the same services that the pages use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeling.accounts.models import ApiToken, User
from labeling.accounts.roles import Role
from labeling.accounts.services import create_token, create_user
from labeling.annotation.models import Task
from labeling.annotation.services import create_tasks_for_prompts, submit_judgement, take_lease
from labeling.imports.services import import_rows
from labeling.projects.models import Project, Prompt
from labeling.projects.services import add_member, create_project
from labeling.projects.text import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSWORD = "correct horse battery"


def make_user(username: str, **extra: object) -> User:
    return create_user(username=username, password=PASSWORD, **extra)


def make_project(
    lead: User, *, slug: str = "support", members: dict[User, str] | None = None, **extra: object
) -> Project:
    project = create_project(
        slug=slug, name="Support replies", created_by=lead, guideline="Prefer *short* and kind.", **extra
    )
    for user, role in (members or {}).items():
        add_member(project=project, user=user, role=role)
    return project


def completions_rows(n: int, n_completions: int = 3, *, start: int = 0, model: str = "tiny@1") -> list[bytes]:
    """JSON lines in the `completions` import format."""
    words = (
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "heath",
        "inlet",
        "juniper",
        "kelp",
        "larch",
        "moss",
        "nettle",
        "oak",
        "pine",
        "quartz",
    )
    return [
        canonical_json(
            {
                "id": f"p{number}",
                "prompt": f"Where is my {words[number % len(words)]} parcel {words[(number // len(words)) % len(words)]} {'x' * (number // 289)}?",
                "licence": "CC0-1.0",
                "source": "tests",
                "tags": ["delivery"],
                "completions": [
                    {"content": f"Answer {index} about parcel {number}.", "model": model, "sampling": {"seed": index}}
                    for index in range(n_completions)
                ],
            }
        ).encode()
        for number in range(start, start + n)
    ]


def fill_project(project: Project, n: int = 5, *, n_completions: int = 3, overlap: int = 1) -> list[Task]:
    """Prompts with completions, and a ranking task over each."""
    import_rows(
        project=project, format="completions", lines=completions_rows(n, n_completions), created_by=project.created_by
    )
    create_tasks_for_prompts(
        project=project,
        prompts=Prompt.objects.filter(project=project),
        completions_per_task=n_completions,
        overlap=overlap,
    )
    return list(project.tasks.order_by("pk"))


def judge_all(project: Project, annotator: User, *, limit: int = 10_000) -> int:
    """Rank every task left for the annotator in the order of completion ids. Returns how many."""
    count = 0
    while count < limit and (lease := take_lease(project=project, annotator=annotator)):
        keys = "abcdefghi"[: len(lease.order_shown)]
        order = sorted(keys, key=lambda key: lease.order_shown["abcdefghi".index(key)])
        body = {"ranking": [[key] for key in order], "seconds": 5.0}
        submit_judgement(lease=lease, submission_key=f"{annotator.pk}-{lease.pk}", body=body)
        count += 1
    return count


def token_for(user: User, scopes: Sequence[str] = tuple(ApiToken.Scope.values), **extra: object) -> str:
    return create_token(user=user, name="test", scopes=scopes, **extra)[1]


__all__ = [
    "PASSWORD",
    "Role",
    "completions_rows",
    "fill_project",
    "judge_all",
    "make_project",
    "make_user",
    "token_for",
]
