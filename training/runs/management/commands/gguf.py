"""Write a policy of a project as a quantised GGUF file."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from training.runs.following import add_run_arguments, model_named, parse_options, project_named, start_and_follow


class Command(BaseCommand):
    help = (
        "Write a policy as one quantised GGUF file, as a run, and follow it to its end. The file is entered beside it.\n\n"
        "Example:\n  python manage.py gguf larkfell --model larkfell-dpo@3 --set quantisation=q4_0\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_run_arguments(parser)

    def handle(self, *, model: str, here: bool, estimate: bool, **options: Any) -> None:
        run = start_and_follow(
            self, here=here, estimate=estimate, project=project_named(options["project"]), kind="gguf", model=model_named(model),
            spec=parse_options(options["options"]),
        )  # fmt: skip
        if run:
            self.stdout.write(run.status_text)
