"""Servers that answer for models of the registry. Their keys are no part of these rows: see keys.py."""

from django.conf import settings
from django.db import models

from labeling.projects.models import Project
from training.registry.models import ModelVersion


class Endpoint(models.Model):
    """An address of the OpenAI protocol where one model of the registry is served, and how hard it may be asked.

    What it says of the model never changes, so that completions sampled from it keep their lineage: for another
    address, served name or revision there is another endpoint, and this one is retired.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="endpoints")
    name = models.CharField(max_length=40)
    model = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="endpoints")
    url = models.CharField(max_length=500, help_text="up to and with /v1")
    served_model = models.CharField(max_length=200, help_text="the name that the server knows the model by")
    revision = models.CharField(max_length=200, blank=True, help_text="commit or hash of what is served")
    key_name = models.CharField(max_length=32, blank=True, help_text="of the file that holds its key; empty: none")
    concurrency = models.PositiveSmallIntegerField(default=8)
    requests_per_minute = models.PositiveIntegerField(default=0, help_text="0: no limit")
    tokens_per_minute = models.PositiveIntegerField(default=0, help_text="0: no limit")
    timeout_seconds = models.PositiveIntegerField(default=120, help_text="for one completion")
    prompt_price = models.FloatField(default=0.0, help_text="per million tokens of prompts")
    new_price = models.FloatField(default=0.0, help_text="per million tokens of completions")
    currency = models.CharField(max_length=3, blank=True, help_text="of the prices, such as EUR")
    is_active = models.BooleanField(default=True, help_text="no: retired, kept for lineage")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="endpoint_name_once")]

    def __str__(self) -> str:
        return f"endpoint {self.name}"

    @property
    def has_key(self) -> bool:
        return bool(self.key_name)

    @property
    def has_prices(self) -> bool:
        return bool(self.prompt_price or self.new_price)
