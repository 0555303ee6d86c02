"""Starting a run from the command line and waiting for its end."""

import time
from argparse import ArgumentParser
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError

from labeling.database.ownership import owner_name
from labeling.projects.models import Project
from training.endpoints.models import Endpoint
from training.registry.models import ModelVersion
from training.runs.checking import check_run
from training.runs.errors import BadSpec
from training.runs.estimates_shown import basis, in_words
from training.runs.models import Run
from training.runs.services import claim_next_run, create_run, request_cancel
from training.runs.watch import watch_run


def add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("project", help="short name of the project")
    parser.add_argument("--model", required=True, help="key of the model to begin with, such as smollm2-135m@1")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="options", help="an option of the recipe"
    )
    parser.add_argument("--estimate", action="store_true", help="say what the run would take, and start nothing")
    parser.add_argument("--here", action="store_true", help="execute in this process instead of a worker")


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """`name=value` as YAML values: numbers, true, [lists]. Raises CommandError naming the one that is wrong."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise CommandError(f"--set {pair}: write NAME=VALUE")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CommandError(f"--set {pair}: {error}") from None
    return options


def project_named(slug: str) -> Project:
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)[:20]) or "none yet"
        raise CommandError(f"There is no project {slug!r}; there are: {known}")
    return project


def model_named(key: str) -> ModelVersion:
    model = ModelVersion.objects.filter(key=key).first()
    if model is None:
        known = ", ".join(ModelVersion.objects.values_list("key", flat=True)[:20]) or "none yet"
        raise CommandError(f"There is no model {key!r}; there are: {known}")
    return model


def endpoint_named(project: Project, name: str) -> Endpoint:
    endpoint = project.endpoints.filter(name=name, is_active=True).first()
    if endpoint is None:
        known = ", ".join(project.endpoints.filter(is_active=True).values_list("name", flat=True)[:20]) or "none yet"
        raise CommandError(f"There is no endpoint {name!r} in use; there are: {known}")
    return endpoint


def say_estimate(command: BaseCommand, **arguments: Any) -> None:
    """Print what a run would take. Raises CommandError where it could not start."""
    try:
        checked = check_run(**arguments)
    except BadSpec as error:
        raise CommandError(str(error)) from None
    print_estimate(command, checked.plan.estimate)
    if checked.wrong:
        raise CommandError("; ".join(f"{name} {problem}" for name, problem in checked.wrong.items()))


def print_estimate(command: BaseCommand, estimate: dict[str, Any]) -> None:
    for name, text in in_words(estimate):
        command.stdout.write(f"  {name}: {text}")
    for note in filter(None, [basis(estimate), *estimate.get("notes", [])]):
        command.stdout.write(f"  {note}")


def start_and_follow(command: BaseCommand, *, here: bool, estimate: bool = False, **arguments: Any) -> Run | None:
    """Queue a run, show its progress, and return it when it is done. Raises CommandError where it isn't.

    With `estimate` it is only said what the run would take; returns None.
    """
    if estimate:
        return say_estimate(command, **arguments)
    try:
        run = create_run(created_by=None, **arguments)
    except BadSpec as error:
        raise CommandError("; ".join(f"{name} {problem}" for name, problem in error.fields.items())) from None
    command.stdout.write(f"Run {run.pk} ({run.kind}) is queued")
    print_estimate(command, run.estimate)
    try:
        if here:
            while (claimed := claim_next_run(owner=owner_name())) and claimed.pk != run.pk:
                watch_run(claimed)
            if claimed:
                watch_run(claimed)
            elif Run.objects.filter(pk=run.pk, state=Run.State.QUEUED).exists():
                run.refresh_from_db()
                raise CommandError(f"Run {run.pk} is {run.status_text}; a worker takes it when there is")
        shown = ""
        while True:
            run.refresh_from_db()
            line = f"{run.get_state_display()}: {run.progress:4.0%} {run.status_text}"
            if line != shown:
                command.stdout.write(line)
                shown = line
            if run.is_over:
                break
            time.sleep(0.5)
    except KeyboardInterrupt:
        request_cancel(run=run)
        raise CommandError(f"Run {run.pk} was asked to stop; resuming it goes on from its last checkpoint") from None
    if run.state != Run.State.DONE:
        raise CommandError(f"Run {run.pk} {run.get_state_display()}: {run.error or run.status_text}")
    for name, figure in (run.result.get("figures") or {}).items():
        if figure.get("value") is not None and figure.get("low") is not None:
            command.stdout.write(
                f"  {name}: {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}, n = {figure['n']})"
            )
    return run
