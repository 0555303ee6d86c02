"""Figures as they were last computed; where annotators differ, what models think of it, and what reviewers settled; what gold tasks expect."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from labeling.annotation.models import Judgement, Task
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


class Look(models.Model):
    """How far a periodic task has come through the judgements."""

    name = models.CharField(max_length=40, unique=True)
    judgement_id = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} up to judgement {self.judgement_id}"


class Disagreement(models.Model):
    """How far those who judged a task differ, counted when its judgements changed: see disagreement.py."""

    task = models.OneToOneField(Task, on_delete=models.CASCADE, related_name="disagreement")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    n_people = models.PositiveSmallIntegerField()
    share = models.FloatField(null=True, help_text="of comparisons of rankings on which two people differ")
    n_comparisons = models.PositiveIntegerField(default=0)
    spread = models.FloatField(null=True, help_text="of ratings: mean distance of two people, as a share of the scale")
    n_ratings = models.PositiveIntegerField(default=0)
    contradiction = models.FloatField(null=True, help_text="how sure a model is that a confident majority is wrong")
    contradicted_by = models.CharField(max_length=120, blank=True, help_text="model key")
    urgency = models.FloatField(null=True, help_text="place in the queue of reviewers, the most first; null: not in it")
    newest_judgement = models.BigIntegerField(help_text="the newest that was counted")
    looked_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(
                "project", F("urgency").desc(), "id", condition=Q(urgency__isnull=False), name="disagreement_queue"
            )
        ]

    def __str__(self) -> str:
        return f"disagreement on task {self.task_id}"


class Contradiction(models.Model):
    """What one model thinks of the order of a task's completions. The newest of a model counts."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="contradictions")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    model_key = models.CharField(max_length=120)
    is_calibrated = models.BooleanField(help_text="its probabilities were held against held-out judgements")
    pairs = models.JSONField(help_text="[[better, worse, probability that this order is right]] in completion ids")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["task", "model_key"])]

    def __str__(self) -> str:
        return f"{self.model_key} on task {self.task_id}"


class Review(models.Model):
    """One reviewer before one task: the order they were shown, what they said before they saw the votes, and when."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="reviews")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    order_shown = models.JSONField(help_text="completion ids in the random order shown")
    said = models.JSONField(null=True, help_text="the ranking in completion ids, said before the votes were shown")
    said_none_acceptable = models.BooleanField(default=False)
    said_rationale = models.TextField(blank=True)
    said_at = models.DateTimeField(null=True)
    votes_seen_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "by"], name="one_review_a_task_and_person")]

    def __str__(self) -> str:
        return f"review of task {self.task_id}"


class Adjudication(models.Model):
    """What a reviewer settled on a task. Rows are only ever added: a newer outcome supersedes the one before.

    The database itself refuses to change one (migration `adjudications_are_append_only`); only its note to the
    guideline can be ticked off.
    """

    class Outcome(models.TextChoices):
        RANKING = "ranking", "a ranking"
        LEFT = "left", "left as it is"
        UNFIT = "unfit", "task unfit"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="adjudications")
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="adjudications")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="adjudications")
    submission_key = models.CharField(max_length=80)
    outcome = models.CharField(max_length=8, choices=Outcome.choices)
    ranking = models.JSONField(default=list, help_text="completion ids, best first, ties in one inner list")
    none_acceptable = models.BooleanField(default=False)
    rationale = models.TextField(blank=True)
    blind = models.BooleanField(help_text="a ranking was said, or all was settled, before the page showed the votes")
    votes_seen_at = models.DateTimeField(null=True)
    becomes_gold = models.BooleanField(default=False)
    note_to_guideline = models.TextField(blank=True)
    note_settled_at = models.DateTimeField(null=True)
    note_settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    supersedes = models.OneToOneField("self", null=True, on_delete=models.RESTRICT, related_name="superseded_by")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["by", "submission_key"], name="adjudication_key_once"),
            # Of two reviewers at once one is the first; the other has to supersede them knowingly.
            models.UniqueConstraint(
                fields=["task"], condition=Q(supersedes=None), name="one_first_adjudication_a_task"
            ),
        ]
        indexes = [models.Index(fields=["project", "created_at"])]

    def __str__(self) -> str:
        return f"adjudication {self.pk}"


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
