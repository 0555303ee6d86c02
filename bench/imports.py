"""How fast comparisons come in, beside a loader that does nothing but insert their texts.

Run: python -m bench.imports                    # SQLite, 100,000 rows
     python -m bench.imports --database postgresql --n 20000 --runs 3

Makes transcripts of the size and shape of hh-rlhf (its text is not used) and takes them in, each run in a process and an
empty project of its own: recognised, checked, deduplicated, stored as prompts, completions, tasks and judgements, grouped
by near-duplicates. The plain loader reads the same lines and inserts prompt, chosen and rejected into one table without
index or constraint. Both run in turn, so that what else the machine does falls on both.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.serving import a_database

WORDS = ["the", "a", "of", "to", "you", "I", "is", "that", "it", "in", "for", "can", "do", "what", "how", "would", "people", "about", "like", "make", "time", "good", "know", "want", "think"]
BATCH_ROWS = 1000
TARGET_SECONDS, TARGET_MEGABYTES = 60, 300  # for 100,000 rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--n", type=int, default=100_000, help="rows (%(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="of each way, in turn (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--one", choices=("import", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.one, args.file)))
        return 0
    with a_database(args.database):
        from labeling.accounts.services import create_user

        create_user(username="lead", password=os.urandom(16).hex())
        file = Path(os.environ["PREFLOOP_HOME"]) / "comparisons.jsonl"
        write_rows(file, args.n)
        figures = measure(file, args.n, args.runs)
    tell(figures)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def write_rows(file: Path, n: int) -> None:
    """About 1,700 bytes a row: one to three turns, two replies to the last."""
    draw = random.Random(1)

    def said(low: int, high: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    with open(file, "w", encoding="utf-8") as lines:
        for number in range(n):
            shared = "".join(
                f"\n\nHuman: {said(10, 60)}\n\nAssistant: {said(10, 100)}" for _ in range(draw.randint(0, 2))
            )
            shared += f"\n\nHuman: {said(10, 60)} {number:x}?\n\nAssistant: "
            lines.write(json.dumps({"chosen": shared + said(10, 120), "rejected": shared + said(10, 120)}) + "\n")


def measure(file: Path, n: int, runs: int) -> dict[str, Any]:
    from django.db import connection

    found: dict[str, list[dict[str, float]]] = {"import": [], "plain": []}
    for run in range(runs):
        for way, results in found.items():
            command = [sys.executable, "-m", "bench.imports", "--one", way, "--file", str(file)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"run {run + 1}, {way}: {results[-1]['seconds']:.1f} s", file=sys.stderr)
    return {"database": connection.vendor, "n": n, "bytes": file.stat().st_size, "load": os.getloadavg()[0], **found}


def run_one(way: str, file: Path) -> dict[str, float]:
    import django

    django.setup()
    from labeling.accounts.models import User
    from labeling.projects.services import create_project

    if way == "import":
        name = f"p{os.getpid()}"
        project = create_project(slug=name, name=name, created_by=User.objects.get(username="lead"))
        act = lambda: take(project, file)  # noqa: E731
    else:
        act = lambda: load_plainly(file)  # noqa: E731
    began, cpu = time.perf_counter(), time.process_time()
    rows = act()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    with open(file, "rb") as lines:
        assert rows == sum(1 for _ in lines)
    return {"seconds": seconds, "cpu_seconds": cpu, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def take(project: Any, file: Path) -> int:
    from labeling.imports.services import run_import, start_import

    record = run_import(start_import(project=project, path=file, filename=file.name).pk)
    assert record.state == "done" and record.n_judgements == record.n_taken, record.problem
    return record.n_taken


def load_plainly(file: Path) -> int:
    from django.db import connection, transaction

    from labeling.database.bulk import insert_rows

    class Flat:  # what `insert_rows` asks of a model
        class _meta:
            db_table = "bench_flat"

    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bench_flat")
        cursor.execute("CREATE TABLE bench_flat (prompt text, chosen text, rejected text)")
    n, batch = 0, []
    with open(file, "rb") as lines:
        for line in lines:
            row = json.loads(line)
            prompt, _, chosen = row["chosen"].rpartition("\n\nAssistant: ")
            batch.append((prompt, chosen, row["rejected"].rpartition("\n\nAssistant: ")[2]))
            n += 1
            if len(batch) == BATCH_ROWS:
                with transaction.atomic():
                    insert_rows(Flat, ("prompt", "chosen", "rejected"), batch)  # type: ignore[arg-type]
                batch = []
    with transaction.atomic():
        insert_rows(Flat, ("prompt", "chosen", "rejected"), batch)  # type: ignore[arg-type]
    return n


def tell(figures: dict[str, Any]) -> None:
    n = figures["n"]
    print(f"\n{n:,} comparisons, {figures['bytes'] / n:,.0f} bytes a row, {figures['database']}; load of the machine {figures['load']:.1f}")
    print(f"{'way':<8}{'runs':>5}{'median s':>10}{'from':>8}{'to':>8}{'rows/s':>10}{'own CPU s':>11}{'peak MB':>9}")
    medians = {}
    for way in ("import", "plain"):
        seconds = [run["seconds"] for run in figures[way]]
        medians[way] = statistics.median(seconds)
        peak = max(run["megabytes"] for run in figures[way])
        cpu = statistics.median(run["cpu_seconds"] for run in figures[way])
        print(f"{way:<8}{len(seconds):>5}{medians[way]:>10.1f}{min(seconds):>8.1f}{max(seconds):>8.1f}{n / medians[way]:>10,.0f}{cpu:>11.1f}{peak:>9.0f}")
    print(f"An import takes {medians['import'] / medians['plain']:.1f} times as long as the plain loader.")
    if n == 100_000:
        peak = max(run["megabytes"] for run in figures["import"])
        is_fast, is_small = medians["import"] < TARGET_SECONDS, peak < TARGET_MEGABYTES
        print(f"Under {TARGET_SECONDS} s: {'yes' if is_fast else 'no'}. Under {TARGET_MEGABYTES} MB: {'yes' if is_small else 'no'}.")


if __name__ == "__main__":
    sys.exit(main())
