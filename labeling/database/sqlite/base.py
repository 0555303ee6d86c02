"""Django's SQLite, with a queue of our own before the write lock, which nobody holds while the disk is waited for.

SQLite has none: who finds it taken sleeps longer and longer and looks again, so under load some wait for seconds while
others write thousands of times. Threads of one process wait for one another here instead, and then for those of other
processes by a lock on a file beside the database, which the kernel wakes them for and takes from whoever dies. Writers
that don't know of it, such as the sqlite3 shell, are waited for in SQLite's way.

A commit that SQLite itself takes to the disk keeps everybody waiting for some thousand microseconds. So transactions
are committed with `synchronous=NORMAL`, and then, after the next writer has been let in, the log is taken to the disk
here, before anybody hears that the commit is done; one sync serves all commits before it. What is kept after a power
cut is the same as with FULL. (A statement outside of any transaction is synced by SQLite as before. Without the
write-ahead log, for example on a file system that can't have one, all is left to SQLite.)
"""

import fcntl
import os
import threading
from contextlib import suppress
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

_turn = threading.Lock()
_to_disk = getattr(os, "fdatasync", os.fsync)
_files: dict[str, int] = {}  # path of the database -> descriptor of the file beside it


def _after_fork() -> None:
    """A child that kept the descriptors would share the parent's lock instead of waiting for it."""
    global _turn
    _turn = threading.Lock()
    while _files:
        os.close(_files.popitem()[1])


os.register_at_fork(after_in_child=_after_fork)


def _lock_file(path: str) -> int:
    if path not in _files:
        _files[path] = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(_files[path], fcntl.LOCK_EX)
    return _files[path]


class DatabaseWrapper(base.DatabaseWrapper):
    _has_turn = False
    _locked: int | None = None
    _has_log = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        self._has_log = connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        return connection

    def _start_transaction_under_autocommit(self) -> None:
        self._take_turn()
        try:
            if self._has_log:
                self.connection.execute("PRAGMA synchronous=NORMAL")
            super()._start_transaction_under_autocommit()
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> Any:
        try:
            done = super()._commit()
        finally:
            self._end_turn_if_over()
        self.sync()
        return done

    def sync(self) -> None:
        """Wait until all that has been committed is on the disk."""
        if not self._has_log or self.connection is None:
            return
        log = f"{self.settings_dict['NAME']}-wal"
        try:
            file = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _to_disk(file)
            finally:
                os.close(file)
        except OSError as error:
            raise OperationalError(f"The disk would not take what was written: {error}") from error

    def _rollback(self) -> Any:
        try:
            return super()._rollback()
        finally:
            self._end_turn_if_over()

    def _close(self) -> Any:
        try:
            return super()._close()
        finally:
            self._end_turn()

    def _take_turn(self) -> None:
        if self._has_turn or self.is_in_memory_db():
            return
        if not _turn.acquire(timeout=self.settings_dict["OPTIONS"].get("timeout", 5)):
            raise OperationalError("database is locked: other threads of this process have written for too long")
        self._has_turn = True
        with suppress(OSError):  # a file system without such locks: SQLite's way is left
            self._locked = _lock_file(str(self.settings_dict["NAME"]))

    def _end_turn_if_over(self) -> None:
        # A commit that SQLite refused leaves its transaction open, to be rolled back.
        if self.connection is None or not self.connection.in_transaction:
            self._end_turn()
            if self._has_log and self.connection is not None:
                self.connection.execute("PRAGMA synchronous=FULL")

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            if self._locked is not None:
                fcntl.flock(self._locked, fcntl.LOCK_UN)
                self._locked = None
            _turn.release()
