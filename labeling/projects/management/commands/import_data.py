"""Take a file of rows into a project."""

import gzip
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError

from labeling.projects.errors import ProjectError
from labeling.projects.imports import FORMATS, MAX_LINE_BYTES, import_rows
from labeling.projects.models import Project

SAY_EVERY_SECONDS = 2.0
SHOW_REJECTED = 20


class Command(BaseCommand):
    help = (
        "Take JSON lines (plain or .gz, or - for standard input) into a project. Good rows are kept, bad ones are\n"
        "named with their line; the same file twice adds nothing. Ends with status 1 if a row was refused.\n\n"
        "Example:\n  python manage.py import_data support prompts.jsonl --format prompts\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="short name of the project")
        parser.add_argument("file")
        parser.add_argument("--format", choices=FORMATS, default="prompts", help="(%(default)s)")

    def handle(self, *, project: str, file: str, format: str, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            known = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)[:20]) or "none yet"
            raise CommandError(f"There is no project {project!r}. There are: {known}")
        try:
            with _opened(file) as lines:
                record = import_rows(
                    project=found, format=format, lines=self._told(lines), created_by=None, filename=Path(file).name
                )
        except (OSError, EOFError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from None
        except ProjectError as error:
            raise CommandError(str(error)) from None
        for row in record.rejected[:SHOW_REJECTED]:
            self.stderr.write(f"line {row['line']}: {row['reason']}")
        if record.n_rejected > SHOW_REJECTED:
            self.stderr.write(f"... and {record.n_rejected - SHOW_REJECTED} more")
        self.stdout.write(
            f"{record.n_taken} rows taken, {record.n_duplicates} were there, {record.n_rejected} refused."
        )
        if record.n_rejected:
            sys.exit(1)

    def _told(self, lines: BinaryIO) -> Iterator[bytes]:
        last, count = time.monotonic(), 0
        # A line is cut a little above what the importer takes, so that one without end doesn't fill the memory.
        limit = MAX_LINE_BYTES + 2
        while line := lines.readline(limit):
            count += 1
            rest = line
            while len(rest) == limit and not rest.endswith(b"\n"):
                rest = lines.readline(limit)
            if time.monotonic() - last > SAY_EVERY_SECONDS:
                last = time.monotonic()
                self.stderr.write(f"{count} lines read ...")
            yield line


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with open(file, "rb") as raw:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(raw) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield raw
