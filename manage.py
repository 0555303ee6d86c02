#!/usr/bin/env python3
"""Prefloop's command line: `python manage.py help` lists every command."""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (says so to whoever starts it with an older one)
    sys.exit(
        f"Prefloop needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable}). "
        "Install a newer Python and run: make demo PYTHON=python3.11"
    )


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit(
            "Django is not installed in this Python. Run `make install`, then .venv/bin/python manage.py ..."
        )
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
