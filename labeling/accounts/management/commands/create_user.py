"""Make an account."""

import getpass
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from labeling.accounts.errors import AccountError
from labeling.accounts.models import User
from labeling.accounts.services import create_user


class Command(BaseCommand):
    help = (
        "Make an account. Without --password it is asked for; without a terminal either, the account has none.\n\n"
        "Example:\n  python manage.py create_user ada --staff\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--password", help="seen by others on this machine while it runs: better be asked")
        parser.add_argument("--staff", action="store_true", help="may use /admin/ and make projects")
        parser.add_argument("--kind", choices=User.Kind.values, default=User.Kind.HUMAN.value)

    def handle(self, *, name: str, password: str | None, staff: bool, kind: str, **options: Any) -> None:
        if password is None and kind == User.Kind.HUMAN and sys.stdin.isatty():
            password = getpass.getpass("Password: ") or None
        try:
            user = create_user(username=name, password=password, kind=kind, is_staff=staff)
        except AccountError as error:
            raise CommandError(str(error)) from None
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        note = "" if password else " It has no password, so nobody can log in to it; tokens work."
        self.stdout.write(f"Made the account {user.username}.{note}")
