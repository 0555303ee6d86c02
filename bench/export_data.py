"""A project of judged pairs in an empty database, put there in bulk: data for benchmarks of what comes out again.

Texts are as long as those of hh-rlhf: prompts of some 360 characters in one to five turns, completions of some 270, a
few of them much longer. Each prompt has two completions by two of four models, and one judgement by one of a hundred
annotators. The same numbers make the same texts.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

N_ANNOTATORS = 100
MODELS = ("model-a@1", "model-b@1", "model-a@2", "model-c@4")
LICENCES = ("MIT", "CC-BY-4.0", "")
BATCH_ROWS = 20_000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def judged_pairs(n: int, *, say: Callable[[str], object] = lambda line: None) -> Any:
    """Fill the database that Django is set up on. Gives the project."""
    from labeling.accounts.models import User
    from labeling.projects.grouping import regroup
    from labeling.projects.services import add_member
    from tests import factories

    began = time.perf_counter()
    lead = factories.make_user("lead")
    project = factories.make_project(lead, slug="bench")
    people = User.objects.bulk_create(User(username=f"annotator-{number}", password="!") for number in range(N_ANNOTATORS))
    for user in people:
        add_member(project=project, user=user, role="annotator")
    _insert(_Rows(project, people[0].pk, n))
    regroup(project)
    say(f"{n:,} judged pairs in {time.perf_counter() - began:.0f} s")
    return project


class Texts:
    """Texts of given lengths, cut from one long text of words."""

    def __init__(self) -> None:
        chance = random.Random(5)
        letters = "etaoinshrdlucmfwypvbgk"
        words = ["".join(chance.choices(letters, range(len(letters), 0, -1), k=chance.randint(2, 9))) for _ in range(3000)]
        self.all = " ".join(chance.choices(words, k=400_000))
        self.chance = chance

    def of(self, mean: float) -> str:
        """Log-normal, the median well below the mean."""
        length = min(8000, max(2, int(mean * self.chance.lognormvariate(-0.4, 0.9))))
        at = self.chance.randrange(len(self.all) - length)
        return self.all[at : at + length].strip() or "yes"


class _Rows:
    """The rows of each table, prompt by prompt. One prompt's rows are made together, so tables are made in one pass."""

    TABLES = (
        "projects_prompt", "projects_completion", "annotation_task", "annotation_taskcompletion", "annotation_slot",
        "annotation_lease", "annotation_judgement",
    )  # fmt: skip

    def __init__(self, project: Any, first_annotator: int, n: int) -> None:
        self.project, self.first, self.n = project, first_annotator, n
        self.texts = Texts()

    def __iter__(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        chance = self.texts.chance
        project, guideline = self.project.pk, self.project.guideline_id
        for number in range(1, self.n + 1):
            at = BEGAN + timedelta(seconds=20 * number, microseconds=number % 1_000_000)
            first, second = 2 * number - 1, 2 * number
            order = [first, second] if number % 2 else [second, first]
            best = first if chance.random() < 0.6 else second
            annotator = self.first + number * 7 % N_ANNOTATORS
            messages = []
            for turn in range(chance.choice((1, 1, 3, 3, 5))):
                role = "assistant" if turn % 2 else "user"
                messages.append({"role": role, "content": self.texts.of(160 if turn % 2 else 110)})
            yield {
                "projects_prompt": [
                    {
                        "id": number, "project_id": project, "external_id": f"p{number}", "messages": _json(messages),
                        "content_hash": f"{number:064x}", "group_id": f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}",
                        "source": "bench", "licence": LICENCES[number % 3], "tags": '["helpful"]', "batch_id": None,
                        "created_at": at,
                    }
                ],
                "projects_completion": [
                    {
                        "id": pk, "prompt_id": number, "content": self.texts.of(270), "content_hash": f"{pk:064x}",
                        "model_key": MODELS[pk % 4],
                        "sampling": _json({"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 512, "seed": pk}),
                        "author_id": None, "corrects_id": None, "batch_id": None, "created_at": at,
                    }
                    for pk in (first, second)
                ],
                "annotation_task": [
                    {
                        "id": number, "public_id": f"{number * 0x5851F42D4C957F2D % 2**64:016x}", "project_id": project,
                        "prompt_id": number, "kind": "ranking", "purpose": "preference", "overlap": 1, "priority": 0,
                        "state": "done", "n_judged": 1, "pool_id": None, "repeats_id": None, "iteration": 1,
                        "content_hash": f"{number:064x}", "created_at": at,
                    }
                ],
                "annotation_taskcompletion": [
                    {"id": pk, "task_id": number, "completion_id": pk} for pk in (first, second)
                ],
                "annotation_slot": [
                    {
                        "id": number, "task_id": number, "project_id": project, "pool_id": None, "number": 1,
                        "position": None, "state": "done", "expires_at": None, "holder_id": annotator,
                    }
                ],
                "annotation_lease": [
                    {
                        "id": number, "slot_id": number, "task_id": number, "annotator_id": annotator,
                        "guideline_id": guideline, "order_shown": _json(order), "state": "done", "expires_at": at,
                        "draft": None, "skip_reason": "", "skip_note": "", "created_at": at, "closed_at": at,
                    }
                ],
                "annotation_judgement": [
                    {
                        "id": number, "project_id": project, "task_id": number, "slot_id": number, "lease_id": number,
                        "annotator_id": annotator, "annotator_kind": "human", "guideline_id": guideline,
                        "submission_key": f"k{number}", "body_hash": "", "order_shown": _json(order),
                        "ranking": _json([[best], [first + second - best]]), "feedback": "{}",
                        "seconds": 5 + number % 400 / 8, "supersedes_id": None, "created_at": at,
                    }
                ],
            }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value)


def _insert(rows: _Rows) -> None:
    from django.core.management.color import no_style
    from django.db import connection, transaction

    from labeling.annotation.models import Judgement, Lease, Slot, Task, TaskCompletion
    from labeling.projects.models import Completion, Prompt

    connection.ensure_connection()
    is_postgresql = connection.vendor == "postgresql"
    made = iter(rows)
    # What the rows name is in the tables before them or comes with them: nothing is there to check.
    if not is_postgresql:
        connection.connection.execute("PRAGMA foreign_keys=OFF")
    with transaction.atomic(), connection.cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET LOCAL session_replication_role = replica")
        while batch := list(islice(made, BATCH_ROWS)):
            for table in rows.TABLES:
                values = [row for one in batch for row in one[table]]
                columns = list(values[0])
                names = ", ".join(f'"{column}"' for column in columns)
                if is_postgresql:
                    with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                        for row in values:
                            copy.write_row(list(row.values()))
                else:
                    marks = ", ".join("?" * len(columns))
                    connection.connection.executemany(
                        f"INSERT INTO {table} ({names}) VALUES ({marks})",
                        ([_as_text(value) for value in row.values()] for row in values),
                    )
        if is_postgresql:
            tables = [Prompt, Completion, Task, TaskCompletion, Slot, Lease, Judgement]
            for statement in connection.ops.sequence_reset_sql(no_style(), tables):
                cursor.execute(statement)
    if is_postgresql:
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    else:
        connection.connection.execute("PRAGMA foreign_keys=ON")


def _as_text(value: Any) -> Any:
    """A time as Django keeps it in SQLite."""
    return str(value.replace(tzinfo=None)) if isinstance(value, datetime) else value
