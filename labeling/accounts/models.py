from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _


class User(AbstractUser):
    class Kind(models.TextChoices):
        HUMAN = "human", _("person")
        SIMULATED = "simulated", _("simulated annotator")
        MODEL = "model", _("model as judge")
        IMPORTED = "imported", _("imported annotator")

    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.HUMAN)
    language = models.CharField(
        max_length=8, blank=True, help_text="of the pages for annotators; empty: what the browser asks for"
    )

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind__in=["human", "simulated", "model", "imported"]),
                name="user_kind_known",
            )
        ]

    @property
    def is_person(self) -> bool:
        return self.kind == self.Kind.HUMAN


class ApiToken(models.Model):
    """A key to the REST API. Only its digest is stored; the token itself is shown once."""

    class Scope(models.TextChoices):
        READ = "read", "read"
        ANNOTATE = "annotate", "annotate"
        MANAGE = "manage", "manage"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    prefix = models.CharField(max_length=12)
    scopes = models.JSONField(default=list)
    project_slug = models.SlugField(blank=True, help_text="empty: every project of the person")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"
