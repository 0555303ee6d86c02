from datetime import timedelta
from typing import Any

from django import forms

from labeling.accounts.models import ApiToken

LIFETIMES = {"7": "a week", "30": "30 days", "90": "90 days", "365": "a year"}


class TokenForm(forms.Form):
    """A new API token. `lifetime` is a timedelta in `cleaned_data`."""

    name = forms.CharField(max_length=80, help_text="What it is for, such as “training notebook”.")
    scopes = forms.MultipleChoiceField(
        choices=[
            (ApiToken.Scope.READ, "read: see projects, take data out"),
            (ApiToken.Scope.ANNOTATE, "annotate: take tasks, submit judgements"),
            (ApiToken.Scope.MANAGE, "manage: change projects, start runs"),
        ],
        initial=[ApiToken.Scope.READ],
        widget=forms.CheckboxSelectMultiple,
    )
    project_slug = forms.ChoiceField(required=False, label="Project")
    lifetime = forms.ChoiceField(choices=list(LIFETIMES.items()), initial="90", label="Valid for")

    def __init__(self, *args: Any, slugs: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project_slug"].choices = [("", "All my projects"), *slugs]

    def clean_lifetime(self) -> timedelta:
        return timedelta(days=int(self.cleaned_data["lifetime"]))
