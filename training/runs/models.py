from django.conf import settings
from django.db import models

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion


class Machine(models.Model):
    """A machine whose worker executes runs, as it measured itself."""

    name = models.CharField(max_length=120, unique=True, help_text="its host name: what stands first in the owner of a run")
    facts = models.JSONField(default=dict, help_text="cores, memory, GPUs and speeds: see training/sampling/machine.py")
    measured_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.name


class Run(models.Model):
    """One subprocess of a GPU worker, and the row that owns it.

    Whoever holds (`owner`, `epoch`) may write; each new owner raises the epoch, so a stale one writes nothing.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued"
        RUNNING = "running", "running"
        DONE = "done", "done"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    ENDED = (State.DONE, State.FAILED, State.CANCELLED)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    kind = models.CharField(max_length=20, help_text="name of the recipe")
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    spec = models.JSONField(default=dict, help_text="what the recipe is given, beside data and models")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    model = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="runs_from",
        help_text="input",
    )
    reward_models = models.ManyToManyField(
        ModelVersion, blank=True, related_name="rewarding_runs", help_text="whose rewards the policy is trained on"
    )
    other_model = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="runs_beside",
        help_text="the teacher of a distill run, the reference of an evaluate run",
    )  # fmt: skip
    output_model = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="made_by"
    )
    inputs = models.JSONField(default=dict, help_text="for sampling: prompt ids and what to do with completions")
    owner = models.CharField(max_length=120, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(null=True, help_text="when a worker was last woken for it")
    attempts = models.PositiveSmallIntegerField(default=0)
    cancel_requested_at = models.DateTimeField(null=True)
    progress = models.FloatField(default=0.0, help_text="share done, 0 to 1")
    status_text = models.CharField(max_length=300, blank=True)
    error = models.TextField(blank=True)
    result = models.JSONField(default=dict)
    disk_bytes = models.PositiveBigIntegerField(default=0, help_text="of its folder, when it was last counted")
    checkpoint_bytes = models.PositiveBigIntegerField(default=0, help_text="of that, of its checkpoints")
    measured_at = models.DateTimeField(null=True, help_text="when the bytes were counted")
    checkpoints_deleted_at = models.DateTimeField(null=True, help_text="from then on it can only begin anew")
    estimate = models.JSONField(default=dict, help_text="what it would take, as was said before it was queued")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["state", "heartbeat_at"]),
            models.Index(fields=["project", "-id"]),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} ({self.kind})"

    @property
    def is_over(self) -> bool:
        return self.state in self.ENDED

    @property
    def live_group(self) -> str:
        return f"run.{self.pk}"


class RunEvent(models.Model):
    """One line of the run folder's events.jsonl, in order."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    number = models.PositiveIntegerField(help_text="line of events.jsonl, from 1")
    type = models.CharField(max_length=20)
    step = models.PositiveIntegerField(null=True)
    payload = models.JSONField(default=dict)
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="run_event_once")]

    def __str__(self) -> str:
        return f"event {self.number} of run {self.run_id}"
