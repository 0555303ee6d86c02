"""Compare the files of models with the hashes that were kept when they were entered."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from training.registry.models import ModelVersion
from training.registry.verification import verify


class Command(BaseCommand):
    help = (
        "Compare the files of models with the hashes that were kept when they were entered.\n"
        "Names each that differs, is missing or is one too many, and ends with 1 where there is any.\n\n"
        "Example:\n  python manage.py verify_models support-dpo@3\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="models as name@version (default: all)")
        parser.add_argument("--project", help="short name of a project: its models alone")

    def handle(self, *, keys: list[str], project: str | None, **options: Any) -> None:
        found = ModelVersion.objects.order_by("pk")
        if project is not None:
            found = found.filter(project__slug=project)
        if keys:
            found = found.filter(key__in=keys)
            if unknown := sorted(set(keys) - set(found.values_list("key", flat=True))):
                raise CommandError(f"There is no model {', '.join(unknown)}")
        n_wrong = 0
        for model in found.iterator():
            problems = [f"{checked.name} {checked.problem}" for checked in verify(model) if checked.problem]
            n_wrong += bool(problems)
            self.stdout.write(f"{model.key}: {'; '.join(problems) or 'as it was entered'}")
        if n_wrong:
            raise CommandError(f"{n_wrong} of {found.count()} models are not as they were entered: restore a backup")
