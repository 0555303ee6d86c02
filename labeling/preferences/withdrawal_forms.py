"""Naming somebody who judged, or a prompt, to take them out of training."""

from typing import Any

from django import forms

from labeling.accounts.models import User
from labeling.projects.models import Project, Prompt
from labeling.projects.services import pseudonym_of


class WithdrawalForm(forms.Form):
    """Who or what, and why. `annotator` or `prompt` in `cleaned_data` is the row meant, the other None."""

    person = forms.CharField(
        max_length=150, required=False, label="Person", help_text="name, or the name in exports: annotator-…"
    )
    prompt = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, label="or prompt", help_text="its number")
    reason = forms.CharField(
        max_length=2000, required=False, label="Why", widget=forms.Textarea(attrs={"rows": 3}),
        help_text="kept with the withdrawal: who asked, when and how",
    )  # fmt: skip

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project

    def clean_person(self) -> User | None:
        name = self.cleaned_data["person"]
        if not name:
            return None
        found = person_called(self.project, name)
        if found is None:
            raise forms.ValidationError("Nobody of this name is in the project or judged in it")
        return found

    def clean_prompt(self) -> Prompt | None:
        number = self.cleaned_data["prompt"]
        if number is None:
            return None
        found = Prompt.objects.filter(project=self.project, pk=number).first()
        if found is None:
            raise forms.ValidationError("The project has no prompt of this number")
        return found

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        data["annotator"] = data.pop("person", None)
        if not self.errors and (data["annotator"] is None) == (data.get("prompt") is None):
            self.add_error("person", "Name a person or a prompt: one of them")
        return data

    @property
    def what(self) -> dict[str, Any]:
        """The one thing that is named, as the services take it."""
        return {name: found for name in ("annotator", "prompt") if (found := self.cleaned_data.get(name)) is not None}


def person_called(project: Project, name: str) -> User | None:
    """A member of the project or somebody who judged in it, by their own name or by the one in exports."""
    members = User.objects.filter(memberships__project=project)
    found = members.filter(username=name).first() or members.filter(memberships__pseudonym=name).first()
    if found is not None:
        return found
    # Whoever has left, and imported annotators, are in no list of members.
    judged = User.objects.filter(pk__in=project.judgements.order_by().values("annotator").distinct())
    if found := judged.filter(username=name).first():
        return found
    return next((user for user in judged.order_by("pk") if pseudonym_of(project, user) == name), None)
