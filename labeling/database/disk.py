"""What is said to be kept must be on the disk."""

from django.db import connection


def wait_for_disk() -> None:
    """Wait until what was read is on the disk, before telling somebody that it is kept.

    Who committed waits for that anyway. But on SQLite others can read a commit a moment earlier, and who made it may
    have been killed in that moment; PostgreSQL shows nothing that isn't on the disk.
    """
    if connection.vendor == "sqlite":
        connection.sync()
