from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.projects.models import Project, Prompt


class Snapshot(models.Model):
    """A frozen preference dataset, named by the SHA-256 of its canonical rows. Its files are never written again."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=120, blank=True)
    content_hash = models.CharField(max_length=64)
    filters = models.JSONField(default=dict)
    policy = models.JSONField(default=dict, help_text="what the trainer sees of ties, strengths and rankings")
    manifest = models.JSONField(default=dict)
    n_judgements = models.PositiveIntegerField()
    n_pairs = models.PositiveIntegerField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="snapshot_number_once")]
        indexes = [models.Index(fields=["project", "content_hash"])]

    def __str__(self) -> str:
        return f"snapshot #{self.number}"

    @property
    def folder(self) -> str:
        """Name of its folder under settings.FILES / snapshots: content-addressed."""
        return self.content_hash


class Withdrawal(models.Model):
    """What may no longer be trained on: one person's judgements of a project, or one prompt with all that was said on it.

    It stands from the moment it is recorded until it is undone. Snapshots frozen while it stands leave the rows out.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="withdrawals")
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="withdrawals"
    )
    prompt = models.ForeignKey(Prompt, null=True, blank=True, on_delete=models.CASCADE, related_name="withdrawals")
    reason = models.TextField(blank=True)
    closed_tasks = models.JSONField(default=list, help_text="ids of the prompt's tasks that were open; undoing opens them")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    undone_at = models.DateTimeField(null=True)
    undone_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(annotator=None, prompt__isnull=False) | Q(annotator__isnull=False, prompt=None),
                name="withdrawal_of_a_person_or_a_prompt",
            ),
            models.UniqueConstraint(
                fields=["project", "annotator"],
                condition=Q(undone_at=None, annotator__isnull=False),
                name="one_standing_withdrawal_a_person",
            ),
            models.UniqueConstraint(
                fields=["prompt"],
                condition=Q(undone_at=None, prompt__isnull=False),
                name="one_standing_withdrawal_a_prompt",
            ),
        ]
        indexes = [models.Index(fields=["project", "-id"])]

    def __str__(self) -> str:
        return f"withdrawal {self.pk}"

    @property
    def stands(self) -> bool:
        return self.undone_at is None


class Freeze(models.Model):
    """A snapshot being frozen in the background. A worker killed on the way leaves it to be started again.

    Whoever holds (`owner`, `epoch`) may write; each new owner raises the epoch, so a stale one writes nothing.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        FREEZING = "freezing", "freezing"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    ENDED = (State.DONE, State.FAILED)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="freezes")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    name = models.CharField(max_length=120, blank=True)
    filters = models.JSONField(default=dict)
    policy = models.JSONField(default=dict)
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.SET_NULL, related_name="freezes")
    problem = models.TextField(blank=True)
    n_done = models.PositiveIntegerField(default=0, help_text="tasks")
    n_total = models.PositiveIntegerField(default=0, help_text="tasks; 0: not counted yet")
    owner = models.CharField(max_length=120, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    enqueued_at = models.DateTimeField(null=True, help_text="when a worker was last woken for it")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["state", "heartbeat_at"]), models.Index(fields=["project", "-id"])]

    def __str__(self) -> str:
        return f"freeze {self.pk}"

    @property
    def is_over(self) -> bool:
        return self.state in self.ENDED

    @property
    def share(self) -> float | None:
        """Of the tasks, 0 to 1; None before they are counted."""
        return self.n_done / self.n_total if self.n_total else None
