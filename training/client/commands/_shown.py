"""What several commands share: options, tables, bars, and values from the command line."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from training.client._optional import needed
from training.client.client import Client
from training.client.errors import ClientError

Command = Callable[[Client, argparse.Namespace, Console], int]


def command(commands: Any, name: str, run: Command, help: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:])
    parser.set_defaults(run=run)
    return parser


def plain(text: Any) -> str:
    """On one line, and without what a terminal would obey: names and reasons come from anywhere."""
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in str(text))


def say(console: Console, text: str, style: str = "") -> None:
    console.print(plain(text), style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """To standard output, for the next program."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else plain(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000  # in a pipe, rows are never folded
    if table.row_count:
        console.print(table, markup=False, highlight=False)


def bytes_bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, console=console)


def count_bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console)


def read_settings(path: Path) -> dict[str, Any]:
    """A file of JSON or YAML that holds an object."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError as error:
        if path.suffix == ".json":
            raise ClientError(f"{path} is not JSON: {error}") from None
        yaml = needed("yaml", "PyYAML", f"{path} is not JSON; reading YAML")
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise ClientError(f"{path} is neither JSON nor YAML: {problem}") from None
    if not isinstance(found, dict):
        raise ClientError(f"{path} must hold an object: names and values")
    return found


def settings_of(pairs: Iterable[str]) -> dict[str, Any]:
    """`name=value` each; the value is JSON where it can be read so, else a text. `a,b` is a list of texts with `name+=a,b`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ClientError(f"{pair!r} must be name=value")
        if name.endswith("+"):
            found[name[:-1]] = [part.strip() for part in value.split(",") if part.strip()]
            continue
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def texts_of(pairs: Iterable[str]) -> Mapping[str, str]:
    """`name=value` each, as texts."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ClientError(f"{pair!r} must be name=value")
        found[name] = value
    return found
