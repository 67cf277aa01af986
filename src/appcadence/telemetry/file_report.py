"""The report on one file that was read into a telemetry directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_OF_THE_CALL = ("skipped", "unusable", "argument", "collection", "repeated", "left_out", "unnamed")
LEFT_OUT = {
    "stored": "are in the telemetry already",
    "twice": "are logged twice in these files",
    "interim": "are records of connections that were still open, which later records complete",
    "names": "only name hosts (look-ups and handshakes)",
    "leases": "say which device had which address",
    "replies": "are the other direction of a flow",
    "answers": "are answers to requests that the logs lack",
    "inbound": "are connections that were opened from outside, towards your devices",
    "one_link": "are service discovery, which stays on one link",
    "elsewhere": "were opened by addresses outside the networks of your devices",
    "other_system": "are of devices that run neither iOS nor iPadOS",
    "packets": "have no end, so they are packets rather than flows",
    "other_kind": "are records of other kinds",
}
"""Why valid rows are not telemetry of a monitored device, by the name of the reason."""


@dataclass
class FileReport:
    """The report on one file."""

    name: str
    """Base name, as in sources.json."""
    sha256: str = ""
    format: str = ""
    """Name of the format; empty if the file was skipped or passed over."""
    read: int = 0
    """Data rows in the file."""
    rows: int = 0
    """Rows written to the telemetry tables; one record of a device's own log gives any number of them."""
    rejected: int = 0
    """Rows that could not be used; they are in the table `rejected`."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that were not wanted, by reason (see `LEFT_OUT`)."""
    unnamed: int = 0
    """Rows that count without the name they gave; their lines are in the table `rejected`, too."""
    first: str | None = None
    """Earliest time of the rows, ISO 8601 UTC; likewise `last`."""
    last: str | None = None
    devices: int = 0
    """Distinct devices of the rows."""
    apps: int = 0
    """Distinct apps of the rows; rows without an app do not count."""
    skipped: bool = False
    """Whether the same content was converted before, or came earlier in the same call."""
    unusable: str = ""
    """Why the file was passed over; empty if it was not."""
    collection: str = ""
    """Base name of the folder or archive that the file was found in, if any."""
    repeated: int = 0
    """Rows that were already in another log, of this conversion or an earlier one."""
    argument: str | None = None
    """The argument of `convert` that would make the file usable, if any."""

    @property
    def kept(self) -> int:
        """Rows read that count: those neither left out nor rejected."""
        return self.read - self.rejected - sum(self.left_out.values())

    def as_source(self) -> dict[str, Any]:
        """What sources.json says about a converted file."""
        return {key: value for key, value in asdict(self).items() if key not in _OF_THE_CALL}
