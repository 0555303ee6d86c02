"""What is encoded of a project, what waits, and how fast it went."""

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, OuterRef, QuerySet

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.annotation.selectors import prompts_removed
from labeling.projects.models import Completion, Project
from labeling.projects.selectors import projects_of
from training.features.models import Encoded, Encoder
from training.runs.models import Run

OPEN = (Run.State.QUEUED, Run.State.RUNNING)


def encoders_visible_to(user: User) -> QuerySet[Encoder]:
    """Those of the projects whose console the person reads."""
    found = Encoder.objects.filter(project__in=projects_of(user, roles=READING))
    return found.select_related("project", "model", "measured_by")


def encoder_in_use(project: Project) -> Encoder | None:
    return Encoder.objects.filter(project=project, is_active=True).select_related("project", "model").first()


def folder_of(encoder: Encoder) -> Path:
    """The encoder's files on this machine."""
    return Path(settings.HOME) / "features" / str(encoder.pk)


def completions_to_keep(project: Project) -> QuerySet[Completion]:
    """Completions whose features may be kept: not of removed prompts, nor written by people who withdrew what they did."""
    found = Completion.objects.filter(prompt__project=project).exclude(prompt__in=prompts_removed(project))
    gone = project.withdrawals.filter(undone_at=None, annotator__isnull=False).values("annotator")
    return found.exclude(author__isnull=False, author__in=gone)


def completions_waiting(encoder: Encoder) -> QuerySet[Completion]:
    """Those that are to be encoded."""
    done = Encoded.objects.filter(encoder=encoder, completion=OuterRef("pk"))
    return completions_to_keep(encoder.project).filter(~Exists(done))


def encode_runs(encoder: Encoder) -> QuerySet[Run]:
    """Newest first."""
    return Run.objects.filter(project=encoder.project, kind="encode", inputs__encoder=encoder.pk).order_by("-pk")


@dataclass(frozen=True)
class FeaturesState:
    """Of the encoder in use, if there is one. `tokens_per_second` is that of the last run that encoded anything."""

    encoder: Encoder | None
    n_completions: int
    n_encoded: int = 0
    n_bytes: int = 0
    run: Run | None = None
    tokens_per_second: float | None = None

    @property
    def n_waiting(self) -> int:
        return max(0, self.n_completions - self.n_encoded)

    @property
    def share(self) -> float:
        return self.n_encoded / self.n_completions if self.n_completions else 0.0

    @property
    def is_under_way(self) -> bool:
        return self.run is not None and self.run.state in OPEN


def state_of(project: Project) -> FeaturesState:
    encoder = encoder_in_use(project)
    n_completions = completions_to_keep(project).count()
    if encoder is None:
        return FeaturesState(None, n_completions)
    runs = list(encode_runs(encoder)[:20])
    speeds = ((run.result.get("metrics") or {}).get("tokens_per_second") for run in runs)
    shards = folder_of(encoder) / "shards"
    return FeaturesState(
        encoder, n_completions, Encoded.objects.filter(encoder=encoder).count(),
        sum(path.stat().st_size for path in shards.glob("*.safetensors")), runs[0] if runs else None,
        next((speed for speed in speeds if speed), None),
    )  # fmt: skip
