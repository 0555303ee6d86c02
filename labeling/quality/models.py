"""Gold tasks' answers, and what people answered to them while they qualified."""

from django.conf import settings
from django.db import models

from labeling.annotation.models import Judgement, Task
from labeling.projects.models import Project


class GoldAnswer(models.Model):
    """What a judgement of a gold task should say. A retired one is in `Task.state`, too: its task is closed."""

    task = models.OneToOneField(Task, on_delete=models.CASCADE, related_name="gold_answer")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gold_answers")
    expected = models.JSONField(help_text="parts of a judgement, completions named by id: see gold.py")
    explanation = models.TextField(blank=True, help_text="shown to those who are qualifying")
    promoted_from = models.ForeignKey(Task, null=True, on_delete=models.SET_NULL, related_name="+")
    written_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"answer to gold {self.task}"


class QualificationAnswer(models.Model):
    """An answer that its annotator was told the truth about. As scored then: a later change of the gold leaves it."""

    judgement = models.OneToOneField(Judgement, on_delete=models.CASCADE, related_name="qualification_answer")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    score = models.FloatField()
    is_right = models.BooleanField()
    number = models.PositiveSmallIntegerField(help_text="in the round, from 1")
    n = models.PositiveSmallIntegerField(help_text="of the round")
    n_right = models.PositiveSmallIntegerField(help_text="so far, this one included")
    outcome = models.CharField(max_length=12, help_text="going on, passed, failed")
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["project", "annotator", "at"])]

    def __str__(self) -> str:
        return f"qualification answer {self.number} of {self.n}"
