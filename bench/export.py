"""Freezing a snapshot, and taking it out, against the raw speed of a plain cursor over the same rows.

    python -m bench.export                                    # SQLite, 100,000 pairs
    python -m bench.export --database postgresql --pairs 1000000 --runs 1 --views preference pairs votes

The raw limits are what a script would do that knows this one project: a plain cursor over one SQL join, a row a pair, each
row written to a file with orjson. `raw pairs` has all that a pair of a snapshot has. `raw rows` writes the same rows as a
freeze: those pairs, and then the votes. `freeze` is held against that one: `create_snapshot`, which writes votes and pairs
of each split with their hashes, counted, from one state of the database. `raw jsonl` has what a row of `preference` has;
`raw parquet` is the same, its columns as plain text through pyarrow with zstd. `first` is `view_file` on a snapshot that
nobody has asked for a file of, the hash included; `http first` and `http again` are whole downloads from the real server.
Each runs in a process of its own, in turn, whose peak memory is shown (of a download: the server's). A ratio is of the
medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.export_data import judged_pairs
from bench.serving import a_database

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_PREFERENCE = ("p.messages AS prompt", "chosen.content AS chosen", "rejected.content AS rejected", "j.feedback", "p.group_id")
OF_PAIRS = (
    "t.public_id AS task", "t.iteration", "p.messages AS prompt", "p.group_id", "p.licence", "chosen.content AS chosen",
    "rejected.content AS rejected", "chosen.model_key AS chosen_model", "chosen.sampling AS chosen_sampling",
    "rejected.model_key AS rejected_model", "rejected.sampling AS rejected_sampling", "j.annotator_id", "j.annotator_kind",
    "j.feedback", "j.seconds", "j.created_at",
)  # fmt: skip
OF_VOTES = (
    "t.public_id AS task", "t.iteration", "t.purpose", "p.messages AS prompt", "p.group_id", "p.licence",
    "chosen.content AS first", "rejected.content AS second", "chosen.model_key AS first_model",
    "rejected.model_key AS second_model", "j.annotator_id", "j.annotator_kind", "j.guideline_id", "j.order_shown", "j.ranking",
    "j.feedback", "j.seconds", "j.created_at",
)  # fmt: skip
RAW = """SELECT {columns}
FROM annotation_judgement j JOIN annotation_task t ON t.id = j.task_id JOIN projects_prompt p ON p.id = t.prompt_id
    JOIN projects_completion chosen ON chosen.id = {chosen} JOIN projects_completion rejected ON rejected.id = {rejected}
WHERE j.project_id = %s"""
JSON_COLUMNS = {"prompt", "chosen_sampling", "rejected_sampling", "feedback", "order_shown", "ranking"}
LIMITS = {"raw pairs": "raw pairs", "raw rows": "raw rows", "freeze": "raw rows"}  # all else: preference as jsonl
BATCH_ROWS = 5000
PIECE_BYTES = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--pairs", type=int, default=100_000, help="%(default)s")
    parser.add_argument("--runs", type=int, default=3, help="of each part (%(default)s)")
    parser.add_argument("--views", nargs="+", default=["preference"], help="(%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=["jsonl", "parquet"], help="(%(default)s)")
    parser.add_argument("--profile", action="store_true", help="say where a freeze spends its time, instead")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    if args.part:
        return measure(*args.part)
    with a_database(args.database):
        token = prepare(args.pairs)
        if args.profile:
            return profile()
        seen: dict[str, list[dict[str, float]]] = {}
        wanted = list(product(args.views, args.kinds))
        for _ in range(args.runs):
            for part in ("raw pairs", "raw rows", "freeze", "raw jsonl", "raw parquet"):
                seen.setdefault(part, []).append(in_a_process(*part.split()))
            for view, kind in wanted:
                forget()
                seen.setdefault(f"{view}.{kind} first", []).append(in_a_process("first", view, kind))
            forget()
            with a_server() as server:
                for turn, (view, kind) in product(("first", "again"), wanted):
                    name = f"{view}.{kind} http {turn}"
                    seen.setdefault(name, []).append(download(server, token, view, kind))
    return show(args, seen)


def prepare(n: int) -> str:
    """Fill the database and freeze it; gives a token."""
    from labeling.accounts.models import User
    from labeling.preferences.services import create_snapshot
    from labeling.projects.services import change_project
    from tests.factories import token_for

    project = judged_pairs(n, say=lambda line: print(line, file=sys.stderr))
    project = change_project(project=project, eval_share=0.0)
    snapshot = create_snapshot(project=project, created_by=None)
    print(f"{snapshot.n_pairs:,} pairs frozen", file=sys.stderr)
    return token_for(User.objects.get(username="lead"))


def forget() -> None:
    """Remove every file that was made of the snapshot, not its rows."""
    from labeling.preferences.models import Snapshot
    from labeling.preferences.views_out.asked import views_folder

    shutil.rmtree(views_folder(Snapshot.objects.get()), ignore_errors=True)


# --- one part, in a process of its own --------------------------------------------------------------
def in_a_process(*part: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.export", "--part", *part]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(part: str, *args: str) -> int:
    import django

    django.setup()
    folder = Path(tempfile.mkdtemp(dir=os.environ["PREFLOOP_HOME"]))
    began, used = time.perf_counter(), time.process_time()
    n = {"first": first, "freeze": freeze, "raw": raw}[part](folder, *args)
    cell = {
        "rows": n,
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - used,
        "peak_mb": _peak_of(os.getpid()),
    }
    shutil.rmtree(folder)
    print(json.dumps(cell))
    return 0


def freeze(folder: Path) -> int:
    """Writes every row, and finds that there is a snapshot of them."""
    from django.conf import settings

    from labeling.preferences.services import create_snapshot
    from labeling.projects.models import Project

    settings.FILES = folder
    snapshot = create_snapshot(project=Project.objects.get(), created_by=None)
    return snapshot.n_judgements + snapshot.n_pairs


def first(folder: Path, view: str, kind: str) -> int:
    from labeling.preferences.models import Snapshot
    from labeling.preferences.views_of_snapshots import view_file
    from labeling.preferences.views_out.making import made

    return made(view_file(Snapshot.objects.get(), split="train", view=view, format=kind))["rows"]


def raw(folder: Path, kind: str) -> int:
    """The rows of a plain cursor, in batches."""
    from django.db import connection, transaction

    place = "(j.ranking->{0}->>0)::bigint" if connection.vendor == "postgresql" else "json_extract(j.ranking, '$[{0}][0]')"
    write = raw_parquet if kind == "parquet" else raw_jsonl
    n = 0
    for columns in {"pairs": [OF_PAIRS], "rows": [OF_PAIRS, OF_VOTES]}.get(kind, [OF_PREFERENCE]):
        sql = RAW.format(columns=", ".join(columns), chosen=place.format(0), rejected=place.format(1)).replace("%s", "1")
        # In a transaction of one's own PostgreSQL needs not keep the rows for later.
        with transaction.atomic(), connection.chunked_cursor() as cursor:
            cursor.execute(sql)
            batches = iter(lambda: cursor.fetchmany(BATCH_ROWS), [])
            # "p.messages AS prompt" is called prompt, and "j.seconds" seconds.
            names = [column.split(" AS ")[-1].split(".")[-1] for column in columns]
            n += write(folder / f"raw.{len(columns)}", names, batches)
    return n


def raw_jsonl(path: Path, names: list[str], batches: "Iterator[list[tuple[Any, ...]]]") -> int:
    import orjson

    n = 0
    parsed = [name for name in names if name in JSON_COLUMNS]
    with open(path, "wb") as file:
        for rows in batches:
            for values in rows:
                row = dict(zip(names, values, strict=True))
                for name in parsed:
                    row[name] = orjson.loads(row[name])
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            n += len(rows)
        file.flush()
        os.fsync(file.fileno())
    return n


def raw_parquet(path: Path, names: list[str], batches: "Iterator[list[tuple[Any, ...]]]") -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 0
    schema = pa.schema([(name, pa.string()) for name in names])
    with open(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(pa.table(list(map(list, zip(*rows, strict=True))), schema=schema))
            n += len(rows)
    return n


def profile() -> int:
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(freeze, Path(tempfile.mkdtemp(dir=os.environ["PREFLOOP_HOME"])))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return 0


# --- through the server ------------------------------------------------------------------------------
@contextmanager
def a_server() -> "Iterator[Server]":
    from labeling.web.processes import ProcessGroup, site_processes, wait_until_ready
    from tests.ports import free_port

    port = free_port(3)
    processes = site_processes(host="127.0.0.1", port=port, worker=False)[:1]
    with ProcessGroup(processes, say=lambda line: None) as group:
        if not wait_until_ready(f"http://127.0.0.1:{port}/healthz", seconds=60, gave_up=group.stopping):
            raise SystemExit("The server did not start")
        yield Server(port)


class Server:
    def __init__(self, port: int) -> None:
        self.port = port

    def peak_mb(self) -> float:
        """Of the largest of its processes, since it started."""
        import psutil

        found = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
        return max(_peak_of(child.pid) for child in found)


def _peak_of(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def download(server: Server, token: str, view: str, kind: str) -> dict[str, float]:
    from labeling.preferences.models import Snapshot

    snapshot = Snapshot.objects.get()
    url = f"http://127.0.0.1:{server.port}/api/v1/snapshots/{snapshot.pk}/train.{kind}?view={view}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    began, n_bytes = time.perf_counter(), 0
    with urllib.request.urlopen(request, timeout=600) as answer:
        while piece := answer.read(PIECE_BYTES):
            n_bytes += len(piece)
        assert n_bytes == int(answer.headers["Content-Length"])
    seconds = time.perf_counter() - began
    return {"rows": snapshot.n_pairs, "seconds": seconds, "processor_seconds": 0.0, "peak_mb": server.peak_mb()}


# --- the table --------------------------------------------------------------------------------------
def show(args: argparse.Namespace, seen: dict[str, list[dict[str, float]]]) -> int:
    figures = {
        part: {name: statistics.median(cell[name] for cell in cells) for name in cells[0]} for part, cells in seen.items()
    }
    print(f"{args.database}, {args.pairs:,} pairs, median of {args.runs}")
    print(f"{'':<36}{'rows':>10}{'seconds':>9}{'(least - most)':>17}{'processor s':>13}{'rows/s':>10}{'of raw':>8}{'peak MB':>9}")
    for part, cell in figures.items():
        limit = figures["raw parquet" if "parquet" in part else LIMITS.get(part, "raw jsonl")]
        per_second = cell["rows"] / cell["seconds"]
        share = per_second / (limit["rows"] / limit["seconds"])
        laps = [lap["seconds"] for lap in seen[part]]
        print(
            f"{part:<36}{cell['rows']:>10,.0f}{cell['seconds']:>9.2f}{min(laps):>9.2f} -{max(laps):>6.2f}{cell['processor_seconds']:>13.2f}"
            f"{per_second:>10,.0f}{share:>8.0%}{cell['peak_mb']:>9.0f}"
        )
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
