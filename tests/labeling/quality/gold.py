"""Gold tasks for tests, and people who answer them well or badly."""

from labeling.annotation.models import Lease
from labeling.annotation.services import submit_judgement
from labeling.projects.models import Project, Prompt
from labeling.projects.services import change_project
from labeling.quality.models import GoldAnswer
from labeling.quality.services import write_gold

ALWAYS = {"gold_rate": 0.5, "repeat_rate": 0.5}


def write(project: Project, n: int, *, start: int = 0, n_completions: int = 3) -> list[GoldAnswer]:
    """Gold tasks whose completions are right in the order in which they were written."""
    return [
        write_gold(
            project=project, messages=[{"role": "user", "content": f"Where is my golden parcel {number}?"}],
            completions=[f"Answer {index} about golden parcel {number}." for index in range(n_completions)],
            expected={"ranking": [[place] for place in range(n_completions)]}, explanation="The *first* is kind.",
            written_by=project.created_by,
        )
        for number in range(start, start + n)
    ]  # fmt: skip


def set_quality(project: Project, **settings: object) -> None:
    change_project(project=project, quality={**project.quality, **settings})


def body_of(lease: Lease, *, well: bool = True) -> dict:
    """Completions by their ids, which is right for gold, or the other way round."""
    shown = sorted(zip(lease.order_shown, "abcdefghi", strict=False), reverse=not well)
    return {"ranking": [[key] for _pk, key in shown], "seconds": 5.0}


def answer(lease: Lease, *, well: bool = True, **more: object):
    return submit_judgement(lease=lease, submission_key=f"key-{lease.pk}", body=body_of(lease, well=well), **more)


def is_gold(lease: Lease) -> bool:
    return lease.task.is_gold


def prompts(project: Project) -> list[Prompt]:
    return list(Prompt.objects.filter(project=project).order_by("pk"))
