"""What became of one file that was read into a telemetry directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class FileReport:
    """What became of one file."""

    name: str
    """Base name, as it also stands in sources.json."""
    sha256: str = ""
    format: str = ""
    """Name of the format; empty where the file was skipped or passed over."""
    read: int = 0
    """Data rows in the file. Those neither kept nor rejected are no telemetry of a monitored device, or
    only name others."""
    rows: int = 0
    """Rows written to the telemetry tables."""
    rejected: int = 0
    """Rows that could not be used; they stand in the table `rejected`."""
    first: str | None = None
    """Earliest time of the rows, ISO 8601 UTC; likewise `last`."""
    last: str | None = None
    devices: int = 0
    """Distinct devices of the rows."""
    apps: int = 0
    """Distinct apps of the rows; those without one do not count."""
    skipped: bool = False
    """The same content was converted before, or stands earlier in the same call."""
    unusable: str = ""
    """Why the file was passed over; empty where it was not."""
    collection: str = ""
    """Base name of the folder or archive that the file was found in, if any."""
    repeated: int = 0
    """Rows that stood in another log already, of these or of those converted before."""
    argument: str | None = None
    """The argument of `convert` that would have mended that, if any."""

    def as_source(self) -> dict[str, Any]:
        """What sources.json says of a file that was converted."""
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("skipped", "unusable", "argument", "collection", "repeated")
        }
