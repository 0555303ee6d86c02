"""Conversations with a model: at each turn two completions, of which the chosen one goes on.

A turn is only the way to a comparison. Once both completions are there it is a prompt, two completions, a task and
a lease like any other, and what the annotator says of them is an ordinary judgement.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.annotation.models import Lease, new_public_id
from labeling.projects.models import Completion, Project, Prompt


class ConversationSettings(models.Model):
    """Whom annotators of a project talk with. `speakers` is checked by `labeling/conversation/speakers.py`."""

    class Opening(models.TextChoices):
        FREE = "free", "the annotator's own words"
        PROMPTS = "prompts", "a prompt of the project"

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="conversation_settings")
    is_on = models.BooleanField(default=False)
    speakers = models.JSONField(default=list, help_text="at least two; each turn draws two of them")
    system = models.TextField(blank=True, help_text="the system prompt of every conversation that begins from now on")
    max_turns = models.PositiveSmallIntegerField(default=10)
    note = models.TextField(blank=True, help_text="what annotators should talk about, in Markdown")
    opening = models.CharField(max_length=8, choices=Opening.choices, default=Opening.FREE)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "conversation settings"

    def __str__(self) -> str:
        return f"conversation settings of {self.project}"


class Conversation(models.Model):
    class State(models.TextChoices):
        OPEN = "open", "open"
        ENDED = "ended", "ended"

    public_id = models.CharField(max_length=32, unique=True, default=new_public_id)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    client_key = models.CharField(
        max_length=80, help_text="made by the caller: the same key again is the same conversation"
    )
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    ending = models.CharField(max_length=300, blank=True, help_text="why it ended, in the annotator's words")
    prompt = models.ForeignKey(
        Prompt, null=True, on_delete=models.SET_NULL, related_name="+", help_text="what it begins from"
    )
    opening = models.JSONField(default=list, help_text="messages before the first turn, the system prompt first")
    suggestion = models.TextField(blank=True, help_text="the first message that its prompt proposes")
    group_id = models.CharField(
        max_length=16, blank=True, help_text="shared by the prompts of all its turns, so that they fall in one split"
    )
    max_turns = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["annotator", "client_key"], name="conversation_key_once"),
        ]
        indexes = [models.Index(fields=["project", "annotator"])]

    def __str__(self) -> str:
        return f"conversation {self.public_id}"

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN


class Turn(models.Model):
    """What the annotator said, and the two completions that answer it.

    While it is being generated, one process owns it: it holds `epoch`, and every write of that process names it.
    """

    class State(models.TextChoices):
        GENERATING = "generating", "generating"
        READY = "ready", "to be judged"
        FAILED = "failed", "failed"
        JUDGED = "judged", "judged"

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveSmallIntegerField()
    attempt = models.PositiveSmallIntegerField(default=1, help_text="the highest counts: both were sampled again")
    client_key = models.CharField(max_length=80)
    content = models.TextField(help_text="the user's message, stored before anything is generated")
    state = models.CharField(max_length=12, choices=State.choices, default=State.GENERATING)
    problem = models.CharField(max_length=20, blank=True, help_text="why it failed: see errors.PROBLEMS")
    problem_detail = models.TextField(blank=True, help_text="for leads; names servers and models")
    speakers = models.JSONField(help_text="the two drawn, in the order shown, each with its seed")
    texts = models.JSONField(default=list, help_text="as much of both as was shown")
    stop_requested = models.BooleanField(default=False)
    lease = models.OneToOneField(Lease, null=True, on_delete=models.SET_NULL, related_name="turn")
    continued_with = models.ForeignKey(Completion, null=True, on_delete=models.SET_NULL, related_name="+")
    continued_text = models.TextField(blank=True)
    owner = models.CharField(max_length=80, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, help_text="ready or failed since")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["conversation", "number", "attempt"], name="turn_attempt_once"),
            models.UniqueConstraint(fields=["conversation", "client_key"], name="turn_key_once"),
        ]
        indexes = [models.Index(fields=["heartbeat_at"], condition=Q(state="generating"), name="turn_generating")]

    def __str__(self) -> str:
        return f"turn {self.number} of conversation {self.conversation_id}"
