"""The production mode as a whole: PostgreSQL, Redis and the processes of `manage.py up`, with faults while people work."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from websockets.sync.client import connect

from tests.factories import PASSWORD, completions_rows
from tests.ports import free_port
from tests.services import postgres, redis
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ["ada", "ben", "cleo", "dan"]
N_TASKS, OVERLAP = 40, 2

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or "-"),
    pytest.mark.skipif(bool(redis.missing()), reason=redis.missing() or "-"),
]

MAKE_PEOPLE = """
import json
from labeling.accounts.services import create_token, create_user
names, password = json.loads(INPUT)
print(json.dumps({
    name: create_token(user=create_user(username=name, password=password, is_staff=name == "lead"), name="t")[1]
    for name in names
}))
"""


@dataclass
class Site:
    port: int
    process: subprocess.Popen[str]
    database: postgres.Postgres
    broker: redis.Redis
    environment: dict[str, str]
    tokens: dict[str, str]

    def caller(self, name: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api/v1/",
            headers={"Authorization": f"Bearer {self.tokens[name]}"}, timeout=60,
        )  # fmt: skip

    def manage(self, *arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, check=True, text=True,
            stdout=subprocess.PIPE,
        ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    with postgres.private_postgres() as database, redis.private_redis() as broker:
        home = tmp_path_factory.mktemp("production")
        environment = {
            **os.environ, "PREFLOOP_HOME": str(home), "PREFLOOP_DATABASE_URL": database.url,
            "PREFLOOP_REDIS_URL": broker.url,
        }  # fmt: skip
        port = free_port(3)
        with open(home / "log", "w+") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(port)], cwd=ROOT, env=environment,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            try:
                ready = any("is ready" in line for line in iter(process.stdout.readline, ""))
                assert ready, (home / "log").read_text()
                found = Site(port, process, database, broker, environment, {})
                script = MAKE_PEOPLE.replace("INPUT", repr(json.dumps([["lead", *PEOPLE], PASSWORD])))
                found.tokens = json.loads(found.manage("shell", "--no-imports", "-c", script).splitlines()[-1])
                yield found
            finally:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def project(site) -> Site:
    """A project with its people and tasks, made as an engineer makes it: over REST."""
    with site.caller("lead") as lead:
        made = lead.post("projects/", json={"slug": "support", "name": "Support"})
        assert made.status_code == 201, made.text
        for name in PEOPLE:
            joined = lead.post("projects/support/members/", json={"username": name, "role": "annotator"})
            assert joined.status_code in (200, 201), joined.text
        body = b"\n".join(completions_rows(N_TASKS))
        taken = lead.post(
            "projects/support/imports/?format=completions", content=body, headers={"Content-Type": "application/jsonl"}
        )
        assert taken.is_success, taken.text
        tasks = lead.post(
            "projects/support/tasks/", json={"kind": "ranking", "overlap": OVERLAP, "completions_per_task": 3}
        )
        assert tasks.is_success, tasks.text
    return site



def stubborn(call) -> httpx.Response:
    """As the client does: again, with the same key, until the server answers for good."""
    deadline = time.monotonic() + 60
    while True:
        try:
            response = call()
            if response.status_code < 500:
                return response
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "no answer for a minute"
        time.sleep(0.1)


def test_no_judgement_is_lost_or_doubled_while_servers_are_killed(project):
    acknowledged: list[tuple[str, str]] = []
    half = threading.Event()

    def work(name: str) -> None:
        with project.caller(name) as caller:
            while (lease := stubborn(lambda: caller.post("projects/support/leases/"))).status_code == 201:
                task = lease.json()
                keys = [completion["key"] for completion in task["task"]["completions"]]
                body = {"ranking": [[key] for key in keys], "seconds": 3.0}
                headers = {"Idempotency-Key": str(uuid.uuid4())}
                sent = stubborn(
                    lambda task=task, body=body, headers=headers: caller.post(
                        f"leases/{task['id']}/judgement/", json=body, headers=headers
                    )
                )
                assert sent.status_code in (200, 201), sent.text
                acknowledged.append((name, str(sent.json()["id"])))
                if len(acknowledged) > 12:
                    half.set()
            assert lease.status_code == 204, lease.text

    with ThreadPoolExecutor(len(PEOPLE)) as pool:
        working = [pool.submit(work, name) for name in PEOPLE]
        half.wait(60)
        project.broker.kill()
        os.kill(web_worker(project.process.pid), signal.SIGKILL)
        project.database.stop()
        project.database.start()
        os.kill(web_worker(project.process.pid), signal.SIGKILL)
        project.broker.start()
        for done in working:
            done.result(timeout=150)

    with psycopg.connect(project.database.url) as database:
        rows = database.execute("SELECT id, task_id, annotator_id, slot_id FROM annotation_judgement").fetchall()
    assert len(rows) == N_TASKS * OVERLAP
    assert len({(task, person) for _, task, person, _ in rows}) == len(rows)
    assert set(Counter(task for _, task, _, _ in rows).values()) == {OVERLAP}
    assert len(set(acknowledged)) == len(rows)


def web_worker(root: int) -> int:
    """The process that serves pages: the youngest child of granian's `web`."""

    def find() -> int:
        found = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout.splitlines()
        rows = [line.split(None, 2) for line in found]
        parents = {int(pid) for pid, ppid, args in rows if int(ppid) == root and "config.wsgi" in args}
        return max((int(pid) for pid, ppid, args in rows if int(ppid) in parents and "config.wsgi" in args), default=0)

    wait_until(find)
    return find()


def test_who_asks_while_the_database_is_away_is_told_to_come_back(project):
    with project.caller("ada") as api, httpx.Client(base_url=f"http://127.0.0.1:{project.port}") as browser:
        token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', browser.get("/login/").text)[1]
        form = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": token}
        assert browser.post("/login/", data=form).status_code == 302
        project.database.stop()
        try:
            refused, page = api.get("projects/"), browser.get("/projects/support/bench/")
        finally:
            project.database.start()
        assert refused.status_code == page.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable" and int(refused.headers["Retry-After"]) > 0
        assert "reload the page" in page.text and "<main" in page.text and int(page.headers["Retry-After"]) > 0
        assert stubborn(lambda: api.get("projects/")).status_code == 200
        assert stubborn(lambda: browser.get("/projects/support/bench/")).status_code == 200, "still logged in"


def test_a_task_queued_after_the_broker_came_back_is_done(project):
    project.broker.kill()
    project.broker.start()
    with psycopg.connect(project.database.url) as database:
        database.execute(
            "INSERT INTO live_event (\"group\", name, payload, created_at)"
            " VALUES ('project.0', 'old', '{}', now() - interval '3 days')"
        )
    subprocess.run(
        [sys.executable, "-m", "celery", "-A", "config", "call", "labeling.live.tasks.forget_old_events"],
        cwd=ROOT, env=project.environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip

    def forgotten() -> bool:
        with psycopg.connect(project.database.url) as database:
            return database.execute("SELECT count(*) FROM live_event WHERE name = 'old'").fetchone() == (0,)

    wait_until(forgotten)
    assert forgotten()


def test_a_page_that_is_logged_in_hears_of_a_change_made_over_rest(project):
    with httpx.Client(base_url=f"http://127.0.0.1:{project.port}", follow_redirects=True) as browser:
        browser.get("/login/")
        answer = browser.post(
            "/login/",
            data={"username": "lead", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]},
            headers={"Referer": f"http://127.0.0.1:{project.port}/login/"},
        )
        assert "sessionid" in browser.cookies, answer.status_code
        cookie = f"sessionid={browser.cookies['sessionid']}"
    with connect(
        f"ws://127.0.0.1:{project.port + 1}/live/projects/support/",
        additional_headers={"Cookie": cookie}, origin=f"http://127.0.0.1:{project.port}",
    ) as socket:  # fmt: skip
        assert json.loads(socket.recv(timeout=60))["hello"]
        with project.caller("lead") as lead:
            # Each thread of the server hears of the database's restart by itself.
            changed = stubborn(lambda: lead.patch("projects/support/", json={"name": "Support, renamed"}))
            assert changed.is_success, changed.text
        while json.loads(socket.recv(timeout=60)).get("name") != "project":
            pass


def test_the_doctor_is_content_and_the_site_ends_in_order(project):
    report = json.loads(project.manage("doctor", "--json", "--port", str(free_port(3))))
    assert report["ok"], report
    project.process.send_signal(signal.SIGTERM)
    assert project.process.wait(60) == 0
