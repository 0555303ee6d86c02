"""Annotators at the queue: leases and submits over HTTP against the real server, and whether anything got lost.

    .venv/bin/python -m bench.serving                              # SQLite: 1, 8, 32, 128 annotators; a few minutes
    .venv/bin/python -m bench.serving --database postgresql
    .venv/bin/python -m bench.serving --faults                     # while clients retry, hang up and die, servers are killed
    .venv/bin/python -m bench.serving --queue 1000 100000 1000000  # one annotator, a growing queue

Each annotator is a program in a closed loop without a pause: take a lease, submit a ranking. Two ways in turn: `two calls`
(a lease, then a submit), and `one call` (a submit that brings the next lease, `?next=1`). The programs, the server and
the database share the machine. Afterwards the database is held against what the server acknowledged:

    lost        judgements acknowledged and not in the database
    doubled     judgements of one person on one task, or of one key, beyond the first
    over        judgements that count for a task beyond those it wants, or a slot held by two at a time
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("two calls", "one call")
PROMPT = "Where is my parcel? It was sent on Monday, the shop says, and nobody has seen it since. " * 4
N_BY_HAND = 1_000  # tasks; more are copied inside the database
COMPLETION = "I am sorry to hear that. Let me look: it left the depot this morning and comes before noon. " * 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--annotators", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seconds", type=float, default=8, help="of each cell (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each cell; the table shows the median (%(default)s)")
    parser.add_argument("--overlap", type=int, default=2, help="judgements a task (%(default)s)")
    parser.add_argument("--queue", nargs="+", type=int, help="sizes of the queue, for one annotator")
    parser.add_argument("--faults", action="store_true", help="clients retry, hang up and die; the server is killed")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    with a_site(args.database) as site:
        cells = growing(site, args) if args.queue else with_faults(site, args) if args.faults else crowds(site, args)
    if args.out:
        args.out.write_text(json.dumps(cells, indent=1) + "\n")
    return int(any(cell["lost"] or cell["doubled"] or cell["over"] for cell in cells))


# --- the site -------------------------------------------------------------------------------------
@dataclass
class Site:
    port: int
    database: Any  # the PostgreSQL server, if there is one
    group: Any
    tokens: list[str]


@contextmanager
def a_database(kind: str) -> Iterator[Any]:
    """An empty database with its tables, and Django set up on it; gives the PostgreSQL server, if it is one."""
    home = Path(tempfile.mkdtemp(prefix="prefloop-bench-"))
    os.environ.update(PREFLOOP_HOME=str(home), DJANGO_SETTINGS_MODULE="config.settings")
    from tests.services.postgres import private_postgres

    try:
        with private_postgres(is_durable=True) if kind == "postgresql" else nothing() as server:
            os.environ["PREFLOOP_DATABASE_URL"] = server.url if server else ""
            if not server:
                del os.environ["PREFLOOP_DATABASE_URL"]
            import django

            django.setup()
            from django.core.management import call_command
            from django.db import connection

            call_command("migrate", verbosity=0)
            yield server
            connection.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def a_site(kind: str) -> Iterator[Site]:
    """An empty database, the real web server on it, and 128 annotators."""
    with a_database(kind) as database:
        from django.db import connection

        from labeling.web.processes import ProcessGroup, site_processes, wait_until_ready
        from tests.ports import free_port

        tokens = people()
        connection.close()
        port = free_port(3)
        processes = site_processes(host="127.0.0.1", port=port, worker=False)[:1]
        with ProcessGroup(processes, say=lambda line: None) as group:
            if not wait_until_ready(f"http://127.0.0.1:{port}/healthz", seconds=60, gave_up=group.stopping):
                raise SystemExit("The server did not start")
            yield Site(port, database, group, tokens)


@contextmanager
def nothing() -> Iterator[None]:
    yield None


def people() -> list[str]:
    from labeling.accounts.services import create_token
    from tests import factories

    return [
        create_token(user=factories.make_user(f"annotator-{n}"), name="bench", scopes=["read", "annotate"])[1]
        for n in range(128)
    ]


def fill(n_tasks: int, overlap: int, lease_seconds: int = 1200) -> Any:
    """A new project with so many open tasks, two completions each, and everybody in it."""
    from django.db import connection, transaction

    from labeling.accounts.models import User
    from labeling.annotation.models import Slot, Task, TaskCompletion
    from labeling.annotation.queue import position_of
    from labeling.projects.models import Completion, Prompt
    from labeling.projects.services import add_member, create_project

    connection.close()  # the server may have been restarted
    lead, _ = User.objects.get_or_create(username="lead")
    slug = f"p{random.getrandbits(40):x}"
    project = create_project(
        slug=slug, name=slug, created_by=lead, overlap=overlap, lease_seconds=lease_seconds,
        guideline="Prefer short and kind.",
    )  # fmt: skip
    for user in User.objects.filter(username__startswith="annotator-"):
        add_member(project=project, user=user, role="annotator")
    n_first = min(n_tasks, N_BY_HAND)
    with transaction.atomic():
        prompts = Prompt.objects.bulk_create(
            [
                Prompt(project=project, messages=[{"role": "user", "content": f"{PROMPT}{n}"}], content_hash=f"{slug}{n}", group_id=str(n))
                for n in range(n_first)
            ]
        )  # fmt: skip
        completions = Completion.objects.bulk_create(
            [Completion(prompt=prompt, content=f"{COMPLETION}{key}", content_hash=key) for prompt in prompts for key in "ab"]
        )
        tasks = Task.objects.bulk_create(
            [Task(project=project, prompt=prompt, overlap=overlap, content_hash=f"{slug}{prompt.pk}") for prompt in prompts]
        )
        TaskCompletion.objects.bulk_create(
            [
                TaskCompletion(task=task, completion=completion)
                for n, task in enumerate(tasks)
                for completion in completions[2 * n : 2 * n + 2]
            ]
        )
        Slot.objects.bulk_create(
            [
                Slot(task=task, project=project, number=number, position=position_of(task.pk, 0))
                for task in tasks
                for number in range(1, overlap + 1)
            ]
        )
    if n_tasks > n_first:
        copy(project, -(-n_tasks // n_first) - 1)
    return project


def copy(project: Any, times: int) -> None:
    """The project's tasks so many times more, with all that belongs to them, inside the database."""
    from django.core.management.color import no_style
    from django.db import connection, transaction
    from django.db.models import Max, Min

    from labeling.annotation.models import Slot, Task, TaskCompletion
    from labeling.projects.models import Completion, Prompt

    of_project = {
        Prompt: "project", Completion: "prompt__project", Task: "project", TaskCompletion: "task__project", Slot: "project",
    }  # fmt: skip
    ends = {model: model.objects.filter(**{path: project}).aggregate(a=Min("pk"), b=Max("pk")) for model, path in of_project.items()}
    widths = {model: found["b"] - found["a"] + 1 for model, found in ends.items()}
    quote = connection.ops.quote_name

    def value(model: Any, column: Any, turn: int) -> str:
        name = quote(column.column)
        counted = model if column.primary_key else Task if column.name == "position" else column.related_model
        if counted in widths:
            return f"{name} + {turn * widths[counted]}"
        return f"{name} || '-{turn}'" if column.name in ("content_hash", "public_id", "group_id") else name

    with transaction.atomic(), connection.cursor() as cursor:
        for turn in range(1, times + 1):
            for model, found in ends.items():
                columns = model._meta.concrete_fields
                cursor.execute(
                    f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(quote(column.column) for column in columns)}) "
                    f"SELECT {', '.join(value(model, column, turn) for column in columns)} FROM {quote(model._meta.db_table)} "
                    f"WHERE id BETWEEN {found['a']} AND {found['b']}"
                )
        for statement in connection.ops.sequence_reset_sql(no_style(), list(ends)):
            cursor.execute(statement)


# --- annotators -----------------------------------------------------------------------------------
@dataclass
class Seen:
    """What one cell's annotators saw."""

    lease_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)  # key -> judgement
    surplus: int = 0
    retried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    processor_s: dict[str, float] = field(default_factory=dict)  # who -> what it used of the processors


class Caller:
    """One keep-alive connection; a plain client costs the machine that it shares with the server the least."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes = b"{}", extra: str = "", *, hangs_up: bool = False) -> tuple[int, Any]:
        """Raises OSError where the connection broke, or was hung up on before the answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        request = f"POST /api/v1{path} HTTP/1.1\r\n{self.head}{extra}Content-Length: {len(body)}\r\n\r\n"
        try:
            self.writer.write(request.encode() + body)
            if hangs_up:
                await asyncio.sleep(random.random() * 0.02)
                raise ConnectionError("hung up")
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            content = await self.reader.readexactly(int(fields.get(b"content-length", 0)))
            return int(head[9:12]), json.loads(content) if content else None
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            self.hang_up()
            raise OSError(str(error)) from error

    def hang_up(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Habits:
    """How often a client sends twice, hangs up before the answer, forgets its lease, or starts anew."""

    twice: float = 0.0
    hangs_up: float = 0.0
    forgets: float = 0.0


async def stubborn(caller: Caller, seen: Seen, *args: Any, hangs_up: bool = False) -> tuple[int, Any]:
    """Again with the same key until the server answers for good, as the client library does."""
    while True:
        try:
            status, answer = await caller.post(*args, hangs_up=hangs_up)
            if status < 500:
                return status, answer
        except OSError:
            pass
        hangs_up = False
        seen.retried += 1
        await asyncio.sleep(0.05)


async def annotate(caller: Caller, slug: str, way: str, until: float, seen: Seen, habits: Habits) -> None:
    lease = None
    while time.perf_counter() < until:
        if lease is None:
            began = time.perf_counter()
            status, lease = await stubborn(caller, seen, f"/projects/{slug}/leases/")
            seen.lease_ms.append(1000 * (time.perf_counter() - began))
            if status == 204:
                await asyncio.sleep(0.05)
                continue
            if status != 201:
                seen.refused[f"lease {status}"] += 1
                lease = None
                continue
        if random.random() < habits.forgets:
            caller.hang_up()  # the page was closed; the next request finds the lease again, or it runs out
            lease = None
            continue
        keys = [completion["key"] for completion in lease["task"]["completions"]]
        random.shuffle(keys)
        key = f"{random.getrandbits(80):x}"
        body = json.dumps({"ranking": [[key] for key in keys], "seconds": 4.2}).encode()
        path = f"/leases/{lease['id']}/judgement/" + ("?next=1" if way == "one call" else "")
        extra = f"Idempotency-Key: {key}\r\n"
        began = time.perf_counter()
        status, answer = await stubborn(caller, seen, path, body, extra, hangs_up=random.random() < habits.hangs_up)
        seen.submit_ms.append(1000 * (time.perf_counter() - began))
        lease = None
        if status in (200, 201, 202):
            seen.acknowledged[key] = answer["id"]
            seen.surplus += answer["surplus"]
            lease = answer.get("next_lease")
            if random.random() < habits.twice:
                again, same = await stubborn(caller, seen, path, body, extra)
                if again != 200 or same["id"] != answer["id"]:
                    seen.refused[f"the same again {again}"] += 1
        else:
            seen.refused[f"submit {status} {answer['error']['code']}"] += 1


def processor_seconds_of(site: Site) -> dict[str, float]:
    used = {"annotators": time.process_time()}
    if (web := site.group.running.get("web")) is not None:
        used["web"] = processor_seconds(web.pid)
    if site.database:
        used["database"] = processor_seconds(site.database.process.pid)
    return used


def processor_seconds(root: int) -> float:
    """What the process and all its children, alive and gone, have used of the processors."""
    stat = Path(f"/proc/{root}/stat").read_text().rsplit(")", 1)[1].split()
    used = sum(int(ticks) for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")
    threads = Path(f"/proc/{root}/task").glob("*/children")
    return used + sum(processor_seconds(int(child)) for thread in threads for child in thread.read_text().split())


def run(site: Site, project: Any, way: str, n: int, seconds: float, habits: Habits | None = None) -> tuple[Seen, float]:
    seen = Seen()

    async def everybody() -> float:
        began = time.perf_counter()
        callers = [Caller(site.port, token) for token in site.tokens[:n]]
        until = began + seconds
        used = processor_seconds_of(site)
        await asyncio.gather(*(annotate(caller, project.slug, way, until, seen, habits or Habits()) for caller in callers))
        took = time.perf_counter() - began
        seen.processor_s = {who: seconds - used.get(who, 0) for who, seconds in processor_seconds_of(site).items()}
        for caller in callers:
            caller.hang_up()
        return took

    return seen, asyncio.run(everybody())


# --- what the database says -----------------------------------------------------------------------
def check(project: Any, seen: Seen) -> dict[str, int]:
    from django.db import connection
    from django.db.models import Count, F

    from labeling.annotation.models import Judgement, Lease, Slot, Task

    connection.close()  # the server may have been restarted
    found = dict(Judgement.objects.filter(project=project).values_list("submission_key", "pk"))
    lost = sum(str(found.get(key)) != id for key, id in seen.acknowledged.items())
    judged = Judgement.objects.filter(project=project)
    doubled = judged.count() - judged.values("task", "annotator").distinct().count()
    counted = judged.filter(slot__isnull=False).values("task").annotate(n=Count("pk"))
    over = counted.filter(n__gt=F("task__overlap")).count()
    over += Task.objects.filter(project=project, n_judged__gt=F("overlap")).count()
    twice = Lease.objects.filter(slot__project=project, state="open").values("slot").annotate(n=Count("pk")).filter(n__gt=1)
    over += twice.count()
    over += Slot.objects.filter(project=project).annotate(n=Count("judgements")).filter(n__gt=1).count()
    connection.close()
    return {"lost": lost, "doubled": doubled, "over": over, "in_database": len(found)}


def cell(seen: Seen, took: float, checked: dict[str, int], **facts: Any) -> dict[str, Any]:
    return {
        **facts,
        "answers_a_second": len(seen.acknowledged) / took,
        **{f"lease_{name}": value for name, value in spread(seen.lease_ms).items()},
        **{f"submit_{name}": value for name, value in spread(seen.submit_ms).items()},
        **{f"{who}_ms": 1000 * used / max(1, len(seen.acknowledged)) for who, used in seen.processor_s.items()},
        "accepted": len(seen.acknowledged), "surplus": seen.surplus, "retried": seen.retried,
        "refused": dict(seen.refused), **checked,
    }  # fmt: skip


def spread(ms: list[float]) -> dict[str, float | None]:
    if len(ms) < 2:
        return {"p50": None, "p95": None, "p99": None}
    cuts = statistics.quantiles(ms, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


HEADER = (
    f"{'':<24}{'answers/s':>12}{'lease p50':>11}{'p95':>7}{'p99':>7}{'submit p50':>12}{'p95':>7}{'p99':>7}"
    f"{'accepted':>10}{'lost':>6}{'doubled':>9}{'over':>6}"
)


def line(name: str, runs: list[dict[str, Any]]) -> str:
    def middle(key: str) -> str:
        known = [run[key] for run in runs if run[key] is not None]
        return f"{statistics.median(known):.0f}" if known else "-"

    rates = [run["answers_a_second"] for run in runs]
    rate = f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"
    total = {key: sum(run[key] for run in runs) for key in ("accepted", "lost", "doubled", "over")}
    return (
        f"{name:<20}{rate:>16}{middle('lease_p50'):>11}{middle('lease_p95'):>7}{middle('lease_p99'):>7}"
        f"{middle('submit_p50'):>12}{middle('submit_p95'):>7}{middle('submit_p99'):>7}"
        f"{total['accepted']:>10}{total['lost']:>6}{total['doubled']:>9}{total['over']:>6}"
    )


# --- the three benchmarks -------------------------------------------------------------------------
def crowds(site: Site, args: argparse.Namespace) -> list[dict[str, Any]]:
    cells = []
    print(f"{args.database}, overlap {args.overlap}, {args.runs} runs of {args.seconds:g} s; ms; median (lowest-highest)")
    print(HEADER)
    run(site, fill(200, 1), "one call", 8, 2)  # warm
    for way in args.ways:
        for n in args.annotators:
            runs = []
            for _ in range(args.runs):
                project = fill(int(500 * args.seconds), args.overlap)
                seen, took = run(site, project, way, n, args.seconds)
                runs.append(cell(seen, took, check(project, seen), way=way, annotators=n))
                for why, times in seen.refused.items():
                    print(f"    {times} x {why}")
            print(line(f"{way}, {n}", runs) + processors(runs), flush=True)
            cells += runs
    return cells


def processors(runs: list[dict[str, Any]]) -> str:
    """Milliseconds of the processors an answer, of the web server, the database and the annotators' program."""
    used = {who: [run[f"{who}_ms"] for run in runs] for who in ("web", "database", "annotators") if f"{who}_ms" in runs[0]}
    return "   " + ", ".join(f"{who} {statistics.median(ms):.1f}" for who, ms in used.items()) + " ms of a core"


def growing(site: Site, args: argparse.Namespace) -> list[dict[str, Any]]:
    cells = []
    print(f"{args.database}, overlap {args.overlap}, one annotator, {args.runs} runs of {args.seconds:g} s; ms")
    print(HEADER)
    run(site, fill(200, 1), "two calls", 1, 2)
    for size in args.queue:
        project = fill(size, args.overlap)
        runs = []
        for _ in range(args.runs):
            seen, took = run(site, project, "two calls", 1, args.seconds)
            runs.append(cell(seen, took, check(project, seen), way="two calls", queue=size))
        print(line(f"queue of {size:,}", runs), flush=True)
        cells += runs
    return cells


def with_faults(site: Site, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Web workers are killed, PostgreSQL is restarted, leases run out, and clients misbehave."""
    import threading

    habits = Habits(twice=0.05, hangs_up=0.05, forgets=0.03)
    print(f"{args.database}, overlap {args.overlap}, faults, {args.runs} runs of {args.seconds:g} s; ms")
    print(HEADER)
    cells = []
    for n in args.annotators:
        runs = []
        for _ in range(args.runs):
            project = fill(int(300 * args.seconds), args.overlap, lease_seconds=30)
            over = threading.Event()
            made: Counter[str] = Counter()
            trouble = threading.Thread(target=make_trouble, args=(site, project, over, made), daemon=True)
            trouble.start()
            seen, took = run(site, project, "one call", n, args.seconds, habits)
            over.set()
            trouble.join()
            runs.append(cell(seen, took, check(project, seen), annotators=n, faults=dict(made)))
            print("   ", dict(made), f"{seen.retried} requests sent again,", dict(seen.refused) or "nothing refused")
        print(line(f"faults, {n}", runs), flush=True)
        cells += runs
    return cells


def make_trouble(site: Site, project: Any, over: Any, made: Counter[str]) -> None:
    from datetime import timedelta

    from django.db import DatabaseError, InterfaceError, connection
    from django.utils.timezone import now

    from labeling.annotation.models import Lease, Slot
    from labeling.annotation.services import free_expired_leases

    turn = 0
    while not over.wait(1.0):
        turn += 1
        try:
            if turn % 6 == 3:
                made["workers killed"] += kill_worker(site)
            elif turn % 6 == 0 and site.database:
                site.database.stop()
                site.database.start()
                made["database restarts"] += 1
            else:
                # As if half an hour had passed for some of those at work.
                ago = now() - timedelta(seconds=1)
                late = list(Lease.objects.filter(slot__project=project, state="open").order_by("?").values_list("pk", "slot")[:5])
                Slot.objects.filter(pk__in=[slot for _, slot in late], state="leased").update(expires_at=ago)
                Lease.objects.filter(pk__in=[pk for pk, _ in late], state="open").update(expires_at=ago)
                made["leases run out"] += free_expired_leases()
        except (DatabaseError, InterfaceError):
            connection.close()
    connection.close()


def kill_worker(site: Site) -> int:
    """kill -9 of the processes that granian's main process keeps; it starts new ones."""
    import signal

    web = site.group.running.get("web")
    if web is None:
        return 0  # it is being started again
    children = Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    return len(children)


if __name__ == "__main__":
    sys.exit(main())
