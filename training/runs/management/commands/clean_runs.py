"""Delete checkpoints of runs whose time is over, and count what runs take of the disk."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand
from django.template.defaultfilters import filesizeformat

from training.runs.disk import clean_runs, due_runs, measure_runs
from training.runs.following import project_named


class Command(BaseCommand):
    help = (
        "Delete the checkpoints of runs that are done, and of those that failed or were cancelled some days ago.\n"
        "What runs made stays, and so do logs and events. The worker does the same every hour.\n\n"
        "Example:\n  python manage.py clean_runs support --older-than 3 --dry-run\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", nargs="?", help="short name of a project (default: all)")
        parser.add_argument("--older-than", type=int, metavar="DAYS", help="instead of PREFLOOP_RUN_CHECKPOINT_DAYS")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    def handle(self, *, project: str | None, older_than: int | None, dry_run: bool, **options: Any) -> None:
        only = project_named(project) if project else None
        measure_runs()
        if dry_run:
            found = [(run, run.checkpoint_bytes) for run in due_runs(only, days=older_than)]
        else:
            found = clean_runs(only, days=older_than)
        for run, n_bytes in found:
            self.stdout.write(f"run {run.pk} ({run.kind}, {run.get_state_display()}): {filesizeformat(n_bytes)}")
        total = filesizeformat(sum(n_bytes for _, n_bytes in found))
        self.stdout.write(f"{len(found)} runs, {total} {'would be' if dry_run else 'are'} free")
