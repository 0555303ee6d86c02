"""How a project's completions are encoded, and which of them are. The work itself is done by runs of the kind `encode`."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.projects.models import Completion, Project
from training.registry.models import ModelVersion
from training.runs.models import Run


class Encoder(models.Model):
    """A choice of base model, hidden layer and pooling, and what it was chosen by. What its vectors are of never changes.

    One of a project is in use: what arrives is encoded by it.
    """

    class Pooling(models.TextChoices):
        MEAN = "mean", "mean of the tokens"
        LAST = "last", "last token"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="encoders")
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="encoders")
    layer = models.PositiveSmallIntegerField(help_text="hidden layer, from 1")
    pooling = models.CharField(max_length=4, choices=Pooling.choices)
    max_length = models.PositiveIntegerField(default=1024, help_text="tokens of prompt and completion")
    dimensions = models.PositiveSmallIntegerField(default=64, help_text="principal components that a head keeps, at most")
    evidence = models.JSONField(default=dict, help_text="of a measurement: accuracy by layer and pooling; empty: chosen by hand")
    measured_by = models.ForeignKey(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="encoders")
    is_active = models.BooleanField(default=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project"], condition=Q(is_active=True), name="one_encoder_in_use_a_project")
        ]

    def __str__(self) -> str:
        return f"encoder {self.pk} ({self.model.key}, layer {self.layer}, {self.pooling})"


class Encoded(models.Model):
    """One completion whose vector is in the encoder's files. `key` is what it is known by there."""

    encoder = models.ForeignKey(Encoder, on_delete=models.CASCADE, related_name="encoded")
    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=64, help_text="SHA-256 of prompt and completion, hexadecimal")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["encoder", "completion"], name="completion_encoded_once")]
        indexes = [models.Index(fields=["encoder", "key"])]

    def __str__(self) -> str:
        return f"completion {self.completion_id} by encoder {self.encoder_id}"
