"""Start a training run and follow it."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training.runs.catalogue import KINDS
from training.runs.following import add_run_arguments, model_named, parse_options, project_named, start_and_follow


class Command(BaseCommand):
    help = (
        "Train on a snapshot and follow the run to its end.\n\n"
        "Example:\n  python manage.py train dpo larkfell --snapshot 1 --model smollm2-135m@1 --set beta=0.2\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=[name for name, kind in KINDS.items() if kind.needs_snapshot])
        parser.add_argument("--snapshot", type=int, required=True, help="number of the snapshot")
        add_run_arguments(parser)

    def handle(self, *, kind: str, snapshot: int, model: str, here: bool, estimate: bool, **options: Any) -> None:
        project = project_named(options["project"])
        frozen = project.snapshots.filter(number=snapshot).first()
        if frozen is None:
            raise CommandError(f"{project.slug} has no snapshot #{snapshot}: freeze one first")
        asked = {"project": project, "kind": kind, "snapshot": frozen, "model": model_named(model), "spec": parse_options(options["options"])}
        if run := start_and_follow(self, here=here, estimate=estimate, **asked):
            self.stdout.write(f"Made {run.output_model}")
