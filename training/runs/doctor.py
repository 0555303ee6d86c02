"""What this machine can start runs by, and which machines execute runs."""

from collections.abc import Iterator

from labeling.web.doctor import GOOD, WARNING, Finding
from training.runs import launchers
from training.runs.machines import in_words, machines_there


def examine_launchers() -> Iterator[Finding]:
    n_gpus = launchers.gpus_here()
    lacking = {name: launchers.why_not_here({"launcher": name, "processes": max(1, n_gpus)}) for name in launchers.launcher_names()}
    usable = [name for name, problem in lacking.items() if not problem]
    if not n_gpus:
        others = [name for name, problem in lacking.items() if problem]
        text = f"{', '.join(usable)}; {', '.join(others)} need GPUs, and this machine has none" if others else ", ".join(usable)
        yield Finding("launchers", GOOD, text)
        return
    said = [f"{name}: {problem}" for name, problem in lacking.items() if problem]
    yield Finding("launchers", GOOD, "; ".join([f"{', '.join(usable)}, with {n_gpus} GPU{'s' if n_gpus > 1 else ''}", *said]))


def examine_machines() -> Iterator[Finding]:
    machines = list(machines_there()[:20])
    for machine in machines:
        yield Finding(f"machine {machine.name}", GOOD, f"{in_words(machine.facts)}; seen {machine.seen_at:%Y-%m-%d %H:%M} UTC")
    if not machines:
        yield Finding(
            "machines", WARNING, "no worker that executes runs was seen for a day: runs wait, and their time can't be estimated",
            "python manage.py up, or celery -A config worker -Q gpu -P solo -c 1",
        )  # fmt: skip
