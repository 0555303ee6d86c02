"""Who wants to be told of what, what was to be told, and how far the telling has come."""

import secrets

from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.projects.models import Project
from labeling.webhooks.signing import new_salt


def new_message_id() -> str:
    return "msg_" + secrets.token_hex(12)


class Webhook(models.Model):
    """An address that is told of a project's events. Its secrets are derived from the salts: see signing.py."""

    class State(models.TextChoices):
        ACTIVE = "active", "active"
        PAUSED = "paused", "paused"
        DISABLED = "disabled", "switched off"

    class Event(models.TextChoices):
        JUDGEMENT = "judgement", "judgements"
        IMPORT = "import", "imports"
        SNAPSHOT = "snapshot", "snapshots"
        RUN = "run", "training runs"
        ITERATION = "iteration", "iterations"
        MODEL = "model", "stages of models"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)
    description = models.CharField(max_length=200, blank=True)
    events = models.JSONField(default=list)
    state = models.CharField(max_length=8, choices=State.choices, default=State.ACTIVE)
    problem = models.CharField(max_length=300, blank=True, help_text="why the site switched it off")
    salt = models.CharField(max_length=32, default=new_salt)
    old_salt = models.CharField(max_length=32, blank=True, help_text="of the secret before, which signs as well for a while")
    old_until = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True, help_text="null: the last try was delivered")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"webhook {self.pk}"


class Delivery(models.Model):
    """One message to one webhook, and its tries. The body is written once, so that every try sends the same."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        SENDING = "sending", "being sent"
        DELIVERED = "delivered", "delivered"
        FAILED = "failed", "given up"

    OPEN = (State.WAITING, State.SENDING)
    TEST = "test"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    message_id = models.CharField(max_length=40, unique=True, default=new_message_id)
    event = models.CharField(max_length=12)
    body = models.TextField(help_text="JSON, as it is sent and signed")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    n_tries = models.PositiveSmallIntegerField(default=0, help_text="begun since it was last asked for")
    tries = models.JSONField(default=list, help_text="the newest: [{at, status, error, milliseconds}]")
    next_try_at = models.DateTimeField(null=True, help_text="while being sent: when its sender counts as lost")
    claim = models.CharField(max_length=32, blank=True, help_text="of the sender that may write what came of it")
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["webhook", "next_try_at"], condition=Q(next_try_at__isnull=False), name="delivery_due"
            ),
            models.Index(fields=["webhook", "-id"], name="delivery_log"),
            models.Index(fields=["ended_at"], condition=Q(ended_at__isnull=False), name="delivery_ended"),
        ]
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"delivery {self.message_id}"


class Cursor(models.Model):
    """How far one table was read, by id. `gaps` are ids below it that may yet be committed: see tail.py."""

    name = models.CharField(max_length=20, unique=True)
    position = models.BigIntegerField(default=0)
    gaps = models.JSONField(default=list, help_text="[[first, last, transactions before this one are over, noticed at]]")

    def __str__(self) -> str:
        return f"{self.name} up to {self.position}"
