"""Alerts to receivers, at most once: nothing is sent twice, and nothing is lost silently.

A document's key is made of the case, its status and its severity, so that a case is sent when it is new and
again when it is raised, however often a night is run. Before a document is sent, the ledger says so. What was
being sent when the sender was killed, or when the receiver stopped answering, may have been taken or not: it
is kept apart as unsure, and sent again only when somebody asks for that.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from appcadence._files import lock
from appcadence.errors import AppcadenceError
from appcadence.triage.receivers import NotTaken, Receiver

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


@dataclass(frozen=True)
class Spool:
    """The ledger of one directory."""

    directory: Path
    _ledger: sqlite3.Connection

    def add(self, receiver: str, documents: Iterable[tuple[str, str]]) -> None:
        """Queue (key, document) pairs for a receiver, all or none; keys queued before are skipped."""
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
        """Move all of a receiver's deliveries from one state to another."""
        self._ledger.execute(
            "UPDATE deliveries SET state = ? WHERE receiver = ? AND state = ?", (after, receiver, before)
        )

    def count(self, state: str, receivers: Iterable[str]) -> int:
        """Deliveries of a state to some receivers."""
        question = "SELECT count(*) FROM deliveries WHERE receiver = ? AND state = ?"
        return sum(self._ledger.execute(question, (name, state)).fetchone()[0] for name in receivers)

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Holds the lock for sending from this spool; yields False if another run holds it."""
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield lock(handle, wait=False)
        finally:
            os.close(handle)


@contextmanager
def opened(directory: Path) -> Iterator[Spool]:
    """The spool of a directory, which is made if it is missing, for its owner alone.

    Raises:
        AppcadenceError: its ledger cannot be read or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        ledger = sqlite3.connect(directory / LEDGER, timeout=_WAIT_SECONDS, isolation_level=None)
        with contextlib.closing(ledger):
            ledger.execute("PRAGMA synchronous = FULL")
            ledger.execute(_TABLE)
            yield Spool(directory, ledger)
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:  # a damaged file's names are in no UTF-8
        raise AppcadenceError(f"the spool {directory} cannot be used ({error})", "spool") from None


BUDGET_SECONDS = 60.0
"""All of one delivery takes no longer."""


@dataclass
class Delivered:
    """The outcome of a delivery: documents, each counted once for every receiver."""

    sent: int = 0
    waiting: int = 0
    """They are sent first the next time."""
    unsure: int = 0
    """Nobody can know whether they were taken; those of earlier deliveries are counted, too."""
    problems: list[str] = field(default_factory=list)
    """What kept documents from being sent, one sentence each."""


def key_of(document: Mapping[str, Any]) -> str:
    """The idempotency key of an alert: 64 hexadecimal digits of the case's id, status and severity.

    Raises:
        AppcadenceError: it is no alert.
    """
    try:
        own = document.get("appcadence", {})
        parts = [document["event"]["id"], own.get("status", "new"), own.get("severity")]
    except (KeyError, TypeError, AttributeError):
        raise AppcadenceError("there is an alert without an event.id; run 'appcadence score' again") from None
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def deliver(
    documents: Iterable[Mapping[str, Any]],
    receivers: Sequence[Receiver],
    spool: Path,
    *,
    resend_unsure: bool = False,
    budget_seconds: float = BUDGET_SECONDS,
) -> Delivered:
    """Send ECS documents (see `siem.ecs`) to all receivers, after what the spool still has for them.

    It returns after `budget_seconds` at the latest, within about a second; what was not sent by then waits.
    With `resend_unsure`, what is unsure from before is sent as well, which may be twice.

    Raises:
        AppcadenceError: the spool cannot be read or written; nothing was sent that it does not know of.
    """
    deadline = time.monotonic() + budget_seconds
    keyed = [(key_of(document), json.dumps(document)) for document in documents]
    # A receiver's address may hold a secret: the ledger has its hash.
    identities = {hashlib.sha256(one.identity.encode()).hexdigest(): one for one in receivers}
    done = Delivered()
    with opened(spool) as ledger:
        for identity in identities:
            ledger.add(identity, keyed)
        # Name servers and receivers may take any time: whoever sends is left behind, as if it were killed.
        sender = threading.Thread(
            target=_send, args=(spool, identities, done, resend_unsure, deadline), daemon=True
        )
        sender.start()
        sender.join(max(0.0, deadline - time.monotonic()))
        if sender.is_alive():
            done.problems.append(f"sending took longer than {budget_seconds:g} s")
        return Delivered(
            done.sent,
            ledger.count(WAITING, identities),
            ledger.count(UNSURE, identities) + ledger.count(SENDING, identities),
            [*done.problems],
        )


def _send(
    spool: Path, receivers: Mapping[str, Receiver], done: Delivered, resend_unsure: bool, deadline: float
) -> None:
    try:
        with opened(spool) as ledger, ledger.sending() as ours:
            if not ours:
                done.problems.append(f"another run is sending from {spool}")
                return
            for identity, receiver in receivers.items():
                # Nobody else is sending: whoever was has been killed.
                ledger.turn(identity, SENDING, UNSURE)
                if resend_unsure:
                    ledger.turn(identity, UNSURE, WAITING)
                _send_to(receiver, identity, ledger, done, deadline)
    except AppcadenceError as error:
        done.problems.append(str(error))


def _send_to(receiver: Receiver, identity: str, ledger: Spool, done: Delivered, deadline: float) -> None:
    problem = ""
    for delivery in ledger.waiting(identity):
        if time.monotonic() >= deadline:
            return
        ledger.set_state(delivery.number, SENDING)
        try:
            receiver.send(json.loads(delivery.document), delivery.key)
        except NotTaken as error:
            ledger.set_state(delivery.number, WAITING)
            problem = f"{receiver.place} took not all: {error}"
            if error.all:
                break
        except (OSError, http.client.HTTPException) as error:
            ledger.set_state(delivery.number, UNSURE)
            problem = f"{receiver.place} gave no answer ({str(error) or type(error).__name__})"
            break
        else:
            ledger.set_state(delivery.number, SENT)
            done.sent += 1
    if problem:
        done.problems.append(problem)
