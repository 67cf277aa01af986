"""Flow sources that cut long connections at an active timeout while another source of the device does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Structs
from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import listed
from appcadence.telemetry.names import Codes

_MIN_CUTS = 10
_SAME_SHARE = 0.02
_SHORTEST = 30.0
"""Seconds; no exporter has a shorter active timeout. The feature step joins no shorter pieces either."""
_AT_ONCE = 1.0
_LONGER = 1.5
"""The other source must show connections of this many timeouts."""
_COLUMNS = ("start", "duration_seconds", "device_id", "dest_ip", "dest_port", "source")
_ROW = np.dtype(
    [("start", "f8"), ("seconds", "f8"), ("device", "i4"), ("dest", "i4"), ("port", "i4"), ("source", "i4")]
)


def timeout_notes(
    source: TelemetryDirectory,
    devices: Collection[str] | None = None,
    first: int | None = None,
    last: int | None = None,
) -> tuple[str, ...]:
    """Plain sentences about sources of which one cuts connections and another does not.

    A source cuts those of a device where ten of its flows last as long as its longest (within 2 %), and most
    of these are followed within a second by a flow to the same address and port. Only flows of known length
    and address count. The arguments and errors are those of `clocks.clock_notes`; memory grows with the flows
    of over 30 s.
    """
    if len(source.names("flows", "source")) < 2:
        return ()
    device, dest, origin = Codes(), Codes(), Codes()
    parts = [np.empty(0, _ROW)]
    for piece in pieces_within(source, "flows", _COLUMNS, "start", first, last):
        piece = piece.filter(pc.greater_equal(piece["duration_seconds"], _SHORTEST))
        rows = np.empty(len(piece), _ROW)
        rows["start"] = piece["start"].cast(pa.int64()).to_numpy() / 1e6
        rows["seconds"] = piece["duration_seconds"].to_numpy()
        rows["device"], rows["source"] = device.of(piece["device_id"]), origin.of(piece["source"])
        rows["dest"] = dest.of(piece["dest_ip"])
        rows["port"] = pc.fill_null(piece["dest_port"], -1).to_numpy()
        parts.append(rows)
    flows = np.concatenate(parts)
    found: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    several, count = np.unique(np.unique(flows[["device", "source"]])["device"], return_counts=True)
    for code in several[count > 1].tolist():
        if devices is not None and device.names[code] not in devices:
            continue
        ours = flows[flows["device"] == code]
        by_source = {name: ours[ours["source"] == name] for name in np.unique(ours["source"]).tolist()}
        for cut, rows in by_source.items():
            limit = active_timeout(rows)
            for other, theirs in by_source.items():
                if limit is not None and theirs["seconds"].max() > _LONGER * limit:
                    names = origin.names[cut], origin.names[other]
                    found[*names, round(limit)].append(device.names[code])
    return tuple(
        f"{cut} cuts connections at {limit:,} s where {other} does not, for {listed(sorted(who))}: pieces "
        f"are joined again when features are computed, but where one is missing, durations from {cut} are "
        "lower bounds."
        for (cut, other, limit), who in sorted(found.items())
    )


def active_timeout(flows: Structs) -> float | None:
    """Seconds at which long connections are cut; None if they are not, or if the flows do not show it.

    Args:
        flows: n rows (start and length in seconds, dest and port as numbers, dest -1 = unknown) of one device
            and one source.
    """
    longest = float(flows["seconds"].max())
    flows = flows[flows["dest"] >= 0]
    flows = flows[np.lexsort((flows["start"], flows["port"], flows["dest"]))]
    cut = flows["seconds"] >= (1 - _SAME_SHARE) * longest
    if cut.sum() < _MIN_CUTS:
        return None
    same = (flows["dest"][1:] == flows["dest"][:-1]) & (flows["port"][1:] == flows["port"][:-1])
    gap = flows["start"][1:] - (flows["start"] + flows["seconds"])[:-1]
    goes_on = np.append(same & (np.abs(gap) <= _AT_ONCE), False)
    if 2 * (cut & goes_on).sum() < cut.sum():
        return None
    return float(np.median(flows["seconds"][cut]))
