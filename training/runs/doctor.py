"""What this machine can start runs by."""

from collections.abc import Iterator

from labeling.web.doctor import GOOD, Finding
from training.runs import launchers


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
