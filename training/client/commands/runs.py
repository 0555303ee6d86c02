"""Training runs: started, followed, stopped."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from training.client.client import Client
from training.client.commands._shown import command, plain, print_json, print_table, read_settings, say, settings_of


def add_to(commands: Any) -> None:
    command(commands, "runs", list_runs, "list the training runs of a project").add_argument("project")
    train = command(commands, "train", start_run, "start a training run, and print it")
    train.add_argument("project")
    train.add_argument("kind", help="name of the recipe, such as reward, dpo, sample")
    train.add_argument("--snapshot", help="id of the snapshot to learn from")
    train.add_argument("--model", help="key of the model to begin with, such as smollm2-135m@1")
    train.add_argument("--settings", type=Path, help="file of JSON or YAML with the recipe's settings")
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one of them, such as max_steps=100")
    train.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="for sampling")
    train.add_argument("--estimate", action="store_true", help="print what the run would take, and start nothing")
    train.add_argument("--follow", action="store_true", help="print its events until it ends")
    for name, run, help in (
        ("follow", follow_run, "print the events of a training run until it ends"),
        ("cancel", cancel_run, "stop a training run"),
        ("resume", resume_run, "go on with a failed or cancelled run from its last checkpoint"),
    ):
        command(commands, name, run, help).add_argument("run_id", metavar="run", help="id of the run")


def list_runs(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [(run["id"], run["kind"], run["state"], run["created_at"]) for run in client.runs(options.project)]
    print_table(["id", "kind", "state", "at"], rows)
    return 0


def start_run(client: Client, options: argparse.Namespace, console: Console) -> int:
    spec = {**(read_settings(options.settings) if options.settings else {}), **settings_of(options.set)}
    given = {"snapshot": options.snapshot, "model": options.model, "inputs": settings_of(options.input), "spec": spec}
    fields = {name: value for name, value in given.items() if value}
    if options.estimate:
        return show_estimate(client.estimate_run(options.project, kind=options.kind, **fields), console)
    run = client.create_run(options.project, kind=options.kind, **fields)
    if options.follow:
        say(console, f"run {run['id']}" + told_time(run))
        return shown_to_the_end(client, run["id"], console)
    print_json(run)
    return 0


def show_estimate(answer: dict[str, Any], console: Console) -> int:
    """As JSON, and what keeps the run from starting in words; the exit status is 0 only where it could start."""
    print_json(answer)
    for field, problem in answer["wrong"].items():
        say(console, f"{field} {problem}", "red")
    return 1 if answer["wrong"] else 0


def told_time(run: dict[str, Any]) -> str:
    seconds = (run.get("estimate") or {}).get("seconds")
    return f", likely {seconds['likely']:.0f} s ({seconds['low']:.0f} to {seconds['high']:.0f})" if seconds else ""


def follow_run(client: Client, options: argparse.Namespace, console: Console) -> int:
    return shown_to_the_end(client, options.run_id, console)


def shown_to_the_end(client: Client, run_id: str, console: Console) -> int:
    """Print one line an event; the exit status is 0 only where the run is done."""
    for event in client.follow_run(run_id):
        details = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in event.items()
            if name not in {"id", "type", "at"} and value is not None
        )
        print(plain(f"{event.get('at', '')} {event['type']} {details}"), flush=True)
    state = client.run(run_id)["state"]
    say(console, f"run {run_id}: {state}")
    return 0 if state == "done" else 1


def cancel_run(client: Client, options: argparse.Namespace, console: Console) -> int:
    client.cancel_run(options.run_id)
    say(console, f"run {options.run_id}: stopping")
    return 0


def resume_run(client: Client, options: argparse.Namespace, console: Console) -> int:
    client.resume_run(options.run_id)
    return shown_to_the_end(client, options.run_id, console)
