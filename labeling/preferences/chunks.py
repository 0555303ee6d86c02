"""What the rows of a snapshot are made of, read from the database some hundred tasks at a time.

Which judgements are chosen is asked once; each chunk then names its rows by id, in three statements (four where
reviewers settled something), whatever the filters and however large the project. Larger chunks are no faster: their
texts don't fit into the processor's caches.
"""

from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Task, TaskCompletion
from labeling.database.reading import OneState
from labeling.preferences.filters import Filters, Policy, adjudications_chosen, judgements_chosen
from labeling.projects.models import Completion, Guideline, Project, Prompt

CHUNK_TASKS = 250
BATCH_IDS = 10_000


class ReadCompletion(NamedTuple):
    """`sampling` is JSON; `author` and their kind, who wrote it, if an annotator did."""

    task: int
    pk: int
    content: str
    model_key: str
    sampling: str
    author: int | None
    author_kind: str | None


class ReadJudgement(NamedTuple):
    """`order_shown`, `ranking` and `feedback` are JSON; `at` is a datetime, or a text in UTC."""

    pk: int
    task: int
    annotator: int
    annotator_kind: str
    guideline: int | None
    order_shown: str
    ranking: str
    feedback: str
    seconds: float | None
    at: Any


class ReadAdjudication(NamedTuple):
    """`ranking` is JSON."""

    pk: int
    task: int
    ranking: str
    none_acceptable: bool
    blind: bool
    by: int
    by_kind: str
    at: Any


class ReadTask(NamedTuple):
    """`messages` is JSON. Completions and judgements are in the order of their ids, as the tuples named above hold them."""

    pk: int
    public_id: str
    iteration: int
    purpose: str
    prompt: int
    messages: str
    group_id: str
    licence: str
    completions: list[tuple[Any, ...]]
    judgements: list[tuple[Any, ...]]
    settled: ReadAdjudication | None


class Chosen:
    """The judgements that pass the filters, in the order of their tasks: 24 bytes each."""

    def __init__(self, state: OneState, project: Project, filters: Filters, policy: Policy) -> None:
        rows = judgements_chosen(project, filters, policy).order_by("task", "pk")
        ids = array("q")
        for batch in state.streamed(rows.values_list("pk", "task_id", "annotator_id"), BATCH_IDS):
            ids.extend(chain.from_iterable(batch))
        table = numpy.frombuffer(ids, dtype=numpy.int64).reshape(-1, 3) if ids else numpy.zeros((0, 3), numpy.int64)
        self.judgements, task, self.annotators = table.T
        self.tasks, begin = numpy.unique(task, return_index=True)
        self.begin = numpy.append(begin, len(task))

    def __len__(self) -> int:
        return len(self.judgements)


def chunks_of(
    state: OneState, project: Project, chosen: Chosen, filters: Filters, policy: Policy
) -> Iterator[list[ReadTask]]:
    """Each task with a chosen judgement, by id."""
    settled_ones = adjudications_chosen(project, filters)
    has_settled = policy["adjudications"] == "use" and state.count(settled_ones) > 0
    statements = _Statements(state)
    for start in range(0, len(chosen.tasks), CHUNK_TASKS):
        ids = chosen.tasks[start : start + CHUNK_TASKS].tolist()
        first, beyond = chosen.begin[start], chosen.begin[start + len(ids)]
        judgements = statements.judgements(chosen.judgements[first:beyond].tolist())
        completions = statements.completions(ids)
        settled: dict[int, ReadAdjudication] = {}
        if has_settled:
            rows = settled_ones.filter(task__in=ids).values_list(
                "pk", "task_id", "ranking", "none_acceptable", "blind", "by_id", "by__kind", "created_at"
            )
            settled = {row[1]: ReadAdjudication._make(row) for row in state.of(rows)}
        yield [
            ReadTask(*row, completions.get(row[0], []), judgements[row[0]], settled.get(row[0]))
            for row in statements.tasks(ids)
        ]


def guideline_versions(state: OneState, project: Project) -> dict[int | None, int | None]:
    """Id to version, none to none."""
    found = Guideline.objects.filter(project=project).values_list("pk", "version")
    return {None: None, **dict(state.of(found))}  # type: ignore[arg-type]


def _by_task(rows: list[tuple[Any, ...]], column: int) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found


class _Statements:
    """The three that every chunk asks, in SQL that is built once."""

    def __init__(self, state: OneState) -> None:
        self.state = state
        judgement, task, prompt, link, completion, user = (
            f'"{model._meta.db_table}"' for model in (Judgement, Task, Prompt, TaskCompletion, Completion, User)
        )
        at = "created_at" if state.is_postgresql else "CAST(created_at AS text)"  # else it is parsed, row by row
        self.of_judgements = (
            "SELECT id, task_id, annotator_id, annotator_kind, guideline_id, order_shown, ranking, feedback, seconds, "
            f"{at} FROM {judgement} WHERE {state.among('id')} ORDER BY id"
        )
        self.of_tasks = (
            "SELECT t.id, t.public_id, t.iteration, t.purpose, p.id, p.messages, p.group_id, p.licence "
            f"FROM {task} t JOIN {prompt} p ON p.id = t.prompt_id WHERE {state.among('t.id')} ORDER BY t.id"
        )
        self.of_completions = (
            "SELECT tc.task_id, c.id, c.content, c.model_key, c.sampling, c.author_id, u.kind "
            f"FROM {link} tc JOIN {completion} c ON c.id = tc.completion_id LEFT JOIN {user} u ON u.id = c.author_id "
            f"WHERE {state.among('tc.task_id')} ORDER BY tc.task_id, tc.completion_id"  # as the index has them
        )

    def judgements(self, ids: list[int]) -> dict[int, list[tuple[Any, ...]]]:
        return _by_task(self.state.rows(self.of_judgements, [self.state.ids(ids)]), 1)

    def completions(self, tasks: list[int]) -> dict[int, list[tuple[Any, ...]]]:
        return _by_task(self.state.rows(self.of_completions, [self.state.ids(tasks)]), 0)

    def tasks(self, ids: list[int]) -> list[tuple[Any, ...]]:
        return self.state.rows(self.of_tasks, [self.state.ids(ids)])
