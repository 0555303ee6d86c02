from django import forms


class TasksForm(forms.Form):
    """Which tasks to make over the prompts that have none."""

    completions_per_task = forms.IntegerField(
        min_value=2,
        max_value=9,
        initial=4,
        label="Completions to a task",
        help_text="2 to 9; prompts with fewer give smaller tasks",
    )
    overlap = forms.IntegerField(
        min_value=1, max_value=50, label="Overlap", help_text="judgements wanted, each by another person"
    )
