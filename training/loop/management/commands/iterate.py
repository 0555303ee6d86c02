"""Start an iteration, or show and push the one under way."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError

from training.loop.errors import LoopError
from training.loop.models import Iteration
from training.loop.services import advance_iteration, start_iteration
from training.registry.selectors import production_policy
from training.runs.following import model_named, project_named


class Command(BaseCommand):
    help = (
        "Start an iteration of a project, or push the one under way as far as it goes.\n"
        "It waits for judgements and runs; workers push it too.\n\n"
        "Example:\n  python manage.py iterate larkfell --policy larkfell-dpo@1\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="short name of the project")
        parser.add_argument("--policy", help="key of the policy to begin with; default: the one in production")
        parser.add_argument("--config", type=Path, help="YAML file of the iteration's configuration")

    def handle(self, *, project: str, policy: str | None, config: Path | None, **options: Any) -> None:
        found = project_named(project)
        over = [Iteration.Stage.DONE, Iteration.Stage.FAILED]
        iteration = found.iterations.exclude(stage__in=over).first()
        if iteration is None:
            model = model_named(policy) if policy else production_policy(found)
            if model is None:
                raise CommandError("No model is registered yet: name one with --policy")
            try:
                settings = yaml.safe_load(config.read_text()) if config else None
                iteration = start_iteration(project=found, policy_before=model, created_by=None, config=settings)
            except (OSError, yaml.YAMLError, LoopError) as error:
                raise CommandError(str(error)) from None
            self.stdout.write(f"Iteration {iteration.number} starts from {model.key}")
        stage = None
        while stage != iteration.stage:
            stage = iteration.stage
            iteration = advance_iteration(iteration)
            self.stdout.write(f"Iteration {iteration.number}: {iteration.get_stage_display()}")
        if iteration.stage == Iteration.Stage.FAILED:
            raise CommandError(iteration.error)
