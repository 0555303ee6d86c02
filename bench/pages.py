"""Pages of the console and the bench over a large project: milliseconds and SQL statements of each.

    python -m bench.pages --database postgresql          # a million judgements; some minutes, most of them filling
    python -m bench.pages --judgements 100000            # SQLite

The project has two judgements a task by a hundred annotators over sixty days, a third of the tasks contested, and is as a
site finds it: the worker's reports are computed, PostgreSQL has its statistics. Each page is asked for in this process,
first once, then `--repeats` times.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.serving import a_database, fill

N_ANNOTATORS = 100
BUDGET_MS, BUDGET_STATEMENTS = 300, 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--judgements", type=int, default=1_000_000, help="%(default)s")
    parser.add_argument("--repeats", type=int, default=7, help="%(default)s")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    with a_database(args.database):
        project = judged_project(args.judgements)
        rows = [measured(path, user, args.repeats) for path, user in pages(project)]
    print(f"{args.database}, {args.judgements:,} judgements, {args.repeats} requests a page; ms")
    print(f"{'page':<44}{'first':>8}{'median':>8}{'worst':>8}{'statements':>12}{'kB':>7}")
    for row in sorted(rows, key=lambda row: -row["median"]):
        over = "  <-" if row["median"] > BUDGET_MS or row["statements"] > BUDGET_STATEMENTS else ""
        print(
            f"{row['page']:<44}{row['first']:>8.0f}{row['median']:>8.0f}{row['worst']:>8.0f}"
            f"{row['statements']:>12}{row['kB']:>7.0f}{over}"
        )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def judged_project(n: int) -> Any:
    from django.db import connection, transaction

    from labeling.accounts.models import User
    from labeling.annotation.models import Judgement, Slot, Task
    from labeling.projects.services import add_member
    from labeling.quality.models import Look
    from labeling.quality.services import compute_due_reports, refresh_disagreements
    from tests import factories

    for number in range(N_ANNOTATORS):
        factories.make_user(f"annotator-{number}")
    began = time.perf_counter()
    project = fill(n // 2, overlap=2)
    add_member(project=project, user=factories.make_user("reviewer"), role="reviewer")
    first = User.objects.get(username="annotator-0").pk
    ago = (
        "datetime('now', '-' || {} || ' seconds')"
        if connection.vendor == "sqlite"
        else "now() - {} * interval '1 second'"
    )
    at = ago.format("(s.id * 977 % 5184000)")
    ids = "SELECT '[' || min(tc.completion_id) || ', ' || max(tc.completion_id) || ']' FROM annotation_taskcompletion tc WHERE tc.task_id = s.task_id"
    ids = f"({ids})" if connection.vendor == "sqlite" else f"CAST(({ids}) AS jsonb)"
    json_type = "text" if connection.vendor == "sqlite" else "jsonb"
    # The two of a task differ in a third of the tasks.
    said = (
        "SELECT CASE WHEN s.number = 2 AND s.task_id % 3 = 0 THEN '[[' || max(tc.completion_id) || '], [' || min(tc.completion_id) || ']]'"
        " ELSE '[[' || min(tc.completion_id) || '], [' || max(tc.completion_id) || ']]' END"
        " FROM annotation_taskcompletion tc WHERE tc.task_id = s.task_id"
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO annotation_lease (slot_id, task_id, annotator_id, guideline_id, order_shown, state, expires_at,
                draft, skip_reason, skip_note, created_at, closed_at)
            SELECT s.id, s.task_id, {first} + (s.task_id * 7 + s.number * 31) % {N_ANNOTATORS}, {project.guideline_id}, {ids},
                'done', {at}, NULL, '', '', {at}, {at}
            FROM annotation_slot s WHERE s.project_id = {project.pk}"""
        )
        cursor.execute(
            f"""INSERT INTO annotation_judgement (project_id, task_id, slot_id, lease_id, annotator_id, annotator_kind,
                guideline_id, submission_key, body_hash, order_shown, ranking, feedback, seconds, supersedes_id, created_at)
            SELECT {project.pk}, l.task_id, l.slot_id, l.id, l.annotator_id, 'human', l.guideline_id, 'k' || l.id, '',
                l.order_shown, CAST(({said}) AS {json_type}), CAST('{{}}' AS {json_type}), 4 + l.id % 40, NULL, l.created_at
            FROM annotation_lease l JOIN annotation_slot s ON s.id = l.slot_id WHERE s.project_id = {project.pk} ORDER BY l.id"""
        )
    Slot.objects.filter(project=project).update(state=Slot.State.DONE)
    Task.objects.filter(project=project).update(state=Task.State.DONE, n_judged=2)
    print(f"{Judgement.objects.count():,} judgements in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if connection.vendor == "postgresql":
        connection.cursor().execute("VACUUM ANALYZE")
    began = time.perf_counter()
    while (
        Look.objects.filter(name="disagreements", judgement_id__gte=Judgement.objects.latest("pk").pk).first() is None
    ):
        refresh_disagreements()
    print(f"disagreements counted in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    began = time.perf_counter()
    compute_due_reports()
    print(f"report computed in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if connection.vendor == "postgresql":
        connection.cursor().execute("VACUUM ANALYZE")
    return project


def pages(project: Any) -> list[tuple[str, Any]]:
    from labeling.accounts.models import User
    from labeling.projects.models import Membership

    lead, annotator = User.objects.get(username="lead"), User.objects.get(username="annotator-7")
    here, member = f"/projects/{project.slug}/", Membership.objects.get(project=project, user=annotator)
    task, prompt = project.tasks.order_by("pk")[1000], project.prompts.order_by("pk")[1000]
    of_leads = [
        "", "tasks/", "tasks/?state=open", "quality/", "quality/?show=annotators", "quality/?show=checks", "quality/?show=coefficients",
        f"quality/{member.pseudonym}/", "adjudication/", f"adjudication/{task.public_id}/", "gold/", "people/",
        f"people/{annotator.pk}/", "pools/", "prompts/", "prompts/?q=parcel", f"prompts/{prompt.pk}/",
        "guidelines/", "reports/", "settings/", "snapshots/", "snapshots/new/", "runs/", "runs/new/", "models/", "iterations/",
    ]  # fmt: skip
    found = [(here + path, lead) for path in of_leads]
    return [
        *found,
        *((here + path, annotator) for path in ("bench/", "bench/history/", "bench/figures/")),
    ]


def measured(path: str, user: Any, repeats: int) -> dict[str, Any]:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    ms = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        response = client.get(path)
        content = b"".join(response) if response.streaming else response.content
        ms.append(1000 * (time.perf_counter() - began))
        if response.status_code != 200:
            raise SystemExit(f"{path}: {response.status_code}")
    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    name = "/" + path.split("/", 3)[3]
    return {
        "page": f"{name} ({user.username.split('-')[0]})", "first": ms[0], "median": statistics.median(ms[1:]),
        "worst": max(ms[1:]), "statements": len(captured), "kB": len(content) / 1000,
        "slowest": sorted(((float(query["time"]), query["sql"][:300]) for query in captured), reverse=True)[:3],
    }  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
