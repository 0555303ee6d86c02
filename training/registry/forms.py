from typing import Any

from django import forms

from labeling.projects.models import Project
from training.registry.importing import folders_to_import
from training.registry.models import ModelVersion
from training.registry.selectors import models_of


class StageForm(forms.Form):
    to_stage = forms.ChoiceField(choices=ModelVersion.Stage.choices, label="Move to")
    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 2}), label="Why", help_text="kept with the change"
    )

    def __init__(self, *args: Any, may_promote: bool, is_in_production: bool, **kwargs: Any) -> None:
        """Who may not promote is offered the other stages alone; what they send all the same is refused."""
        super().__init__(*args, **kwargs)
        if not may_promote:
            held_back = {ModelVersion.Stage.PRODUCTION}
            choices = [choice for choice in ModelVersion.Stage.choices if choice[0] not in held_back]
            self.fields["to_stage"].choices = [] if is_in_production else choices


class TermsForm(forms.Form):
    licence = forms.CharField(max_length=80, help_text="its name, such as Apache-2.0")
    licence_url = forms.URLField(
        max_length=300, required=False, assume_scheme="https", label="Where it can be read",
    )  # fmt: skip
    fee_due = forms.BooleanField(required=False, label="A fee is due, or is in some cases")
    acceptance_due = forms.BooleanField(required=False, label="Its maker asks that somebody accepts the terms first")
    output_restrictions = forms.CharField(
        max_length=4000, required=False, widget=forms.Textarea(attrs={"rows": 4}), label="Restrictions on outputs",
        help_text="such as: no other model may be trained on its completions",
    )  # fmt: skip


class ImportForm(TermsForm):
    """An archive that is sent, or a folder of the server."""

    file = forms.FileField(required=False, allow_empty_file=True, label="Archive")
    folder = forms.ChoiceField(
        choices=[], required=False, label="Or a folder of the server", help_text="below those that the operator allows"
    )  # fmt: skip
    name = forms.RegexField(r"^[a-z0-9][a-z0-9._-]{0,99}\Z", help_text="small letters, digits, . _ -")
    kind = forms.ChoiceField(choices=[("policy", "policy"), ("reward", "reward model")])
    base = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, label="Base model", empty_label="none: a whole model",
        help_text="of an adapter, the model it was made for",
    )  # fmt: skip
    source = forms.CharField(max_length=200, required=False, help_text="where it comes from")
    plain_template = forms.BooleanField(
        required=False, label="Where it has no chat template, give it a plain one", help_text="User: … Assistant: …"
    )

    def __init__(self, *args: Any, project: Project, is_operator: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["folder"].choices = [("", "none: an archive is sent"), *((folder, folder) for folder in folders_to_import())]
        if is_operator:
            self.fields["kind"].choices = [*self.fields["kind"].choices, ("base", "base model, for all projects")]
        bases = models_of(project).filter(kind=ModelVersion.Kind.BASE).exclude(stage=ModelVersion.Stage.ARCHIVED)
        self.fields["base"].queryset = bases.order_by("-pk")
        self.order_fields(["file", "folder", "name", "kind", "base", "plain_template", "source"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not cleaned.get("file") and not cleaned.get("folder") and not self.errors.keys() & {"file", "folder"}:
            self.add_error("file", "Choose an archive, or a folder of the server.")
        elif cleaned.get("file") and cleaned.get("folder"):
            self.add_error("folder", "An archive is sent: leave this at none.")
        return cleaned
