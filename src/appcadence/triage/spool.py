"""What was sent to whom, and what still has to be: a ledger that survives a kill at any moment.

The ledger is an SQLite database in the spool directory. Every change of a delivery's state is on disk before
the step that it announces.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from appcadence._files import lock
from appcadence.errors import AppcadenceError

LEDGER = "ledger.sqlite"
WAITING, SENDING, UNSURE, SENT = "waiting", "sending", "unsure", "sent"
"""States of a delivery. What is found as `SENDING` by a later run is unsure: its sender was killed."""
_TABLE = """
CREATE TABLE IF NOT EXISTS deliveries (
  number INTEGER PRIMARY KEY,
  receiver TEXT NOT NULL,
  key TEXT NOT NULL,
  document TEXT,
  state TEXT NOT NULL,
  UNIQUE (receiver, key)
)
"""
_WAIT_SECONDS = 5.0
"""For another run that is writing the ledger."""


class Delivery(NamedTuple):
    """One document for one receiver."""

    number: int
    key: str
    document: str


class Spool:
    """The ledger of one directory, which is made, for its owner alone."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._ledger = sqlite3.connect(directory / LEDGER, timeout=_WAIT_SECONDS, isolation_level=None)
        self._ledger.execute("PRAGMA synchronous = FULL")
        self._ledger.execute(_TABLE)

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()

    def add(self, receiver: str, documents: Iterable[tuple[str, str]]) -> None:
        """Have (key, document) wait for a receiver, all or none; a key that was here before is left out."""
        with self._ledger:
            self._ledger.execute("BEGIN IMMEDIATE")
            self._ledger.executemany(
                "INSERT OR IGNORE INTO deliveries (receiver, key, document, state) VALUES (?, ?, ?, ?)",
                [(receiver, key, document, WAITING) for key, document in documents],
            )

    def waiting(self, receiver: str) -> list[Delivery]:
        """What waits for a receiver, the longest waiting first."""
        rows = self._ledger.execute(
            "SELECT number, key, document FROM deliveries WHERE receiver = ? AND state = ? ORDER BY number",
            (receiver, WAITING),
        )
        return [Delivery(*row) for row in rows]

    def set_state(self, number: int, state: str) -> None:
        """Put the state of a delivery on disk; what was sent is kept as its key alone."""
        kept = "NULL" if state == SENT else "document"
        self._ledger.execute(
            f"UPDATE deliveries SET state = ?, document = {kept} WHERE number = ?", (state, number)
        )

    def turn(self, receiver: str, before: str, after: str) -> None:
        """Give all of a receiver's deliveries of one state another."""
        self._ledger.execute(
            "UPDATE deliveries SET state = ? WHERE receiver = ? AND state = ?", (after, receiver, before)
        )

    def count(self, state: str, receivers: Iterable[str]) -> int:
        """Deliveries of a state to some receivers."""
        question = "SELECT count(*) FROM deliveries WHERE receiver = ? AND state = ?"
        return sum(self._ledger.execute(question, (name, state)).fetchone()[0] for name in receivers)

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """The one right to send from this spool; False where another run has it."""
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield lock(handle, wait=False)
        finally:
            os.close(handle)


@contextmanager
def opened(directory: Path) -> Iterator[Spool]:
    """The spool of a directory.

    Raises:
        AppcadenceError: its ledger cannot be read or written.
    """
    try:
        with contextlib.closing(Spool(directory)) as spool:
            yield spool
    except (sqlite3.Error, OSError) as error:
        raise AppcadenceError(f"the spool {directory} cannot be used ({error})", "spool") from None
