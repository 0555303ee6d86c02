"""Addresses that a project's news is sent to."""

import argparse
from typing import Any

from rich.console import Console

from training.client.client import Client
from training.client.commands._shown import command, print_json, print_table

EVENTS = ["judgement", "import", "snapshot", "run", "iteration", "model"]


def add_to(commands: Any) -> None:
    command(commands, "webhooks", list_webhooks, "list the webhooks of a project").add_argument("project")
    new = command(commands, "new-webhook", new_webhook, "tell an address of a project's news; prints its secret, this once")
    new.add_argument("project")
    new.add_argument("address")
    new.add_argument("events", nargs="+", choices=EVENTS)
    new.add_argument("--description", default="")
    for name, run, help in (
        ("test-webhook", test_webhook, "send a test, and print what came of it"),
        ("pause-webhook", pause_webhook, "tell it nothing until it is resumed"),
        ("resume-webhook", resume_webhook, "tell it of news again"),
        ("rotate-webhook", rotate_webhook, "make a new secret, and print it, this once"),
        ("delete-webhook", delete_webhook, "delete a webhook with its log"),
        ("deliveries", list_deliveries, "print what a webhook was sent, newest first"),
    ):
        command(commands, name, run, help).add_argument("id", help="id of the webhook")
    command(commands, "redeliver", redeliver, "send a message again").add_argument("id", help="id of the delivery")


def list_webhooks(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [
        (one["id"], one["state"], ",".join(one["events"]), one["url"], one["problem"] or ("failing" if one["failing_since"] else ""))
        for one in client.webhooks(options.project)
    ]
    print_table(["id", "state", "events", "address", ""], rows)
    return 0


def new_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.create_webhook(options.project, options.address, options.events, options.description))
    return 0


def test_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    delivery = client.test_webhook(options.id)
    print_json(delivery)
    return 0 if delivery["state"] == "delivered" else 1


def pause_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.change_webhook(options.id, state="paused"))
    return 0


def resume_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.change_webhook(options.id, state="active"))
    return 0


def rotate_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.rotate_webhook_secret(options.id))
    return 0


def delete_webhook(client: Client, options: argparse.Namespace, console: Console) -> int:
    client.delete_webhook(options.id)
    return 0


def list_deliveries(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = []
    for one in client.deliveries(options.id):
        newest = one["tries"][-1] if one["tries"] else None
        came = f"{newest['status'] or newest['error']} in {newest['milliseconds']} ms" if newest else ""
        rows.append((one["id"], one["event"], one["state"], len(one["tries"]), came, one["created_at"]))
    print_table(["id", "event", "state", "tries", "the newest", "at"], rows)
    return 0


def redeliver(client: Client, options: argparse.Namespace, console: Console) -> int:
    print_json(client.redeliver(options.id))
    return 0
