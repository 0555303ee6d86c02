"""Compare the files of snapshots with the hashes that were kept when they were frozen."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.preferences.models import Snapshot
from labeling.preferences.verification import verify


class Command(BaseCommand):
    help = (
        "Compare the files of snapshots with the hashes that were kept when they were frozen.\n"
        "Ends with 1 where one differs or is missing.\n\n"
        "Example:\n  python manage.py verify_snapshots support --number 3\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", nargs="?", help="short name of the project (default: all)")
        parser.add_argument("--number", type=int, help="of the snapshot (default: all)")

    def handle(self, *, project: str | None, number: int | None, **options: Any) -> None:
        found = Snapshot.objects.select_related("project").order_by("project__slug", "number")
        if project is not None:
            found = found.filter(project__slug=project)
        if number is not None:
            found = found.filter(number=number)
        if not found.exists() and (project is not None or number is not None):
            raise CommandError("There is no such snapshot")
        n_wrong = 0
        for snapshot in found.iterator():
            problems = [f"{checked.name} {checked.problem}" for checked in verify(snapshot) if checked.problem]
            n_wrong += bool(problems)
            self.stdout.write(f"{snapshot.project.slug} {snapshot}: {'; '.join(problems) or 'as it was frozen'}")
        if n_wrong:
            raise CommandError(f"{n_wrong} of {found.count()} snapshots are not as they were frozen: restore a backup")
