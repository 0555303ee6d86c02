"""Rows in, judgements out."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from training.client.client import Client
from training.client.commands._shown import bytes_bar, command, print_json, print_table, say, texts_of
from training.client.imports import FINAL_IMPORT_STATES
from training.client.types import Import


def add_to(commands: Any) -> None:
    sent = command(commands, "import", import_file, "send a file to a project: JSON lines, JSON, CSV, Parquet, Arrow, gzip")
    preview = command(commands, "preview", preview_file, "what the first rows of a file would become; takes nothing in")
    for parser in (sent, preview):
        parser.add_argument("project", help="slug of the project")
        parser.add_argument("file", type=Path)
        parser.add_argument("--format", default="", help="what the rows are (default: recognised)")
        parser.add_argument("--map", action="append", default=[], metavar="COLUMN=COLUMN_OF_FILE", help="may be repeated")
        parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the format; may be repeated")
    sent.add_argument("--source", default="", help="where the rows come from, for those that don't say so")
    sent.add_argument("--licence", default="", help="of rows that don't say so")
    sent.add_argument("--tags", default="", help="added to those of each row, with commas between")
    sent.add_argument("--no-wait", action="store_true", help="don't wait until all is taken")

    imports = command(commands, "imports", list_imports, "list the imports of a project")
    imports.add_argument("project")
    for name, run, help in (
        ("follow-import", follow_import, "watch an import until it ends"),
        ("cancel-import", cancel_import, "end an import; what was taken stays"),
        ("resume-import", resume_import, "go on with an import that failed or was cancelled"),
        ("rejected", print_rejected, "print every row of an import that was refused, as JSON lines"),
    ):
        command(commands, name, run, help).add_argument("id", help="id of the import")

    judgements = command(commands, "judgements", pull_judgements, "write the judgements that stand to a file of JSON lines")
    judgements.add_argument("project")
    judgements.add_argument("--output", type=Path, help="file to write (default: PROJECT-judgements.jsonl)")
    judgements.add_argument("--annotator-kind", help="human, imported, simulated or model (default: all)")


def choices(options: argparse.Namespace) -> dict[str, Any]:
    return {"format": options.format, "mapping": texts_of(options.map), "options": texts_of(options.option)}


def import_file(client: Client, options: argparse.Namespace, console: Console) -> int:
    tags = [tag.strip() for tag in options.tags.split(",") if tag.strip()]
    origin = {"source": options.source, "licence": options.licence, "tags": tags}
    with bytes_bar(console) as progress:
        sending = progress.add_task("sending", total=None)
        record = client.start_import(
            options.project, options.file, **choices(options), **origin,
            report=lambda sent, total: progress.update(sending, completed=sent, total=total),
        )  # fmt: skip
    if options.no_wait:
        print_json(record)
        return 0
    return shown_to_the_end(client, record["id"], console)


def shown_to_the_end(client: Client, import_id: str, console: Console) -> int:
    """A bar while it goes on, then its counts; the exit status is 0 only where it is done."""
    with bytes_bar(console) as progress:
        taking = progress.add_task("taking in", total=None)
        for record in client.follow_import(import_id):
            progress.update(taking, completed=record["bytes_done"], total=record["bytes_total"] or None)
    print_json({name: value for name, value in record.items() if name != "rejected"})
    for row in record.get("rejected", [])[:10]:
        say(console, f"line {row['line']}: {row['reason']}")
    if record["n_rejected"] > 10:
        say(console, f"... all of them: prefloop rejected {record['id']}")
    if record["problem"]:
        say(console, record["problem"], "red")
    return 0 if record["state"] == "done" else 1


def preview_file(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.preview_import(options.project, options.file, **choices(options)))
    return 0


def list_imports(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [
        (record["id"], record["state"], record["format"], record["filename"], record["n_rows"], record["n_rejected"], record["created_at"])
        for record in client.imports(options.project)
    ]
    print_table(["id", "state", "format", "file", "rows", "refused", "at"], rows)
    return 0


def follow_import(client: Client, options: argparse.Namespace, console: Console) -> int:
    return shown_to_the_end(client, options.id, console)


def cancel_import(client: Client, options: argparse.Namespace, console: Console) -> int:
    return said(client.cancel_import(options.id), console)


def resume_import(client: Client, options: argparse.Namespace, console: Console) -> int:
    record = client.resume_import(options.id)
    return said(record, console) if record["state"] in FINAL_IMPORT_STATES else shown_to_the_end(client, options.id, console)


def said(record: Import, console: Console) -> int:
    say(console, f"import {record['id']}: {record['state']}")
    return 0


def print_rejected(client: Client, options: argparse.Namespace, console: Console) -> int:
    for row in client.rejected_rows(options.id):
        print(json.dumps(row, ensure_ascii=False))
    return 0


def pull_judgements(client: Client, options: argparse.Namespace, console: Console) -> int:
    path = options.output or Path(f"{options.project}-judgements.jsonl")
    filters = {"annotator_kind": options.annotator_kind} if options.annotator_kind else {}
    with console.status("0 judgements") as status:
        n = client.pull_judgements(
            options.project, path, report=lambda n: status.update(f"{n:,} judgements") if n % 1000 == 0 else None, **filters
        )
    say(console, f"{n:,} judgements")
    print(path)
    return 0
