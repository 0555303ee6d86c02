"""What goes in and out of the calls about webhooks."""

from typing import Any

from rest_framework import serializers

from labeling.web.api import StrictSerializer, Text, Whole
from labeling.webhooks.addresses import MAX_URL
from labeling.webhooks.models import Delivery, Webhook
from labeling.webhooks.services import MAX_DESCRIPTION, MOST_HOURS


class NewWebhookSerializer(StrictSerializer):
    url = Text(max_length=MAX_URL, help_text="https://..., or what the operator lists")
    events = serializers.ListField(
        child=serializers.ChoiceField(Webhook.Event.choices), allow_empty=False, max_length=len(Webhook.Event),
        help_text="what it is told of",
    )  # fmt: skip
    description = Text(max_length=MAX_DESCRIPTION, allow_blank=True, required=False)


class WebhookChangesSerializer(StrictSerializer):
    url = Text(max_length=MAX_URL, required=False)
    events = serializers.ListField(
        child=serializers.ChoiceField(Webhook.Event.choices), allow_empty=False, max_length=len(Webhook.Event),
        required=False,
    )  # fmt: skip
    description = Text(max_length=MAX_DESCRIPTION, allow_blank=True, required=False)
    state = serializers.ChoiceField([Webhook.State.ACTIVE.value, Webhook.State.PAUSED.value], required=False)


class RotationSerializer(StrictSerializer):
    keep_hours = Whole(
        min_value=0, max_value=MOST_HOURS, default=24, help_text="for how long the secret before signs as well"
    )


class WebhookSerializer(serializers.Serializer):
    id = serializers.CharField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    state = serializers.ChoiceField(Webhook.State.choices, help_text="disabled: the site switched it off, see `problem`")
    problem = serializers.CharField()
    failing_since = serializers.DateTimeField(allow_null=True, help_text="null: the last try was delivered")
    old_secret_until = serializers.DateTimeField(source="old_until", allow_null=True)
    created_at = serializers.DateTimeField()


class WebhookWithSecretSerializer(WebhookSerializer):
    secret = serializers.CharField(help_text="shown this once")

    def to_representation(self, webhook: Webhook) -> dict[str, Any]:
        webhook.secret = self.context["secret"]  # type: ignore[attr-defined]
        return super().to_representation(webhook)


class TrySerializer(serializers.Serializer):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True, help_text="of the answer; null: there was none")
    error = serializers.CharField(help_text="a word, empty where it was delivered: see the docs")
    milliseconds = serializers.IntegerField()

    def to_representation(self, made: dict[str, Any]) -> dict[str, Any]:
        return made


class DeliverySerializer(serializers.Serializer):
    id = serializers.CharField()
    webhook_id = serializers.CharField(source="message_id", help_text="the header of that name, the same at every try")
    event = serializers.CharField()
    state = serializers.ChoiceField(Delivery.State.choices)
    tries = TrySerializer(many=True, help_text="oldest first, at most 20")
    next_try_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
