from django.conf import settings
from django.db import models

from labeling.projects.models import Project


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
