from django.db import models


class Event(models.Model):
    """Something changed: a name, never content. The `live` process tails this table by id."""

    group = models.CharField(max_length=80)
    name = models.CharField(max_length=40)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["group", "id"]), models.Index(fields=["created_at"])]

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"
