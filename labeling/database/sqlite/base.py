"""Django's SQLite, with a queue of our own before the write lock.

SQLite has none: who finds it taken sleeps longer and longer and looks again, so under load some wait for seconds while
others write thousands of times. Threads of one process wait for one another here instead, and only what other
processes hold is left to SQLite's way.
"""

import threading
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

_turn = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    _has_turn = False

    def _start_transaction_under_autocommit(self) -> None:
        self._take_turn()
        try:
            super()._start_transaction_under_autocommit()
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> Any:
        try:
            return super()._commit()
        finally:
            self._end_turn_if_over()

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

    def _end_turn_if_over(self) -> None:
        # A commit that SQLite refused leaves its transaction open, to be rolled back.
        if self.connection is None or not self.connection.in_transaction:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _turn.release()
