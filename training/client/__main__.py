"""Command line for the REST API: python -m training.client --help"""

import argparse
import getpass
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from training.client import Client, ClientError

EXAMPLES = """\
examples:
  export PREFLOOP_URL=http://127.0.0.1:8000
  export PREFLOOP_TOKEN=$(python -m training.client token ada)
  python -m training.client import larkfell prompts.jsonl --format prompts
  python -m training.client download SNAPSHOT train --view preference --output train.jsonl
  python -m training.client follow RUN
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.client",
        description="Talk to a Prefloop site. The token is read from PREFLOOP_TOKEN.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("PREFLOOP_URL", "http://127.0.0.1:8000"),
        help="address of the site (default: PREFLOOP_URL, else %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    token = commands.add_parser("token", help="exchange a password, asked for or piped in, for a token")
    token.add_argument("username")

    import_ = commands.add_parser("import", help="send a file of JSON lines to a project")
    import_.add_argument("project", help="slug of the project")
    import_.add_argument("file", type=Path)
    import_.add_argument("--format", default="prompts", help="what the rows are (default: %(default)s)")

    download = commands.add_parser("download", help="download one split of a snapshot; goes on where it stopped")
    download.add_argument("snapshot", help="id of the snapshot")
    download.add_argument("split", help="train or eval, for example")
    download.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    download.add_argument("--view", help="preference, unpaired, sft, pairs or votes (default: the site's)")
    download.add_argument("--output", type=Path, help="file to write (default: SPLIT.FORMAT)")
    download.add_argument("--sha256", help="refuse any other file than this one")

    follow = commands.add_parser("follow", help="print the events of a training run until it ends")
    follow.add_argument("run", help="id of the run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        with Client(options.url, os.environ.get("PREFLOOP_TOKEN")) as client:
            return COMMANDS[options.command](client, options, console)
    except (ClientError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


def print_token(client: Client, options: argparse.Namespace, console: Console) -> int:
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {options.username}: ", stream=sys.stderr)
    else:
        password = sys.stdin.readline().rstrip("\n")
    print(client.token(options.username, password))
    return 0


def import_file(client: Client, options: argparse.Namespace, console: Console) -> int:
    with console.status(f"Sending {options.file}"):
        counts = client.import_rows(options.project, options.format, options.file)
    Console().print_json(data=counts)
    return 0


def download_split(client: Client, options: argparse.Namespace, console: Console) -> int:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console) as progress:
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


def follow_run(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print one line an event; the exit status is 0 only where the run is done."""
    for event in client.follow_run(options.run):
        details = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in event.items()
            if name not in {"id", "type", "at"} and value is not None
        )
        print(event.get("at", ""), event["type"], details, flush=True)
    state = client.run(options.run)["state"]
    console.print(f"run {options.run}: {state}", markup=False, highlight=False)
    return 0 if state == "done" else 1


COMMANDS = {"token": print_token, "import": import_file, "download": download_split, "follow": follow_run}

if __name__ == "__main__":
    sys.exit(main())
