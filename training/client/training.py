"""Models, runs and iterations."""

import time
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from training.client._connection import JSON, Connection, part
from training.client._download import Download
from training.client.types import RunEvent

# States in which a run will not change any more, until somebody resumes it.
FINAL_RUN_STATES = frozenset({"done", "failed", "cancelled"})


class TrainingCalls(Connection):
    def models(self) -> Iterator[JSON]:
        return self._pages("models/")

    def model(self, model_id: str) -> JSON:
        return self._call("GET", f"models/{part(model_id)}/")

    def create_model(self, **fields: Any) -> JSON:
        return self._call("POST", "models/", json=fields)

    def move_model(self, model_id: str, stage: str, reason: str) -> JSON:
        """To candidate, production or archived; into production and out of it, for leads."""
        return self._call("PATCH", f"models/{part(model_id)}/", json={"stage": stage, "reason": reason})

    def stage_changes(self, slug: str) -> Iterator[JSON]:
        """Every move of a project's models from stage to stage, newest first: `model`, `created_by`, `reason` and more."""
        return self._pages(f"projects/{part(slug)}/stage-changes/")

    def set_model_terms(self, model_id: str, **fields: Any) -> JSON:
        """`fields`: licence, licence_url, fee_due, acceptance_due, output_restrictions."""
        return self._call("PUT", f"models/{part(model_id)}/terms/", json=fields)

    def asked_terms(self, slug: str, model_id: str) -> list[JSON]:
        """The terms that stand over a model, each with its `terms_hash` and who `accepted` it for the project, or None."""
        return self._call("GET", f"projects/{part(slug)}/models/{part(model_id)}/terms/")

    def accept_terms(self, slug: str, model_id: str, terms_hash: str) -> list[JSON]:
        """Accept a model's own terms for a project, by the hash of those that were read; for leads."""
        return self._call("POST", f"projects/{part(slug)}/models/{part(model_id)}/terms/", json={"terms_hash": terms_hash})

    def verify_model(self, model_id: str) -> JSON:
        """`{"ok", "checked": [{"name", "sha256", "problem"}]}`: its files against the hashes kept of them."""
        return self._call("GET", f"models/{part(model_id)}/verify/")

    def model_report(self, model_id: str) -> JSON:
        """How far a reward model may be trusted, by slice of its held-out pairs."""
        return self._call("GET", f"models/{part(model_id)}/report/")

    def model_card(self, model_id: str) -> str:
        """The model card, in Markdown."""
        with self._stream(f"models/{part(model_id)}/card/", {}, {}) as response:
            response.read()
            return response.text

    def download_model(
        self, model_id: str, path: str | PathLike[str], report: Callable[[int, int | None], None] = lambda received, total: None
    ) -> Path:
        """The model as a repository of the Hugging Face hub, in a tar at `path`, which is there only when it is whole.

        It begins anew where it breaks off: `download_model_file` goes on, file by file.
        """
        download = Download(Path(path))
        self._fetch(f"models/{part(model_id)}/archive/", {}, download, report)
        return download.finish(None)

    def download_model_file(
        self,
        model_id: str,
        file: str,
        path: str | PathLike[str] | None = None,
        report: Callable[[int, int | None], None] = lambda received, total: None,
    ) -> Path:
        """One of the model's `files`, such as its GGUF, to `path` (default: its own name here), checked by its SHA-256."""
        target = Path(path or Path(file).name)
        download = Download(target, reuse=True)
        known = self.model(model_id)["files"].get(file)
        url = "/".join(map(part, file.split("/")))
        if not self._fetch(f"models/{part(model_id)}/files/{url}", {}, download, report):
            return target
        return download.finish(known)

    def lineage(self, slug: str, of: str, open: tuple[str, ...] = ()) -> JSON:
        """Nodes and edges around `of`, such as model:12, snapshot:3 or licence:MIT; all that follows from those in `open`."""
        return self._call("GET", f"projects/{part(slug)}/lineage/", params={"of": of, "open": ",".join(open)})

    def endpoints(self, slug: str) -> Iterator[JSON]:
        """Where the project's models are served."""
        return self._pages(f"projects/{part(slug)}/endpoints/")

    def create_endpoint(self, slug: str, **fields: Any) -> JSON:
        return self._call("POST", f"projects/{part(slug)}/endpoints/", json=fields)

    def change_endpoint(self, endpoint_id: str, **fields: Any) -> JSON:
        return self._call("PATCH", f"endpoints/{part(endpoint_id)}/", json=fields)

    def features(self, slug: str) -> JSON:
        """How many completions are encoded, by what, and how fast it went."""
        return self._call("GET", f"projects/{part(slug)}/features/")

    def encode(self, slug: str) -> JSON:
        """Encode now what waits; returns the run."""
        return self._call("POST", f"projects/{part(slug)}/features/encode/")

    def uncertain_pairs(self, slug: str, at_most: int = 20) -> JSON:
        """`{"model", "pairs"}`: the comparisons of which the newest reward head would learn most, one a prompt."""
        return self._call("GET", f"projects/{part(slug)}/features/uncertain/", params={"at_most": at_most})

    def encoders(self, slug: str) -> Iterator[JSON]:
        """Choices of base model, layer and pooling, with the accuracy of every layer where it was measured."""
        return self._pages(f"projects/{part(slug)}/encoders/")

    def create_encoder(self, slug: str, **fields: Any) -> JSON:
        """`fields`: model, layer, pooling, and max_length and dimensions if you like. A run of kind layers measures which."""
        return self._call("POST", f"projects/{part(slug)}/encoders/", json=fields)

    def use_encoder(self, encoder_id: str, is_active: bool = True) -> JSON:
        """Encode by it in the place of another; or, with `is_active=False`, by none."""
        return self._call("PATCH", f"encoders/{part(encoder_id)}/", json={"is_active": is_active})

    def delete_encoder(self, encoder_id: str) -> None:
        """With all that it encoded; not while it is in use."""
        self._call("DELETE", f"encoders/{part(encoder_id)}/")

    def runs(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/runs/")

    def create_run(self, slug: str, **fields: Any) -> JSON:
        """Start a run; `fields` are kind, and what it needs of snapshot, model, spec and inputs."""
        return self._call("POST", f"projects/{part(slug)}/runs/", json=fields)

    def estimate_run(self, slug: str, **fields: Any) -> JSON:
        """What a run would take, without starting it; `fields` as `create_run` takes them.

        `{"estimate": {"seconds", "memory_bytes", "disk_bytes", "cost", "notes", ...}, "wrong", "suggested"}`.
        """
        return self._call("POST", f"projects/{part(slug)}/runs/estimate/", json=fields)

    def machines(self, slug: str) -> Iterator[JSON]:
        """Those whose workers execute the project's runs, as they measured themselves."""
        return self._pages(f"projects/{part(slug)}/machines/")

    def run(self, run_id: str) -> JSON:
        return self._call("GET", f"runs/{part(run_id)}/")

    def run_events(self, run_id: str, after: str | None = None) -> Iterator[RunEvent]:
        """The events of a run so far, oldest first; with `after`, only those later than the event of that id."""
        return self._pages(f"runs/{part(run_id)}/events/", {} if after is None else {"after": after})

    def follow_run(self, run_id: str, after: str | None = None, poll_seconds: float = 1.0) -> Iterator[RunEvent]:
        """Yield the events of a run as they come, and end when the run has."""
        while True:
            # The state is read before the events, so that none of the last ones is missed.
            is_final = self.run(run_id)["state"] in FINAL_RUN_STATES
            for event in self.run_events(run_id, after):
                after = event["id"]
                yield event
            if is_final:
                return
            time.sleep(poll_seconds)

    def cancel_run(self, run_id: str) -> JSON | None:
        return self._call("POST", f"runs/{part(run_id)}/cancel/")

    def resume_run(self, run_id: str) -> JSON | None:
        return self._call("POST", f"runs/{part(run_id)}/resume/")

    def run_log(self, run_id: str) -> str:
        """What the run's processes wrote, over all of its attempts."""
        with self._stream(f"runs/{part(run_id)}/log/", {}, {}) as response:
            response.read()
            return response.text

    def run_disk(self, slug: str) -> JSON:
        """What the project's runs take of the disk, and how much they may."""
        return self._call("GET", f"projects/{part(slug)}/runs/disk/")

    def delete_checkpoints(self, run_id: str) -> JSON:
        """Of a run that is over; resumed, it then begins anew."""
        return self._call("DELETE", f"runs/{part(run_id)}/checkpoints/")

    def iterations(self, slug: str) -> Iterator[JSON]:
        return self._pages(f"projects/{part(slug)}/iterations/")

    def create_iteration(self, slug: str, **fields: Any) -> JSON:
        return self._call("POST", f"projects/{part(slug)}/iterations/", json=fields)

    def iteration(self, iteration_id: str) -> JSON:
        return self._call("GET", f"iterations/{part(iteration_id)}/")
