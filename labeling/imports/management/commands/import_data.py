"""Take a file of rows into a project."""

import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.imports import storage
from labeling.imports.errors import BadImport, ImportProblem
from labeling.imports.formats import FORMATS
from labeling.imports.services import again, run_import, start_import
from labeling.imports.storage import Upload
from labeling.projects.models import Import, Project

SAY_EVERY_SECONDS = 2.0
SHOW_REJECTED = 20


class Command(BaseCommand):
    help = (
        "Take a file into a project: JSON lines, JSON, CSV, Parquet or Arrow, also in gzip; a folder of Parquet files or one\n"
        "written by datasets.save_to_disk; or - for standard input. Good rows are kept, bad ones are named with their line;\n"
        "the same file again adds nothing, and goes on where an earlier run was stopped. Ends with status 1 if a row was refused.\n\n"
        "Examples:\n"
        "  python manage.py import_data support prompts.jsonl\n"
        "  python manage.py import_data support train.jsonl.gz --format hh_rlhf --licence MIT --tags helpful\n"
        "  python manage.py import_data support answers.csv --format preference --map prompt=question --map chosen=good\n"
        "  python manage.py import_data support export.json --format label_studio --option config=@labels.xml\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="short name of the project")
        parser.add_argument("file", metavar="FILE|FOLDER|-")
        parser.add_argument("--format", default="", help=f"recognised if left out: {', '.join(FORMATS)}")
        parser.add_argument(
            "--map", action="append", default=[], metavar="COLUMN=THEIRS", help="column of the format = column of the file"
        )
        parser.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="of the format; @PATH reads the value from a file"
        )
        parser.add_argument("--source", default="", help="where the rows come from, for those that don't say so")
        parser.add_argument("--licence", default="", help="under which licence they are, for those that don't say so")
        parser.add_argument("--tags", default="", help="added to those of each row, with commas between them")

    def handle(self, *, project: str, file: str, **options: Any) -> None:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            known = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)[:20]) or "none yet"
            raise CommandError(f"There is no project {project!r}. There are: {known}")
        try:
            record = self._begun(found, file, options)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error}") from None
        except (BadImport, ImportProblem) as error:
            raise CommandError(str(error)) from None
        self.began, self.rows_before, self.last = time.monotonic(), record.n_rows, time.monotonic()
        if record.n_rows:
            self.stderr.write(f"Going on after row {record.n_rows:,}.")
        self._conclude(run_import(record.pk, report=self._say))

    def _begun(self, project: Project, file: str, options: dict[str, Any]) -> Import:
        how = {
            "format": options["format"],
            "mapping": _pairs(options["map"], "--map"),
            "options": {name: _value(value) for name, value in _pairs(options["option"], "--option").items()},
            "source": options["source"],
            "licence": options["licence"],
            "tags": [tag for tag in (part.strip() for part in options["tags"].split(",")) if tag],
        }
        if file == "-":
            path: Path | Upload = storage.receive(sys.stdin.buffer.read)
        elif Path(file).exists():
            path = Path(file)
        else:
            raise CommandError(f"There is no {file}")
        record = start_import(project=project, path=path, filename="" if file == "-" else Path(file).name, **how)
        return again(record)

    def _say(self, record: Import) -> None:
        at = time.monotonic()
        if at - self.last < SAY_EVERY_SECONDS:
            return
        self.last = at
        share = f", {100 * record.bytes_done / record.bytes_total:.0f} %" if record.bytes_total else ""
        speed = (record.n_rows - self.rows_before) / max(at - self.began, 0.001)
        self.stderr.write(f"{record.n_rows:,} rows ({speed:,.0f} a second{share}) ...")

    def _conclude(self, record: Import) -> None:
        for row in record.rejected[:SHOW_REJECTED]:
            self.stderr.write(f"line {row['line']}: {row['reason']}")
        if record.n_rejected > SHOW_REJECTED:
            self.stderr.write(f"... and {record.n_rejected - SHOW_REJECTED:,} more; all are in {storage.rejected_file_of(record)}")
        self.stdout.write(f"{record.n_taken} rows taken, {record.n_duplicates} were there, {record.n_rejected} refused.")
        if record.n_taken:
            self.stdout.write(
                f"New: {record.n_prompts} prompts, {record.n_completions} completions, {record.n_judgements} judgements; "
                f"{record.n_near_duplicates} near-duplicates. Format {record.format}, {record.seconds:.1f} s."
            )
        if record.state != Import.State.DONE:
            raise CommandError(record.problem or f"The import is {record.state}; another process has it")
        if record.n_rejected:
            sys.exit(1)


def _pairs(given: list[str], name: str) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in given)
    if not all(pairs.values()) or "" in pairs:
        raise CommandError(f"{name} takes a name and a value: {name} name=value")
    return pairs


def _value(text: str) -> str:
    return Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
