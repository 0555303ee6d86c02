"""Merge an adapter of a project into its base model."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from training.runs.following import add_run_arguments, model_named, parse_options, project_named, start_and_follow


class Command(BaseCommand):
    help = (
        "Merge an adapter into its base model, as a run, and follow it to its end. The whole model is entered beside it.\n\n"
        "Example:\n  python manage.py merge larkfell --model larkfell-dpo@3 --set dtype=bfloat16\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_run_arguments(parser)

    def handle(self, *, model: str, here: bool, estimate: bool, **options: Any) -> None:
        run = start_and_follow(
            self, here=here, estimate=estimate, project=project_named(options["project"]), kind="merge", model=model_named(model),
            spec=parse_options(options["options"]),
        )  # fmt: skip
        if run:
            self.stdout.write(run.status_text)
