"""What leads send about who gets which tasks: a pool, a choice of tasks, where they go."""

from typing import Any

from django import forms

from labeling.accounts.models import User
from labeling.accounts.roles import ANNOTATING
from labeling.annotation.models import Pool, Task
from labeling.annotation.pools import tasks_like
from labeling.annotation.queue import MOST_PRIORITY
from labeling.annotation.services import pool_of_people
from labeling.annotation.services.pools import MAX_NAME
from labeling.projects.forms import CommaField
from labeling.projects.models import Import, Project

EVERYONE, PEOPLE = "everyone", "people"
MOST_CHOICES = 500
MOST_IMPORTS = 50


class PeopleField(CommaField):
    """Usernames with commas between; accounts."""

    def clean(self, value: Any) -> list[User]:
        names = super().clean(value)
        found = {user.username: user for user in User.objects.filter(username__in=names)}
        if unknown := [name for name in names if name not in found]:
            raise forms.ValidationError(f"There is no account of the name “{unknown[0]}”")
        return list(found.values())


class PoolForm(forms.Form):
    name = forms.CharField(max_length=MAX_NAME)
    languages = CommaField(label="Languages", help_text="codes with commas between, such as de, en-GB; all are needed")
    skills = CommaField(label="Skills", help_text="with commas between, such as law, sql; all are needed")
    people = PeopleField(
        label="Or people by name", help_text="usernames with commas between: for them alone, whatever they know",
        widget=forms.Textarea(attrs={"rows": 2}),
    )  # fmt: skip

    @staticmethod
    def initial_of(pool: Pool) -> dict[str, Any]:
        people = sorted(person.username for person in pool.people.all())
        lists = {"languages": pool.languages, "skills": pool.skills, "people": people}
        return {"name": pool.name} | {name: ", ".join(items) for name, items in lists.items()}


class TargetForm(forms.Form):
    """Whom tasks are for, and how soon."""

    to = forms.ChoiceField(required=False, label="For")
    people = PeopleField(label="These people", help_text="usernames with commas between, where they are for people by name")
    priority = forms.IntegerField(
        min_value=-MOST_PRIORITY, max_value=MOST_PRIORITY, required=False, label="Priority",
        help_text=f"higher goes first; 0 is usual, {MOST_PRIORITY} the most",
    )  # fmt: skip
    unchanged = ""  # what no choice of `to` means

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        to: forms.ChoiceField = self.fields["to"]  # type: ignore[assignment]
        to.choices = [
            *([("", self.unchanged)] if self.unchanged else []), (EVERYONE, "everyone"), *pool_choices(project),
            (PEOPLE, "people by name …"),
        ]  # fmt: skip

    def clean_people(self) -> list[User]:
        people = self.cleaned_data["people"]
        roles = dict(self.project.memberships.filter(user__in=people).values_list("user_id", "role"))
        for person in people:
            if roles.get(person.pk) not in ANNOTATING:
                raise forms.ValidationError(f"{person.username} judges nothing in this project")
        return people

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        is_named = data.get("to") == PEOPLE
        if is_named and not data.get("people") and "people" not in self.errors:
            self.add_error("people", "Name at least one person")
        elif data.get("people") and not is_named:
            self.add_error("people", "Choose “people by name” for them to count")
        return data

    @property
    def pool(self) -> Pool | None:
        """The pool chosen; None: everyone, or people by name."""
        to = self.cleaned_data["to"]
        return Pool.objects.get(project=self.project, pk=to) if to.isdigit() else None

    def changes(self) -> dict[str, Any]:
        """As services take them. A pool of the people named is made where there is none: raises BadPool."""
        data, changes = self.cleaned_data, {}
        if data["to"] == PEOPLE:
            changes["pool"] = pool_of_people(project=self.project, people=data["people"])
        elif data["to"]:
            changes["pool"] = self.pool
        return changes | ({} if data["priority"] is None else {"priority": data["priority"]})


class FilterForm(forms.Form):
    """Which tasks: nothing said of a field is any."""

    state = forms.ChoiceField(required=False, choices=[("", "any"), *Task.State.choices])
    pool = forms.ChoiceField(required=False, label="For")
    tag = forms.CharField(required=False, max_length=60, label="Tag of the prompt")
    iteration = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    batch = forms.ChoiceField(required=False, label="Import")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.fields["pool"].choices = [("", "any"), (EVERYONE, "everyone"), *pool_choices(project)]  # type: ignore[attr-defined]
        imports = Import.objects.filter(project=project).exclude(state=Import.State.DRAFT).order_by("-pk")
        self.fields["batch"].choices = [("", "any")] + [  # type: ignore[attr-defined]
            (str(pk), f"{pk} {filename}".strip()) for pk, filename in imports.values_list("pk", "filename")[:MOST_IMPORTS]
        ]

    @property
    def tasks(self) -> Any:
        """The tasks that are meant; none where the filter isn't one."""
        if not self.is_valid():
            return Task.objects.none()
        where = {name: value for name, value in self.cleaned_data.items() if value not in ("", None)}
        if "pool" in where:
            where["pool"] = None if where["pool"] == EVERYONE else Pool(pk=int(where["pool"]))
        if "batch" in where:
            where["batch"] = int(where["batch"])
        return tasks_like(self.project, **where)

    @property
    def sent(self) -> list[tuple[str, str]]:
        """The fields that say something, for hidden fields and addresses."""
        return [(name, value) for name in self.fields if (value := self.data.get(name, ""))]


class AssignForm(TargetForm):
    """Where the tasks that are ticked go, or all those that the filter finds."""

    unchanged = "leave as it is"
    which = forms.ChoiceField(choices=[("ticked", "those ticked"), ("all", "all that are found")])

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if not data.get("to") and data.get("priority") is None and not self.errors:
            self.add_error("to", "Choose whom they are for, or give a priority")
        return data


def pool_choices(project: Project) -> list[tuple[str, str]]:
    """Asked of the database once a request, though several forms of a page show them."""
    if "pool_choices" not in project.__dict__:
        pools = Pool.objects.filter(project=project).order_by("name")
        project.pool_choices = [(str(pk), name) for pk, name in pools.values_list("pk", "name")[:MOST_CHOICES]]
    return project.pool_choices
