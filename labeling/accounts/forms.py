from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from labeling.accounts.models import ApiToken

LIFETIMES = {"7": _("a week"), "30": _("30 days"), "90": _("90 days"), "365": _("a year")}


class TokenForm(forms.Form):
    """A new API token. `lifetime` is a timedelta in `cleaned_data`."""

    name = forms.CharField(max_length=80, help_text=_("What it is for, such as “training notebook”."))
    scopes = forms.MultipleChoiceField(
        choices=[
            (ApiToken.Scope.READ, _("read: see projects, take data out")),
            (ApiToken.Scope.ANNOTATE, _("annotate: take tasks, submit judgements")),
            (ApiToken.Scope.MANAGE, _("manage: change projects, start runs")),
        ],
        initial=[ApiToken.Scope.READ],
        widget=forms.CheckboxSelectMultiple,
    )
    project_slug = forms.ChoiceField(required=False, label=_("Project"))
    lifetime = forms.ChoiceField(choices=list(LIFETIMES.items()), initial="90", label=_("Valid for"))

    def __init__(self, *args: Any, slugs: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project_slug"].choices = [("", _("All my projects")), *slugs]

    def clean_lifetime(self) -> timedelta:
        return timedelta(days=int(self.cleaned_data["lifetime"]))
