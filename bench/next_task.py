"""From key press to the next task readable, in a real browser against the real server.

    .venv/bin/python -m bench.next_task                  # 200 judgements a way, about four minutes
    .venv/bin/python -m bench.next_task --n 50 --out figures.json

One annotator ranks tasks by keyboard alone. A lap begins at the time stamp of the Enter key's own event and ends
after the frame that shows the next task was painted. Four ways in the same run, on the same tasks:

    prefetch     the bench as it is: the next task is there before it is asked for
    round trip   the bench without its prefetch: the answer to the submit brings the next task
    reload       the same form without the script: submit, redirect, a new page (as most labelling tools do)
    long texts   the bench as it is, each completion 20,000 characters of Markdown

Between two laps the annotator "reads" for --think seconds; a lap whose prefetch had not arrived is counted all the same.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAPS = """
window.laps = [];
const fromStorage = sessionStorage.getItem("began");
const painted = (run) => requestAnimationFrame(() => setTimeout(run, 0));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter") sessionStorage.setItem("began", String(performance.timeOrigin + event.timeStamp));
}, { capture: true });
const lap = (began) => window.laps.push(performance.timeOrigin + performance.now() - Number(began));
document.addEventListener("DOMContentLoaded", () => {
  if (fromStorage && document.querySelector("[data-task]")) painted(() => lap(fromStorage));
  const place = document.querySelector("[data-bench]");
  if (!place) return;
  let shown = place.querySelector("[data-task]")?.dataset.task;
  new MutationObserver(() => {
    const now = place.querySelector("[data-task]")?.dataset.task;
    if (!now || now === shown) return;
    shown = now;
    const began = sessionStorage.getItem("began");
    painted(() => lap(began));
  }).observe(place, { childList: true });
});
"""
WAYS = ("prefetch", "round trip", "reload", "long texts")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="judgements a way (%(default)s)")
    parser.add_argument("--completions", type=int, default=4, help="completions a task (%(default)s)")
    parser.add_argument("--think", type=float, default=0.4, help="seconds of reading before Enter (%(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="only these (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="prefloop-bench-"))
    os.environ["PREFLOOP_HOME"] = str(home)
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # playwright keeps an event loop in this thread
    try:
        figures = measure(args.ways, args.n, args.completions, args.think)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"\n{'way':<12}{'n':>5}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'worst':>9}")
    for way, found in figures.items():
        print(f"{way:<12}{found['n']:>5}{found['p50']:>9.1f}{found['p95']:>9.1f}{found['p99']:>9.1f}{found['worst']:>9.1f}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(ways: list[str], n: int, n_completions: int, think: float) -> dict[str, dict[str, float]]:
    import django

    django.setup()
    from django.core.management import call_command
    from playwright.sync_api import sync_playwright

    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    from labeling.web.processes import ProcessGroup, site_processes, wait_until_ready
    from tests.ports import free_port

    port = free_port(3)
    figures = {}
    with ProcessGroup(site_processes(host="127.0.0.1", port=port, worker=False)[:1]) as group, sync_playwright() as running:
        address = f"http://127.0.0.1:{port}"
        if not wait_until_ready(f"{address}/healthz", seconds=60, gave_up=group.stopping):
            raise SystemExit("The server did not start")
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for way in ways:
            slug = make_tasks(way.replace(" ", "-"), n + 5, n_completions, long=way == "long texts")
            laps = judge(browser, address, slug, n, n_completions, think, way)
            figures[way] = summary(laps)
            print(f"{way}: {len(laps)} laps", file=sys.stderr)
        browser.close()
    return figures


def judge(browser: Any, address: str, slug: str, n: int, n_completions: int, think: float, way: str) -> list[float]:
    from django.conf import settings
    from django.test import Client

    from labeling.accounts.models import User

    client = Client()
    client.force_login(User.objects.get(username=f"annotator-{slug}"), backend="django.contrib.auth.backends.ModelBackend")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": address}])
    context.add_init_script(LAPS)
    if way == "round trip":
        context.route("**/bench/next/", lambda route: route.abort())
    if way == "reload":
        context.route("**/bench*.js", lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{address}/projects/{slug}/bench/")
    page.wait_for_selector("[data-task]")
    draw = random.Random(1)
    laps: list[float] = []
    step: Callable[[], None] = (lambda: rank_fields(page, n_completions)) if way == "reload" else (lambda: rank_keys(page, n_completions))
    for done in range(n):
        step()
        page.wait_for_timeout(1000 * think * draw.uniform(0.5, 1.5))
        before = page.locator("[data-task]").get_attribute("data-task")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "before => document.querySelector('[data-task]')?.dataset.task !== before && window.laps.length > 0", arg=before
        )
        laps += page.evaluate("window.laps.splice(0)")
        if len(laps) != done + 1:
            raise SystemExit(f"{way}: {len(laps)} laps after {done + 1} judgements")
    context.close()
    return laps


def rank_keys(page: Any, n_completions: int) -> None:
    for key in "abcdefghi"[:n_completions]:
        page.keyboard.press(f"Shift+{key.upper()}")


def rank_fields(page: Any, n_completions: int) -> None:
    """Without its script the page is a form: fill it and put the focus on its button."""
    page.evaluate(
        """() => {
          document.querySelectorAll("[data-rank-field]").forEach((field, index) => { field.value = index + 1; });
          for (const empty of document.querySelectorAll("noscript")) empty.remove();
          document.querySelector("[data-submit]").focus();
        }"""
    )


def make_tasks(slug: str, n: int, n_completions: int, *, long: bool) -> str:
    from labeling.accounts.roles import Role
    from labeling.accounts.services import create_user
    from labeling.annotation.services import create_tasks_for_prompts
    from labeling.imports.services import import_rows
    from labeling.projects.services import add_member, create_project

    draw = random.Random(slug)
    lead = create_user(username=f"lead-{slug}", password=os.urandom(16).hex())
    annotator = create_user(username=f"annotator-{slug}", password=os.urandom(16).hex())
    project = create_project(slug=slug, name=slug, created_by=lead, guideline="Short, kind, a next step.")
    add_member(project=project, user=annotator, role=Role.ANNOTATOR)
    rows = [
        {
            "prompt": f"{number}. {words(draw, 60)}?",
            "completions": [{"content": markdown(draw, 20_000 if long else draw.randint(300, 2500)), "model": "m@1"} for _ in range(n_completions)],
        }
        for number in range(n)
    ]
    lines = (json.dumps(row).encode() for row in rows)
    import_rows(project=project, format="completions", lines=lines, created_by=lead)
    create_tasks_for_prompts(project=project, completions_per_task=n_completions)
    return slug


WORDS = ["parcel", "refund", "customer", "we", "are", "sorry", "the", "mug", "is", "broken", "please", "send", "a", "picture", "and", "our", "team", "will", "see", "to", "it", "by", "Friday", "at", "no", "cost", "to", "you"]


def words(draw: random.Random, n: int) -> str:
    return " ".join(draw.choices(WORDS, k=n))


def markdown(draw: random.Random, n_characters: int) -> str:
    parts: list[str] = []
    while sum(map(len, parts)) < n_characters:
        parts.append(
            draw.choice(
                [
                    words(draw, 50),
                    f"## {words(draw, 4)}",
                    "\n".join(f"- **{words(draw, 2)}**: {words(draw, 12)}" for _ in range(4)),
                    "```python\ndef refund(order):\n    return order.total * 1.0\n```",
                    "| day | cost |\n|---|---|\n| Monday | 3 |\n| Friday | 4 |",
                ]
            )
        )
    return "\n\n".join(parts)


def summary(laps: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(laps, n=100, method="inclusive")
    return {"n": len(laps), "p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "worst": max(laps), "mean": statistics.mean(laps)}


if __name__ == "__main__":
    sys.exit(main())
