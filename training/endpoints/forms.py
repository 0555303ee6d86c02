from typing import Any

from django import forms

from labeling.projects.models import Project
from labeling.webhooks.addresses import MAX_URL
from training.endpoints.models import Endpoint
from training.endpoints.services import MAX_KEY, PRICES, TEXTS, WHOLE
from training.registry.models import ModelVersion
from training.registry.selectors import models_of

HELP = {
    "concurrency": "requests under way at once",
    "requests_per_minute": "0: no limit",
    "tokens_per_minute": "of prompts and completions; 0: no limit",
    "timeout_seconds": "for one completion",
    "prompt_price": "per million tokens of prompts",
    "new_price": "per million tokens of completions",
}


class LimitsForm(forms.Form):
    """What may be changed later."""

    key = forms.CharField(
        required=False, max_length=MAX_KEY, help_text="kept in a file on this machine; shown to nobody again",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )  # fmt: skip
    currency = forms.CharField(required=False, max_length=3, help_text="of the prices, such as EUR")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usual = Endpoint()
        for name, (low, high) in WHOLE.items():
            self.fields[name] = forms.IntegerField(
                min_value=low, max_value=high, initial=getattr(usual, name), help_text=HELP[name]
            )
        for name, (low, high) in PRICES.items():
            self.fields[name] = forms.FloatField(
                min_value=low, max_value=high, initial=0, help_text=HELP[name],
                widget=forms.NumberInput(attrs={"step": "any"}),
            )  # fmt: skip

    @property
    def limit_fields(self) -> list[Any]:
        return [self[name] for name in (*WHOLE, *PRICES, "currency")]

    @staticmethod
    def initial_of(endpoint: Endpoint) -> dict[str, Any]:
        return {name: getattr(endpoint, name) for name in (*WHOLE, *PRICES, "currency")}


class EndpointForm(LimitsForm):
    name = forms.CharField(max_length=40, help_text="small letters, digits, - and _")
    url = forms.CharField(
        max_length=MAX_URL, label="Address", help_text="up to and with /v1",
        widget=forms.TextInput(attrs={"inputmode": "url", "placeholder": "https://example.org/v1", "spellcheck": "false"}),
    )  # fmt: skip
    served_model = forms.CharField(max_length=TEXTS["served_model"], help_text="the name that the server knows it by")
    revision = forms.CharField(max_length=TEXTS["revision"], required=False, help_text="commit or hash of what is served")
    model = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, label="Model", empty_label="one whose weights are only there",
        help_text="of the registry that this server answers for",
    )  # fmt: skip
    licence = forms.CharField(
        max_length=TEXTS["licence"], required=False, help_text="of a model whose weights are only there"
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = models_of(project).exclude(stage=ModelVersion.Stage.ARCHIVED).exclude(kind=ModelVersion.Kind.REWARD)
        self.fields["model"].queryset = models.order_by("-pk")
