from typing import Any

from django import forms

from labeling.webhooks.addresses import MAX_URL
from labeling.webhooks.models import Webhook
from labeling.webhooks.services import MAX_DESCRIPTION


class WebhookForm(forms.Form):
    url = forms.CharField(
        max_length=MAX_URL, label="Address",
        widget=forms.TextInput(attrs={"inputmode": "url", "placeholder": "https://example.org/prefloop", "spellcheck": "false"}),
    )  # fmt: skip
    events = forms.MultipleChoiceField(
        choices=Webhook.Event.choices, widget=forms.CheckboxSelectMultiple, label="Tell it of"
    )
    description = forms.CharField(max_length=MAX_DESCRIPTION, required=False, help_text="what it is for")

    @staticmethod
    def initial_of(webhook: Webhook) -> dict[str, Any]:
        return {"url": webhook.url, "events": webhook.events, "description": webhook.description}
