"""Logging in and out, and what there is."""

import argparse
import getpass
import sys
from typing import Any

from rich.console import Console

from training.client.client import Client
from training.client.commands._shown import command, print_table, say
from training.client.login import forget_login, logged_in, login_file, store_login


def add_to(commands: Any) -> None:
    login = command(commands, "login", log_in, "store a token for a site; your password is asked for or piped in")
    login.add_argument("username", nargs="?")
    login.add_argument("--token", action="store_true", help="a token is asked for or piped in, instead of a password")
    command(commands, "logout", log_out, "forget the token of a site")
    token = command(commands, "token", print_token, "exchange a password, asked for or piped in, for a token, and print it")
    token.add_argument("username")
    command(commands, "projects", list_projects, "list your projects")


def secret(what: str) -> str:
    return getpass.getpass(f"{what}: ", stream=sys.stderr) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def log_in(client: Client, options: argparse.Namespace, console: Console) -> int:
    url, _ = logged_in(options.url)
    if options.token:
        token = secret("Token")
        with Client(url, token) as asked:
            next(asked.projects(), None)  # refused here, rather than at the next command
    else:
        username = options.username or input("Username: ")
        with Client(url) as asked:
            token = asked.token(username, secret(f"Password of {username}"))
    path = store_login(url, token)
    say(console, f"Logged in at {url}; the token is in {path}")
    return 0


def log_out(client: Client, options: argparse.Namespace, console: Console) -> int:
    url, _ = logged_in(options.url)
    was_there = forget_login(url)
    said = f"Logged out at {url}; the token itself can be revoked on your profile page" if was_there else (
        f"Nobody was logged in at {url}, says {login_file()}"
    )
    say(console, said)
    return 0 if was_there else 1


def print_token(client: Client, options: argparse.Namespace, console: Console) -> int:
    print(client.token(options.username, secret(f"Password of {options.username}")))
    return 0


def list_projects(client: Client, options: argparse.Namespace, console: Console) -> int:
    rows = [(project["slug"], project["role"], project["state"], project["name"]) for project in client.projects()]
    print_table(["project", "your role", "state", "name"], rows)
    return 0
