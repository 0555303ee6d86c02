"""Make a token for the REST API and print it, once."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.accounts.errors import AccountError
from labeling.accounts.models import ApiToken, User
from labeling.accounts.services import create_token


class Command(BaseCommand):
    help = (
        "Make a token for the REST API. Only the token goes to standard output, and it is not shown again.\n\n"
        "Example:\n  TOKEN=$(python manage.py create_token ada --scopes read annotate --days 30)\n"
    )

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="whose token it is")
        parser.add_argument("--label", default="command line", help="what it is for (%(default)s)")
        parser.add_argument(
            "--scopes", nargs="+", default=ApiToken.Scope.values, help="of read, annotate, manage (default: all)"
        )
        parser.add_argument("--project", default="", help="short name of the only project it opens")
        parser.add_argument("--days", type=int, default=365, help="how long it is good for; 0: for ever (%(default)s)")

    def handle(
        self, *, name: str, label: str, scopes: list[str], project: str, days: int, **options: Any
    ) -> None:
        user = User.objects.filter(username=name, is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active account named {name!r}: make one with create_user {name}")
        if not 0 <= days <= 36500:
            raise CommandError("--days must lie between 0 and 36500")
        if project and not user.memberships.filter(project__slug=project).exists():
            raise CommandError(f"{name} is not a member of a project {project!r}")
        try:
            _, text = create_token(
                user=user, name=label, scopes=scopes, project_slug=project,
                lifetime=timedelta(days=days) if days else None,
            )  # fmt: skip
        except AccountError as error:
            raise CommandError(str(error)) from None
        self.stderr.write(f"A token of {name} for {', '.join(sorted(scopes))}; it is not shown again:")
        self.stdout.write(text)
