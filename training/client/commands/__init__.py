"""The command line: `prefloop`, or python -m training.client. One module a topic, each with `add_to`."""

import argparse
import os
import sys

from rich.console import Console

from training.client.client import Client
from training.client.commands import access, data, runs, snapshots, webhooks
from training.client.commands._shown import say
from training.client.errors import ClientError, NotLoggedIn
from training.client.login import logged_in

EXAMPLES = """\
examples:
  prefloop --url https://prefloop.example.org login ada
  prefloop import larkfell reviews.parquet --tags reviews
  prefloop freeze larkfell --filter min_agreement=0.7 --policy ties=soft_label
  prefloop download SNAPSHOT train --view preference --output train.jsonl
  prefloop train larkfell dpo --snapshot SNAPSHOT --model smollm2-135m@1 --follow
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prefloop",
        description="Talk to a Prefloop site, as whom `prefloop login` stored or the token in PREFLOOP_TOKEN.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="address of the site (default: PREFLOOP_URL, else where you logged in last)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for topic in (access, data, snapshots, runs, webhooks):
        topic.add_to(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        url, token = logged_in(options.url)
        with Client(url, token) as client:
            return options.run(client, options, console)
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except NotLoggedIn as error:
        say(console, f"error: {error}", "red")
        if options.command not in ("login", "token"):
            say(console, f"Log in first: prefloop --url {url} login")
        return 1
    except (ClientError, OSError) as error:
        say(console, f"error: {error}", "red")
        return 1
    except KeyboardInterrupt:
        return 130
