"""What there is in a project to choose from for a snapshot, each with how many judgements it has."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Sum

from labeling.accounts.models import User
from labeling.annotation.models import Task
from labeling.projects.models import Project
from labeling.projects.services import pseudonym_of
from labeling.web.remembering import remembered

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Choice:
    """`kind`: of an annotator who is no person; empty for people and for all else."""

    value: str
    label: str
    n: int | None
    kind: str = ""


Choices = dict[str, list[Choice]]


def choices_of(project: Project) -> Choices:
    """By filter, the most judged first. Five queries; those of a large project are remembered for some seconds."""
    return remembered(
        f"snapshot-choices:{project.pk}",
        lambda: _choices_of(project),
        n=lambda found: sum(choice.n for choice in found["annotators"]),
    )


def _choices_of(project: Project) -> Choices:
    tasks = project.tasks.filter(purpose__in=Task.COLLECTED, n_judged__gt=0).order_by()

    def judged_by(column: str) -> list[tuple[Any, int]]:
        return list(tasks.values_list(column).annotate(n=Sum("n_judged")))

    tags: Counter[str] = Counter()
    for of_prompt, n in judged_by("prompt__tags"):
        for tag in set(of_prompt):
            tags[tag] += n
    judged = dict(project.judgements.current().order_by().values_list("annotator").annotate(n=Count("pk")))
    people = [
        Choice(pseudonym_of(project, user), user.username, judged[user.pk], "" if user.is_person else user.kind)
        for user in User.objects.filter(pk__in=judged)
    ]
    iterations = [Choice(str(number), f"#{number}", n) for number, n in sorted(judged_by("iteration"))]
    return {
        "iterations": iterations,
        "tags": _sorted(Choice(tag, tag, n) for tag, n in tags.items()),
        "sources": _sorted(Choice(source, source or UNKNOWN, n) for source, n in judged_by("prompt__source")),
        "licences": _sorted(Choice(licence, licence or UNKNOWN, n) for licence, n in judged_by("prompt__licence")),
        "annotators": _sorted(people),
        "without_flags": [Choice(flag, flag, None) for flag in project.form["flags"]],
    }


def _sorted(choices: Any) -> list[Choice]:
    return sorted(choices, key=lambda choice: (-choice.n, choice.label))
