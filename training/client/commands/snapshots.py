"""Freezing, comparing, describing and downloading snapshots; withdrawals."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from training.client.client import Client
from training.client.commands._shown import (
    bytes_bar,
    command,
    count_bar,
    plain,
    print_json,
    print_table,
    read_settings,
    settings_of,
)
from training.client.errors import ClientError

KINDS = ["jsonl", "jsonl.gz", "parquet", "csv", "csv.gz", "json", "settings.json", "config.xml"]


def add_to(commands: Any) -> None:
    command(commands, "snapshots", list_snapshots, "list the snapshots of a project").add_argument("project")
    freeze = command(commands, "freeze", freeze_snapshot, "freeze a snapshot, and print it")
    freeze.add_argument("project")
    freeze.add_argument("--name", default="")
    freeze.add_argument("--count", action="store_true", help="freeze nothing, only count what would be in it")
    freeze.add_argument("--settings", type=Path, help="file of JSON or YAML with filters and policy")
    freeze.add_argument("--filter", action="append", default=[], metavar="NAME=VALUE", help="such as min_agreement=0.7 or tags+=law,tax")
    freeze.add_argument("--policy", action="append", default=[], metavar="NAME=VALUE", help="such as ties=soft_label")

    download = command(commands, "download", download_split, "download one split of a snapshot; goes on where it stopped")
    download.add_argument("snapshot", help="id of the snapshot")
    download.add_argument("split", help="train or eval, for example")
    download.add_argument("--format", choices=KINDS, default="jsonl")
    download.add_argument("--view", help="preference, unpaired, sft, pairs or votes, for example (default: the site's)")
    download.add_argument("--output", type=Path, help="file to write (default: SPLIT.FORMAT)")
    download.add_argument("--sha256", help="refuse any other file than this one")

    command(commands, "card", print_card, "print the dataset card of a snapshot").add_argument("snapshot")
    diff = command(commands, "diff", print_diff, "print what another snapshot has more and less")
    diff.add_argument("snapshot")
    diff.add_argument("to", help="id of the other")

    command(commands, "withdrawals", list_withdrawals, "list who and what was taken out of training").add_argument("project")
    withdraw = command(commands, "withdraw", withdraw_rows, "take a person's judgements or a prompt out of training")
    withdraw.add_argument("project")
    withdraw.add_argument("--annotator", default="", help="username or pseudonym")
    withdraw.add_argument("--prompt", default="", help="id of a prompt")
    withdraw.add_argument("--reason", default="")
    withdraw.add_argument("--dry-run", action="store_true", help="only say which snapshots and models would be touched")
    undo = command(commands, "undo-withdrawal", undo_withdrawal, "let the rows into snapshots again")
    undo.add_argument("id", help="id of the withdrawal")


def list_snapshots(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [
        (one["id"], f"#{one['number']}", one["name"], one["n_judgements"], one["n_pairs"], one["content_hash"][:12], one["created_at"])
        for one in client.snapshots(options.project)
    ]
    print_table(["id", "", "name", "judgements", "pairs", "hash", "at"], rows)
    return 0


def freeze_snapshot(client: Client, options: argparse.Namespace, console: Console) -> int:
    wanted = read_settings(options.settings) if options.settings else {}
    if unknown := sorted(set(wanted) - {"name", "filters", "policy"}):
        raise ClientError(f"{options.settings}: {unknown[0]!r} is none of name, filters, policy")
    filters = {**(wanted.get("filters") or {}), **settings_of(options.filter)}
    policy = {**(wanted.get("policy") or {}), **settings_of(options.policy)}
    if options.count:
        print_json(client.preview_snapshot(options.project, filters=filters, policy=policy))
        return 0
    name = options.name or wanted.get("name", "")
    with count_bar(console) as progress:
        bar = progress.add_task("freezing", total=None)
        snapshot = client.freeze(
            options.project, name=name, filters=filters, policy=policy,
            report=lambda done, total: progress.update(bar, completed=done, total=total or None),
        )  # fmt: skip
    print_json(snapshot)
    return 0


def download_split(client: Client, options: argparse.Namespace, console: Console) -> int:
    with bytes_bar(console) as progress:
        bar = progress.add_task(f"{options.split}.{options.format}", total=None)
        path = client.download_snapshot(
            options.snapshot,
            options.split,
            options.format,
            options.view,
            options.output,
            sha256=options.sha256,
            report=lambda received, total: progress.update(bar, completed=received, total=total),
        )
    print(path)
    return 0


def print_card(client: Client, options: argparse.Namespace, console: Console) -> int:
    print("\n".join(map(plain, client.snapshot_card(options.snapshot).splitlines())))
    return 0


def print_diff(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.snapshot_diff(options.snapshot, options.to))
    return 0


def list_withdrawals(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [
        (one["id"], one["annotator"] or f"prompt {one['prompt']}", one["at"], "undone" if one["undone_at"] else "", one["reason"])
        for one in client.withdrawals(options.project)
    ]
    print_table(["id", "who or what", "at", "", "why"], rows)
    return 0


def withdraw_rows(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(
        client.withdraw(
            options.project, annotator=options.annotator, prompt=options.prompt, reason=options.reason, dry_run=options.dry_run
        )
    )
    return 0


def undo_withdrawal(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.undo_withdrawal(options.id))
    return 0
