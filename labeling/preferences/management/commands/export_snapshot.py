"""Write one view of a snapshot to a file, freezing a snapshot first if none is named."""

import hashlib
import os
import shutil
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.preferences.errors import PreferenceError
from labeling.preferences.services import SPLITS, create_snapshot
from labeling.preferences.views_of_snapshots import FILE_FORMATS, VIEWS, view_file
from labeling.projects.models import Project


class Command(BaseCommand):
    help = (
        "Write one view of a snapshot to a file. Without --number the project as it is now is frozen first.\n\n"
        "Example:\n  python manage.py export_snapshot support train.parquet --view preference --split train\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="short name of the project")
        parser.add_argument("file", type=Path, help="ends in .jsonl or .parquet")
        parser.add_argument("--number", type=int, help="of the snapshot (default: freeze one now)")
        parser.add_argument("--view", choices=sorted(VIEWS), default="preference", help="(%(default)s)")
        parser.add_argument("--split", choices=SPLITS, default="train", help="(%(default)s)")

    def handle(
        self, *, project: str, file: Path, number: int | None, view: str, split: str, **options: Any
    ) -> None:
        format = file.suffix.removeprefix(".")
        if format not in FILE_FORMATS:
            raise CommandError(f"{file} must end in .{' or .'.join(FILE_FORMATS)}")
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise CommandError(f"There is no project {project!r}")
        try:
            if number is None:
                snapshot = create_snapshot(project=found, created_by=None)
            else:
                snapshot = found.snapshots.filter(number=number).first()
                if snapshot is None:
                    raise CommandError(f"{project} has no snapshot #{number}")
            source = view_file(snapshot, split=split, view=view, format=format)
        except PreferenceError as error:
            raise CommandError(str(error)) from None
        try:
            digest = _copy(source, file)
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error}") from None
        self.stdout.write(
            f"{snapshot} of {project} ({snapshot.content_hash[:12]}), view {view}, {split}: "
            f"{file} ({file.stat().st_size} bytes, SHA-256 {digest})"
        )


def _copy(source: Path, target: Path) -> str:
    """Whole or not at all. Returns the hash of what was written."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(descriptor)
    try:
        shutil.copyfile(source, name)
        os.chmod(name, 0o644)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    with open(target, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
