"""Connections whose opening the sensor did not see, so that it may have swapped client and server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.readers import ReadOptions
from appcadence.telemetry.readers._flows import local

EPHEMERAL = 32_768
"""Systems hand out client ports from here on (Linux; IANA and Apple begin at 49,152)."""
_SIDES = (("device", "dest_ip"), ("device_port", "dest_port"), ("bytes_out", "bytes_in"))


def turned(columns: dict[str, Any], unopened: Mask, options: ReadOptions) -> Mask:
    """Turn round flows that a monitored device must have opened; (n,) which were turned.

    Nobody saw these flows open (`unopened`, n), and they lead from another address to a monitored device and
    from a service's port to a client port. `columns` of a draft (see `_flows`) are changed in place.
    """
    source, dest = (np.asarray(pc.fill_null(columns[name], 0)) for name in _SIDES[1])
    mask = unopened & (dest >= EPHEMERAL) & (source > 0) & (source < EPHEMERAL)
    if mask.any():
        mask &= local(columns["dest_ip"], options) & ~local(columns["device"], options)
    if mask.any():
        swap = pa.array(mask)
        for one, other in _SIDES:
            a, b = (_plain(columns[name]) for name in (one, other))
            columns[one], columns[other] = pc.if_else(swap, b, a), pc.if_else(swap, a, b)
        columns["device"] = _words(columns["device"])
        columns["dest_ip"] = _words(columns["dest_ip"])
    return mask


def _plain(column: Any) -> Any:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _words(column: Any) -> Any:
    return column.dictionary_encode()
