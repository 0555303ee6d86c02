"""Sample completions of a project's prompts."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from training.runs.following import (
    add_run_arguments,
    endpoint_named,
    model_named,
    parse_options,
    project_named,
    start_and_follow,
)


class Command(BaseCommand):
    help = (
        "Sample completions of a project's prompts and follow the run to its end.\n\n"
        "Example:\n  python manage.py sample larkfell --model smollm2-135m@1 --tag train --set temperature=0.9\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tag", action="append", default=[], help="only prompts with this tag; may be repeated")
        parser.add_argument("--endpoint", help="name of an endpoint that serves the model: sample there")
        add_run_arguments(parser)

    def handle(self, *, tag: list[str], endpoint: str | None, model: str, here: bool, estimate: bool, **options: Any) -> None:
        project = project_named(options["project"])
        inputs: dict[str, Any] = {"tags": tag} if tag else {}
        if endpoint is not None:
            inputs["endpoint"] = endpoint_named(project, endpoint).pk
        run = start_and_follow(
            self, here=here, estimate=estimate, project=project, kind="sample", model=model_named(model),
            spec=parse_options(options["options"]), inputs=inputs,
        )  # fmt: skip
        if run:
            self.stdout.write(run.status_text)
