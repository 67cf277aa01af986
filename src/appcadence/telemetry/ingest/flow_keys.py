"""Keys that are equal for one flow wherever it is logged again.

Rows with the same source (kind of log), device, destination, port and transport are one flow if

- both have an id of the source's own and the device's own port is the same, and the starts are at most
  `SAME_START_US` apart, in the same second: the clocks of two sensors differ, and so do their ids;
- or, where that port is not known, the source's own id and the start are the same;
- or, where there is no id, everything else is the same. Several such rows of one log are several flows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers.zeek_names import hash_names, hash_text
from appcadence.telemetry.schema import FLOWS, conform

SAME_START_US = 10_000
SECOND_US = 1_000_000
_CONTENT = ("app_id", "source_app_id", "service", "outcome")
_FIGURES = ("duration_seconds", "bytes_out", "bytes_in")
KEY_COLUMNS = (
    *("start", "source", "device_id", "dest_ip", "dest_host", "dest_port", "device_port", "transport"),
    *("source_uid", *_CONTENT, *_FIGURES),
)
"""The columns that a key is made from."""

Keys = npt.NDArray[np.uint64]
_MULTIPLIERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_BY_CONTENT = np.uint64(1)


def flow_keys(flows: pa.Table) -> Keys:
    """(n,) 64 bits per flow, equal for the same flow; starts must still be compared (`SAME_START_US`).

    Among a hundred million rows, two different flows share a key with a probability below one in a thousand.

    Args:
        flows: n canonical rows, with as many of the columns `KEY_COLUMNS` as are known.
    """
    flows = conform(FLOWS, flows, columns=KEY_COLUMNS)
    start = np.asarray(flows["start"].cast(pa.int64()))
    dest_port, device_port = (
        np.asarray(pc.fill_null(flows[name], -1), np.int64) for name in ("dest_port", "device_port")
    )
    keys = hash_names(flows["source"])
    destination = hash_names(flows["dest_ip"])
    unknown = destination == 0
    if unknown.any():
        destination = np.where(unknown, hash_names(flows["dest_host"]), destination)
    ports = dest_port << 20 | device_port
    for part in (hash_names(flows["device_id"]), destination, hash_names(flows["transport"]), ports):
        keys = _mixed(keys, part)
    identified = np.asarray(flows["source_uid"].is_valid())
    own = identified & np.asarray(flows["device_port"].is_valid())
    keys = _mixed(keys, np.where(own, start // SECOND_US, start))
    by_content = np.zeros(len(keys), bool)
    if not own.all():
        named = identified & ~own
        by_content = ~named & ~own
        if named.any():
            rows = np.flatnonzero(named)
            uids = one_array(flows["source_uid"]).take(pa.array(rows))
            keys[rows] = _mixed(keys[rows], hash_text(uids))
        if by_content.any():
            rows = np.flatnonzero(by_content)
            keys[rows] = _content(flows.take(pa.array(rows)), keys[rows])
    return np.where(by_content, keys | _BY_CONTENT, keys & ~_BY_CONTENT)


def by_content(keys: Keys) -> Mask:
    """(n,) which keys belong to rows that only their content distinguishes."""
    return (keys & _BY_CONTENT) > 0


def _content(flows: pa.Table, keys: Keys) -> Keys:
    for name in (*_CONTENT, "dest_host"):
        keys = _mixed(keys, hash_names(flows[name]))
    for name in _FIGURES:
        values = np.array(one_array(flows[name]).cast(pa.float64(), safe=False).fill_null(-1.0))
        keys = _mixed(keys, values.view(np.int64))
    return keys


def _mixed(keys: Keys, more: npt.NDArray[np.int64] | Keys) -> Keys:
    first, second = _MULTIPLIERS
    mixed = (keys ^ (keys >> np.uint64(31))) * first + more.astype(np.uint64, copy=False)
    return (mixed ^ (mixed >> np.uint64(29))) * second
