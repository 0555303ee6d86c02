from django.conf import settings
from django.db import models

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project


class ModelVersion(models.Model):
    """One model one can sample from, score with or train on: a base model or what a run made of it."""

    class Kind(models.TextChoices):
        BASE = "base", "base model"
        POLICY = "policy", "policy"
        REWARD = "reward", "reward model"

    class Stage(models.TextChoices):
        CANDIDATE = "candidate", "candidate"
        PRODUCTION = "production", "production"
        ARCHIVED = "archived", "archived"

    key = models.CharField(max_length=120, unique=True, help_text="name@version, such as smollm2-135m@3")
    name = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    stage = models.CharField(max_length=12, choices=Stage.choices, default=Stage.CANDIDATE)
    project = models.ForeignKey(
        Project,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="models",
        help_text="empty: for all",
    )
    base = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="derived")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    snapshot = models.ForeignKey(Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="models")
    folder = models.CharField(max_length=300, help_text="weights (or adapter, or head) below PREFLOOP_HOME")
    is_adapter = models.BooleanField(default=False)
    licence = models.CharField(max_length=80, blank=True)
    source = models.CharField(max_length=200, blank=True)
    files = models.JSONField(default=dict, help_text="SHA-256 of each file")
    metrics = models.JSONField(default=dict)
    lineage = models.JSONField(default=dict, help_text="run, snapshot hash, configuration, code and library versions")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "version"], name="model_version_once")]

    def __str__(self) -> str:
        return self.key


class StageChange(models.Model):
    """Who moved a model to another stage, and why."""

    model = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="stage_changes")
    from_stage = models.CharField(max_length=12)
    to_stage = models.CharField(max_length=12)
    reason = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.model}: {self.from_stage} to {self.to_stage}"
