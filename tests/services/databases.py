"""The test database as other processes and threads see it."""

import os
from pathlib import Path

from django.db import connection


def use_database_file() -> None:
    """SQLite's test database in a file: one in memory exists for one connection only. Call while collecting tests."""
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(Path(os.environ["PREFLOOP_HOME"]) / "test.sqlite3")


def database_url() -> str:
    """Of the database that this very process tests on."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{found['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**found)
