"""Reads what annotators say, and what leads set."""

from typing import Any

from django import forms

from labeling.conversation.models import ConversationSettings
from labeling.conversation.services import MAX_CONTENT, MAX_TURNS
from labeling.conversation.speakers import MOST_SPEAKERS


class KeyForm(forms.Form):
    client_key = forms.RegexField(r"^[\w.-]{8,80}$")


class MessageForm(KeyForm):
    content = forms.CharField(max_length=MAX_CONTENT, strip=False)

    def clean_content(self) -> str:
        content: str = self.cleaned_data["content"].replace("\r\n", "\n").strip("\n")
        if not content.strip():
            raise forms.ValidationError(self.fields["content"].error_messages["required"])
        return content


class SpeakerForm(forms.Form):
    server = forms.ChoiceField()
    model = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"list": "models-offered", "size": 28}))
    model_key = forms.CharField(
        max_length=120, required=False, label="Key in the data", widget=forms.TextInput(attrs={"placeholder": "as the model", "size": 18}),
    )  # fmt: skip
    temperature = forms.FloatField(
        min_value=0, max_value=2, initial=0.8, widget=forms.NumberInput(attrs={"step": "0.05"})
    )
    top_p = forms.FloatField(
        min_value=0, max_value=1, initial=0.95, label="Top p", widget=forms.NumberInput(attrs={"step": "0.01"})
    )
    max_tokens = forms.IntegerField(min_value=1, max_value=4096, initial=256, label="Tokens at most")

    def __init__(self, *args: Any, servers: list[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["server"].choices = [(name, name) for name in servers]

    def has_changed(self) -> bool:
        """A row without a model is no speaker, whatever its other fields hold."""
        return bool(self.data.get(self.add_prefix("model"), "").strip()) if self.is_bound else super().has_changed()

    def speaker(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.cleaned_data.items() if value not in ("", None) and name != "DELETE"
        }


SpeakerFormSet = forms.formset_factory(SpeakerForm, extra=2, max_num=MOST_SPEAKERS, absolute_max=MOST_SPEAKERS)


class SettingsForm(forms.Form):
    is_on = forms.BooleanField(required=False, label="Annotators of this project hold conversations")
    note = forms.CharField(
        required=False, max_length=MAX_CONTENT, label="What to talk about", widget=forms.Textarea(attrs={"rows": 4}),
        help_text="annotators see it before they begin; Markdown",
    )  # fmt: skip
    opening = forms.ChoiceField(choices=ConversationSettings.Opening.choices, label="A conversation begins with")
    system = forms.CharField(
        required=False, max_length=MAX_CONTENT, label="System prompt", widget=forms.Textarea(attrs={"rows": 3}),
        help_text="the same for all speakers: both completions of a comparison answer one prompt",
    )  # fmt: skip
    max_turns = forms.IntegerField(min_value=1, max_value=MAX_TURNS, label="Turns at most")

    @staticmethod
    def initial_of(found: ConversationSettings) -> dict[str, Any]:
        return {name: getattr(found, name) for name in ("is_on", "note", "opening", "system", "max_turns")}
