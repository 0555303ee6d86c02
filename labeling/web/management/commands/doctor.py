"""Check every component and say how to mend what is wrong."""

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand

from labeling.web.doctor import BAD, GOOD, as_json, examine

MARKS = {GOOD: "✓", "warning": "!", BAD: "✗"}


class Command(BaseCommand):
    help = (
        "Check every component and say how to mend what is wrong. Ends with status 1 if something must be mended.\n\n"
        "Example:\n  python manage.py doctor --json\n"
    )
    requires_system_checks = []

    def create_parser(self, *args: Any, **kwargs: Any) -> ArgumentParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *, host: str, port: int, json: bool, **options: Any) -> None:
        findings = []
        for finding in examine(host=host, port=port):
            findings.append(finding)
            if not json:
                mend = f"\n    to mend: {finding.mend}" if finding.mend else ""
                self.stdout.write(f"{MARKS[finding.state]} {finding.name}: {finding.text}{mend}")
        bad = [finding for finding in findings if finding.state == BAD]
        if json:
            self.stdout.write(_dump({"ok": not bad, "findings": [as_json(finding) for finding in findings]}))
        elif bad:
            self.stdout.write(f"{len(bad)} of {len(findings)} must be mended.")
        if bad:
            sys.exit(1)


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
