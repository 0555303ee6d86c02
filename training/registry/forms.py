from django import forms

from training.registry.models import ModelVersion


class StageForm(forms.Form):
    to_stage = forms.ChoiceField(choices=ModelVersion.Stage.choices, label="Move to")
    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 2}), label="Why", help_text="kept with the change"
    )
