from rest_framework import serializers

from labeling.web.api import Flag, Number, StrictSerializer, Text, Whole
from training.endpoints.services import MAX_KEY, PRICES, TEXTS, WHOLE
from training.registry.serializers import ModelReferenceSerializer


def _whole(name: str, help_text: str) -> Whole:
    return Whole(min_value=WHOLE[name][0], max_value=WHOLE[name][1], required=False, help_text=help_text)


def _price(name: str, help_text: str) -> Number:
    return Number(min_value=PRICES[name][0], max_value=PRICES[name][1], required=False, help_text=help_text)


class EndpointChangesSerializer(StrictSerializer):
    key = Text(
        max_length=MAX_KEY, allow_blank=True, required=False, help_text="sent as a bearer token; shown to nobody again"
    )
    concurrency = _whole("concurrency", "requests under way at once")
    requests_per_minute = _whole("requests_per_minute", "0: no limit")
    tokens_per_minute = _whole("tokens_per_minute", "of prompts and completions; 0: no limit")
    timeout_seconds = _whole("timeout_seconds", "for one completion")
    prompt_price = _price("prompt_price", "per million tokens of prompts")
    new_price = _price("new_price", "per million tokens of completions")
    currency = Text(max_length=3, allow_blank=True, required=False, help_text="of the prices, such as EUR")


class EndpointPatchSerializer(EndpointChangesSerializer):
    is_active = Flag(required=False, help_text="false: retired; no run uses it any more")


class NewEndpointSerializer(EndpointChangesSerializer):
    name = Text(max_length=40, help_text="small letters, digits, - and _")
    url = Text(max_length=500, help_text="up to and with /v1: https://..., or what the operator lists")
    served_model = Text(max_length=TEXTS["served_model"], help_text="the name that the server knows the model by")
    revision = Text(max_length=TEXTS["revision"], allow_blank=True, required=False, help_text="commit or hash of what is served")
    model = Text(
        max_length=120, required=False, allow_null=True,
        help_text="id or key of the model served; left out: one is entered whose weights are only there",
    )  # fmt: skip
    licence = Text(
        max_length=TEXTS["licence"], allow_blank=True, required=False, help_text="of a model that is entered with it"
    )


class EndpointSerializer(serializers.Serializer):
    id = serializers.CharField(source="pk")
    project = serializers.CharField(source="project.slug")
    name = serializers.CharField()
    model = ModelReferenceSerializer()
    url = serializers.CharField()
    served_model = serializers.CharField()
    revision = serializers.CharField()
    has_key = serializers.BooleanField()
    concurrency = serializers.IntegerField()
    requests_per_minute = serializers.IntegerField()
    tokens_per_minute = serializers.IntegerField()
    timeout_seconds = serializers.IntegerField()
    prompt_price = serializers.FloatField()
    new_price = serializers.FloatField()
    currency = serializers.CharField()
    is_active = serializers.BooleanField()
    created_at = serializers.DateTimeField()
