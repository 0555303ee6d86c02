from typing import Any

from django import forms

from labeling.annotation.assign_forms import EVERYONE, TargetForm
from labeling.annotation.services.tasks import MOST_COMPLETIONS
from labeling.projects.feedback import least_completions
from labeling.projects.models import Project
from labeling.projects.presets import usual_completions


class TasksForm(TargetForm):
    """Which tasks to make, within what the project's feedback form can ask of, and for whom."""

    COUNTED = ("completions_per_task", "overlap", "which")  # what the number of tasks hangs on

    completions_per_task = forms.TypedChoiceField(coerce=int, label="Completions to a task")
    overlap = forms.IntegerField(
        min_value=1, max_value=50, label="Overlap", help_text="judgements wanted, each by another person"
    )
    which = forms.ChoiceField(
        choices=[("new", "prompts without a task"), ("all", "all prompts")],
        label="Over",
        help_text="a task that is there already is never made twice",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        initial = {
            "completions_per_task": usual_completions(project.form), "overlap": project.overlap, "which": "new",
            "to": EVERYONE,
        } | kwargs.pop("initial", {})  # fmt: skip
        super().__init__(*args, initial=initial, project=project, **kwargs)
        least = least_completions(project.form)
        count: forms.ChoiceField = self.fields["completions_per_task"]  # type: ignore[assignment]
        count.choices = [(n, self._words(n)) for n in range(least, MOST_COMPLETIONS + 1)]
        count.help_text = self._why(least)

    def _words(self, n: int) -> str:
        if n == 0:
            return "none: written from nothing"
        return "1: a task for each" if n == 1 else f"up to {n}" if n > 2 else "2"

    def _why(self, least: int) -> str:
        return {
            0: "the form asks for a text written from nothing, so a task needs none",
            1: "the form asks about each completion, so one is enough",
            2: "the form asks for a ranking, so at least two",
        }[least]
