"""One run's subprocess: launch it, follow its events, end it orderly, collect what it made."""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from labeling.database.jobs import OwnerLost
from labeling.live.services import notify
from labeling.projects.completions import store_completions
from training.registry.card import write_card
from training.registry.models import ModelVersion
from training.registry.services import register_trained_model
from training.runs.beliefs import beliefs_against, bring_before_reviewers
from training.runs.catalogue import KINDS, makes_adapter
from training.runs.disk import CHECKPOINTS, delete_checkpoints, measure, why_full
from training.runs.errors import RunError
from training.runs.events import EventReader
from training.runs.folder import run_folder, served, size_of, write_inputs
from training.runs.launchers import command, environment, processes_here, why_not_here
from training.runs.logs import trim_log
from training.runs.models import Run
from training.runs.parts import PARTS
from training.runs.services import JOBS, heartbeat
from training.runs.subprocesses import end_all, start

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOP_GRACE_SECONDS = 30
EXIT_STOPPED = 3


def watch_run(run: Run) -> None:
    """Execute a claimed run to its end. Never raises for what went wrong with the run: the row says it."""
    process, folder = None, run_folder(run)
    try:
        end_all(folder)  # of a worker that was killed a moment ago
        at_endpoint, secrets = served(run)
        write_inputs(run, at_endpoint)
        # A run that had finished when its worker was lost is only collected.
        code, cancelled, before = 0, False, _where_it_is(run, folder)
        if not (folder / "result.json").exists():
            if lacking := why_not_here(run.spec):
                raise RunError(lacking[0].upper() + lacking[1:])
            variables = {**environment(processes_here(run.spec)), **secrets}
            process = start(command(run.kind, run.spec, folder), folder, run.epoch, variables)
            code, cancelled = _follow(run, process, folder)
            end_all(folder, run.epoch, process)  # the processes of a launcher that was killed, too
        EventReader(run, folder).read()
        measure(run)
        _conclude(run, folder, code, cancelled, before)
    except OwnerLost:
        logger.warning("run %s is no longer ours", run.pk)
    except (KeyboardInterrupt, SystemExit):
        _ask_to_stop(run, process)
        JOBS.give_back(run, status_text="waiting for a worker")
        raise
    except RunError as error:
        _end_quietly(run, str(error))
    except Exception as error:
        logger.exception("run %s could not be executed", run.pk)
        _end_quietly(run, why_full() or f"{type(error).__name__}: {error}")
    finally:
        if process is not None:
            end_all(folder, run.epoch, process)


def _follow(run: Run, process: subprocess.Popen, folder: Path) -> tuple[int, bool]:
    """Watch until the process ends; returns its exit status and whether it was asked to stop. Raises OwnerLost."""
    reader = EventReader(run, folder)
    last_beat = 0.0
    asked_at: float | None = None
    while True:
        code = process.poll()
        fields = reader.read()
        beat_due = time.monotonic() - last_beat >= settings.RUN_HEARTBEAT_SECONDS
        if fields or beat_due:
            cancel = heartbeat(run=run, **fields)
            last_beat = time.monotonic()
            trim_log(folder)
            if cancel and asked_at is None:
                (folder / "stop").touch()
                asked_at = time.monotonic()
        if code is not None:
            return code, asked_at is not None
        if asked_at is not None and time.monotonic() - asked_at > STOP_GRACE_SECONDS:
            end_all(folder, run.epoch, process)
        time.sleep(POLL_SECONDS)


def _ask_to_stop(run: Run, process: subprocess.Popen | None) -> None:
    if process is None or process.poll() is not None:
        return
    (run_folder(run) / "stop").touch()
    try:
        process.wait(timeout=STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        end_all(run_folder(run), run.epoch, process)


def _conclude(run: Run, folder: Path, code: int, cancelled: bool, before: dict[str, int]) -> None:
    if code == 0 and (folder / "result.json").exists():
        _collect(run, folder)
        return
    with transaction.atomic():
        _end_unfinished(run, folder, code, cancelled, before)
        if (part := PARTS.get(run.kind)) and part.ended:
            part.ended(run, None)


def _end_unfinished(run: Run, folder: Path, code: int, cancelled: bool, before: dict[str, int]) -> None:
    if cancelled or code == EXIT_STOPPED or _was_stopped(run, before):
        JOBS.end(run, state=Run.State.CANCELLED, status_text="cancelled; resuming goes on from the last checkpoint")
    else:
        JOBS.end(run, state=Run.State.FAILED, status_text="failed", error=_reason(run, folder, code, before))


def _where_it_is(run: Run, folder: Path) -> dict[str, int]:
    """What there was before an attempt: events, and bytes of the log."""
    last = run.events.order_by("-number").values_list("number", flat=True).first()
    return {"events": last or 0, "log_bytes": size_of(folder / "log.txt")}


def _was_stopped(run: Run, before: dict[str, int]) -> bool:
    """Whether the recipe says so itself: launchers end with a status of their own."""
    last = run.events.filter(number__gt=before["events"]).order_by("-number").first()
    return last is not None and last.type == "status" and last.payload.get("state") == "stopped"


def _reason(run: Run, folder: Path, code: int, before: dict[str, int]) -> str:
    """What the recipe said of its failure this time, else the end of its log."""
    told = run.events.filter(type="error", number__gt=before["events"]).order_by("number")
    # Of several processes the first says why; the others then lose each other.
    messages = [event.payload.get("message") for event in told if event.payload.get("kind") != "OthersGone"]
    if messages and messages[0]:
        return str(messages[0])[:5000]
    if full := why_full():
        return full
    try:
        with open(folder / "log.txt", "rb") as file:
            file.seek(max(before["log_bytes"], size_of(folder / "log.txt") - 20_000))
            tail = file.read().decode("utf-8", "replace")
    except OSError:
        tail = ""
    # A launcher says by which signal one of its processes was ended.
    if code == -signal.SIGKILL or "exitcode  : -9 " in tail or "died with <Signals.SIGKILL" in tail:
        return "A process of the run was killed, most likely for want of memory. Try a smaller batch, then resume."
    return f"The recipe ended with status {code}. The end of its log:\n{tail[-2000:]}"


def _end_quietly(run: Run, error: str) -> None:
    JOBS.end_quietly(run, state=Run.State.FAILED, status_text="failed", error=error[:5000])


def _collect(run: Run, folder: Path) -> None:
    """Register what the run made and close it, in one transaction: a run is done with its model or not at all."""
    result = json.loads((folder / "result.json").read_text())
    kind = KINDS[run.kind]
    against = beliefs_against(run, folder, result)
    target = None
    if kind.makes:
        name = f"{run.project.slug}-{'reward' if kind.makes == 'reward' else run.kind}"
        target = Path(settings.MODELS) / f"{name}-run-{run.pk}"
        temporary = target.with_name(target.name + f".{run.epoch}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "model", temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    with transaction.atomic():
        output = None
        if target is not None:
            output = register_trained_model(
                name=name, kind=kind.makes, project=run.project, parent=run.model, snapshot=run.snapshot,
                folder=str(target.relative_to(settings.HOME)), is_adapter=makes_adapter(run.kind, run.spec),
                metrics=result.get("figures") or {}, lineage=_lineage(run, result), teacher=run.other_model,
            )  # fmt: skip
            _check_what_was_entered(output, result)
            write_card(output)
            summary = f"made {output.key}"
            if against is not None and (waiting := bring_before_reviewers(run, output, against)):
                summary += f"; sure that people are wrong on {waiting} task{'s' if waiting > 1 else ''}, which reviewers will see"
        elif run.kind == "evaluate":
            summary = _evaluated(result)
        elif (part := PARTS.get(run.kind)) and part.ended:
            summary = part.ended(run, result)
        elif kind.explains:
            summary = "explained" if result["is_complete"] else "explained, with a gap: give max_path_steps more"
        else:
            taken, there = store_completions(
                project=run.project, model_key=run.model.key, path=folder / "completions.jsonl",
                facts={"run": run.pk, "adapter": run.model.key if run.model.is_adapter else None},
            )  # fmt: skip
            summary = f"{taken} new completions" + (f", {there} were there already" if there else "")
            summary += _left_out(result.get("metrics") or {})
        JOBS.end(run, state=Run.State.DONE, result=result, output_model=output, progress=1.0, status_text=summary)
        if output is not None:
            notify(run.project.live_group, "model", model=output.pk)
    if not run.spec.get("keep_checkpoints") and (folder / CHECKPOINTS).exists():
        delete_checkpoints(run=run, reason="its model is entered")


def _check_what_was_entered(output: ModelVersion, result: dict[str, Any]) -> None:
    """Compare what lies in the registry with what the recipe says it wrote, before the run's checkpoints go. Raises RunError."""
    for name, written in (result.get("files") or {}).items():
        if output.files.get(name) != written["sha256"]:
            raise RunError(
                f"The file {name} of the model is not what the recipe wrote, so nothing was entered: look at the disk, "
                "then resume"
            )


def _evaluated(result: dict[str, Any]) -> str:
    """What an evaluation found, in a line."""
    figures = result.get("figures") or {}
    said = [
        f"{words} {figures[name]['value']:.2f}" for name, words in (("win_rate", "win rate"), ("reward", "reward"))
        if (figures.get(name) or {}).get("value") is not None
    ]  # fmt: skip
    return ", ".join([*said, f"on {(result.get('dataset') or {}).get('n_eval', 0):,} held-out prompts"])


def _left_out(metrics: dict[str, Any]) -> str:
    """What a sample run has no completions for, in words."""
    words = {"empty": "came out empty", "refused": "refused by the server", "not_sampled": "not sampled within the budget"}
    return "".join(f"; {metrics[name]} {text}" for name, text in words.items() if metrics.get(name))


def _lineage(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": run.pk,
        "recipe": run.kind,
        "parent": run.model.key,
        **({"teacher": run.other_model.key} if run.other_model else {}),
        "snapshot": run.snapshot.number if run.snapshot else None,
        "snapshot_hash": run.snapshot.content_hash if run.snapshot else None,
        "options": run.spec,
        "licences": (result.get("dataset") or {}).get("licences"),
        **({"rewards": run.inputs["rewards"]} if "rewards" in run.inputs else {}),
        "seed": result.get("seed"),
        "code_version": result.get("code_version"),
        "versions": result.get("versions"),
        "seconds": result.get("seconds"),
    }
