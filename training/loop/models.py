from django.conf import settings
from django.db import models

from labeling.preferences.models import Snapshot
from labeling.projects.models import Project
from training.registry.models import ModelVersion
from training.runs.models import Run


class Iteration(models.Model):
    """One turn of the loop: sample, judge, freeze, train, sample again, compare."""

    class Stage(models.TextChoices):
        SAMPLING = "sampling", "sampling completions"
        COLLECTING = "collecting", "collecting judgements"
        FREEZING = "freezing", "freezing the snapshot"
        REWARD = "reward", "training the reward model"
        POLICY = "policy", "training the policy"
        RESAMPLING = "resampling", "sampling the new policy"
        COMPARING = "comparing", "comparing old and new"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="iterations")
    number = models.PositiveIntegerField()
    stage = models.CharField(max_length=12, choices=Stage.choices, default=Stage.SAMPLING)
    config = models.JSONField(default=dict)
    policy_before = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    policy_after = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    reward_model = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="+")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.PROTECT, related_name="iterations")
    sample_run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    reward_run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    policy_run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    resample_run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    baseline_run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    stage_since = models.DateTimeField(auto_now_add=True)
    stage_log = models.JSONField(default=list, help_text="[{stage, at}]")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="iteration_number_once")]

    def __str__(self) -> str:
        return f"iteration {self.number}"
