"""One run's subprocess: launch it, follow its events, end it orderly, collect what it made."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.timezone import now

from labeling.live.services import notify
from labeling.projects.completions import store_completions
from training.registry.card import write_card
from training.registry.services import register_trained_model
from training.runs.beliefs import beliefs_against, bring_before_reviewers
from training.runs.catalogue import KINDS, makes_adapter
from training.runs.errors import OwnerLost
from training.runs.folder import run_folder, served, write_inputs
from training.runs.models import Run, RunEvent
from training.runs.services import end_run, give_run_back, heartbeat

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOP_GRACE_SECONDS = 30
EXIT_STOPPED = 3
# A recipe gets what it needs to compute, and none of the site's secrets.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "USER", "LOGNAME", "TZ")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "HF_", "OMP_", "MKL_", "TORCH_", "PYTORCH_", "ACCELERATE_")


def command(run: Run, folder: Path) -> list[str]:
    """One process is started directly: `accelerate launch` would import torch once more just to start it."""
    recipe = ["-m", f"training.recipes.{run.kind}", "--config", str(folder / "spec.yaml"), "--run_dir", str(folder)]
    return [sys.executable, *recipe]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in PASSED_ON or key.startswith(PASSED_ON_PREFIXES)}
    threads = settings.TORCH_THREADS or os.cpu_count() or 1
    return {
        **kept,
        "OMP_NUM_THREADS": kept.get("OMP_NUM_THREADS", str(threads)),
        "HF_HUB_OFFLINE": kept.get("HF_HUB_OFFLINE", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(settings.BASE_DIR),
        "PYTHONUNBUFFERED": "1",
        **({"PREFLOOP_REWARD_FUNCTIONS": ",".join(settings.REWARD_FUNCTIONS)} if settings.REWARD_FUNCTIONS else {}),
        "PREFLOOP_WATCHER_PID": str(os.getpid()),
    }


def watch_run(run: Run) -> None:
    """Execute a claimed run to its end. Never raises for what went wrong with the run: the row says it."""
    process = None
    try:
        at_endpoint, secrets = served(run)
        folder = write_inputs(run, at_endpoint)
        # A run that had finished when its worker was lost is only collected.
        if not (folder / "result.json").exists():
            with open(folder / "log.txt", "ab") as log:
                process = subprocess.Popen(
                    command(run, folder),
                    cwd=settings.BASE_DIR,
                    env={**environment(), **secrets},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            code, cancelled = _follow(run, process, folder)
        else:
            code, cancelled = 0, False
        EventReader(run, folder).read()
        _conclude(run, folder, code, cancelled)
    except OwnerLost:
        logger.warning("run %s is no longer ours", run.pk)
    except (KeyboardInterrupt, SystemExit):
        _ask_to_stop(run, process)
        give_run_back(run=run)
        raise
    except Exception as error:
        logger.exception("run %s could not be executed", run.pk)
        _end_quietly(run, f"{type(error).__name__}: {error}")
    finally:
        if process is not None:
            _kill(process)


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
            if cancel and asked_at is None:
                (folder / "stop").touch()
                asked_at = time.monotonic()
        if code is not None:
            return code, asked_at is not None
        if asked_at is not None and time.monotonic() - asked_at > STOP_GRACE_SECONDS:
            _kill(process)
        time.sleep(POLL_SECONDS)


def _ask_to_stop(run: Run, process: subprocess.Popen | None) -> None:
    if process is None or process.poll() is not None:
        return
    (run_folder(run) / "stop").touch()
    try:
        process.wait(timeout=STOP_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)


def _kill(process: subprocess.Popen) -> None:
    """The whole process group: a launcher's children too."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class EventReader:
    """Carries complete lines of events.jsonl into RunEvent rows, each once, whoever did so before."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.path = folder / "events.jsonl"
        self.number = RunEvent.objects.filter(run=run).order_by("-number").values_list("number", flat=True).first() or 0
        self.offset = self._offset_after(self.number)
        self.total_steps = 0

    def _offset_after(self, lines: int) -> int:
        if not lines or not self.path.exists():
            return 0
        with open(self.path, "rb") as file:
            for _ in range(lines):
                file.readline()
            return file.tell()

    def read(self) -> dict[str, Any]:
        """Store what is new; returns the fields of the run that follow from it."""
        if not self.path.exists():
            return {}
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            chunk = file.read(4_000_000)
        end = chunk.rfind(b"\n") + 1
        if not end:
            return {}
        rows, fields = [], {}
        for line in chunk[:end].splitlines():
            self.number += 1
            event = _parse(line)
            rows.append(
                RunEvent(
                    run=self.run, number=self.number, type=str(event.pop("type", "unknown"))[:20],
                    step=event.pop("step", None), at=_time(event.pop("at", None)), payload=event,
                )
            )  # fmt: skip
            fields |= _run_fields(rows[-1])
        with transaction.atomic():
            RunEvent.objects.bulk_create(rows, ignore_conflicts=True)
            notify(self.run.live_group, "events", last=self.number)
        self.offset += end
        return fields


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {"type": "torn"}
    return event if isinstance(event, dict) else {"type": "torn"}


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return now()


def _run_fields(event: RunEvent) -> dict[str, Any]:
    payload = event.payload
    if event.type == "progress" and payload.get("total"):
        done, total, unit = payload["done"], payload["total"], payload.get("unit", "")
        return {"progress": min(1.0, done / total), "status_text": f"{done} of {total} {unit}".strip()[:300]}
    if event.type == "status" and payload.get("state"):
        return {"status_text": str(payload["state"])[:300]}
    return {}


def _conclude(run: Run, folder: Path, code: int, cancelled: bool) -> None:
    if code == 0 and (folder / "result.json").exists():
        _collect(run, folder)
    elif cancelled or code == EXIT_STOPPED:
        end_run(run=run, state=Run.State.CANCELLED, status_text="cancelled; resuming goes on from the last checkpoint")
    else:
        end_run(run=run, state=Run.State.FAILED, status_text="failed", error=_reason(run, folder, code))


def _reason(run: Run, folder: Path, code: int) -> str:
    """What the recipe said of its failure, else the end of its log."""
    told = run.events.filter(type="error").order_by("-number").first()
    if told and told.payload.get("message"):
        return str(told.payload["message"])[:5000]
    if code == -signal.SIGKILL:
        return "The process was killed, most likely for want of memory. Try a smaller batch, then resume."
    try:
        tail = (folder / "log.txt").read_bytes()[-2000:].decode("utf-8", "replace")
    except OSError:
        tail = ""
    return f"The recipe ended with status {code}. The end of its log:\n{tail}"


def _end_quietly(run: Run, error: str) -> None:
    with contextlib.suppress(OwnerLost):
        end_run(run=run, state=Run.State.FAILED, status_text="failed", error=error[:5000])


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
            write_card(output)
            summary = f"made {output.key}"
            if against is not None and (waiting := bring_before_reviewers(run, output, against)):
                summary += f"; sure that people are wrong on {waiting} task{'s' if waiting > 1 else ''}, which reviewers will see"
        elif run.kind == "evaluate":
            summary = _evaluated(result)
        elif kind.explains:
            summary = "explained" if result["is_complete"] else "explained, with a gap: give max_path_steps more"
        else:
            taken, there = store_completions(
                project=run.project, model_key=run.model.key, path=folder / "completions.jsonl",
                facts={"run": run.pk, "adapter": run.model.key if run.model.is_adapter else None},
            )  # fmt: skip
            summary = f"{taken} new completions" + (f", {there} were there already" if there else "")
            summary += _left_out(result.get("metrics") or {})
        end_run(run=run, state=Run.State.DONE, result=result, output_model=output, progress=1.0, status_text=summary)
        if output is not None:
            notify(run.project.live_group, "model", model=output.pk)


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
