"""Sample completions of a project's prompts."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from training.runs.following import add_run_arguments, model_named, parse_options, project_named, start_and_follow


class Command(BaseCommand):
    help = (
        "Sample completions of a project's prompts and follow the run to its end.\n\n"
        "Example:\n  python manage.py sample larkfell --model smollm2-135m@1 --tag train --set temperature=0.9\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tag", action="append", default=[], help="only prompts with this tag; may be repeated")
        add_run_arguments(parser)

    def handle(self, *, tag: list[str], model: str, here: bool, **options: Any) -> None:
        run = start_and_follow(
            self, here=here, project=project_named(options["project"]), kind="sample", model=model_named(model),
            spec=parse_options(options["options"]), inputs={"tags": tag} if tag else {},
        )  # fmt: skip
        self.stdout.write(run.status_text)
