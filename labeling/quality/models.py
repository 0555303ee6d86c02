from django.db import models

from labeling.projects.models import Project


class QualityReport(models.Model):
    """The newest figures of a project's judgements, as `labeling.quality.reports` computed them. One row a project.

    Whoever computes has claimed the row by a conditional update; what is stored later under a lost claim is dropped.
    """

    class State(models.TextChoices):
        IDLE = "idle", "idle"
        COMPUTING = "computing", "being computed"

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="quality_report")
    state = models.CharField(max_length=10, choices=State.choices, default=State.IDLE)
    claimed_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True, help_text="why the last attempt failed")
    is_outdated = models.BooleanField(default=True, help_text="asked for again though no judgement came in")
    computed_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True, help_text="that computing took")
    up_to_judgement = models.BigIntegerField(default=0, help_text="id of the newest judgement in it")
    n_judgements = models.PositiveIntegerField(default=0)
    shape = models.PositiveSmallIntegerField(default=0, help_text="of the figures; another one means to compute again")
    figures = models.JSONField(default=dict)
    consensus = models.JSONField(
        default=dict, help_text="the model behind the consensus: priors, confusion and reliability by user id"
    )

    def __str__(self) -> str:
        return f"quality of {self.project_id}"
