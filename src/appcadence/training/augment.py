"""Other benign telemetry from what there is: variants of a small baseline, and what changes in fleets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features.columns import micros
from appcadence.features.domains import registrable_domain

_MOVED_SHARE = 0.03
_LATE_SHARE = 0.02
_OWN_SHARE = 0.05


def vary(flows: pa.Table, cut_us: int, rng: np.random.Generator) -> pa.Table:
    """A plausible other day of the same devices, from one seed.

    Half of the channels keep only a random share of their flows, half have sizes and durations scaled, a
    third stretch or squeeze their rhythm about the cut, and three in ten lose everything before the cut, so
    that a benign channel is often new. Starts are never jittered: benign clockwork stays clockwork.
    """
    channel = _channels(flows)
    n = int(channel.max()) + 1 if len(channel) else 0
    keep_share = np.where(rng.random(n) < 0.5, rng.uniform(0.4, 1.0, n), 1.0)
    size = np.where(rng.random(n) < 0.5, np.exp(rng.normal(0, 0.5, n)), 1.0)
    stretch = np.where(rng.random(n) < 1 / 3, np.exp(rng.uniform(-0.7, 0.7, n)), 1.0)
    forgotten = rng.random(n) < 0.3
    start = micros(flows["start"])
    first, last = (int(start.min()), int(start.max())) if len(start) else (0, 0)
    moved = cut_us + np.rint((start - cut_us) * stretch[channel]).astype(np.int64)
    keep = rng.random(len(channel)) < keep_share[channel]
    keep &= ~(forgotten[channel] & (moved < cut_us)) & (moved >= first) & (moved <= last)

    def scaled(name: str, factor: np.ndarray) -> pa.ChunkedArray:
        column = flows[name]
        values = np.nan_to_num(column.cast(pa.float64(), safe=False).to_numpy()) * factor
        mask = pc.is_null(column).to_numpy()
        return pa.chunked_array(
            [pa.array(np.rint(values) if column.type == pa.int64() else values, mask=mask).cast(column.type)]
        )

    changes = {
        "start": pa.chunked_array([pa.array(moved).cast(flows["start"].type)]),
        "duration_seconds": scaled("duration_seconds", size[channel]),
        "bytes_out": scaled("bytes_out", size[channel]),
        "bytes_in": scaled("bytes_in", size[channel]),
    }
    for name, column in changes.items():
        flows = flows.set_column(flows.schema.get_field_index(name), flows.schema.field(name), column)
    return flows.filter(pa.array(keep))


def change(past: pa.Table, future: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Services that moved and apps that were installed late, as benign as before.

    In the future 3% of the fleet's (app, host) pairs answer under another host, half of them in the same
    domain, and 5% of each device's under one that no other device meets; 2% of the (device, app) pairs lose
    their past.
    """
    installed = _codes(past["device_id"], past["app_id"])
    late = rng.random(int(installed.max(initial=-1)) + 1) < _LATE_SHARE
    host = future["dest_host"].cast(pa.string())
    for name, by, share in (
        ("moved", (future["app_id"], host), _MOVED_SHARE),
        ("own", (future["device_id"], future["app_id"], host), _OWN_SHARE),
    ):
        host = _renamed(host, _codes(*by), share, name, rng)
    at = future.schema.get_field_index("dest_host")
    moved = future.set_column(at, future.schema.field(at), host.cast(future.schema.field(at).type))
    return past.filter(pa.array(~late[installed])), moved


def _renamed(
    host: pa.ChunkedArray, service: np.ndarray, share: float, prefix: str, rng: np.random.Generator
) -> pa.ChunkedArray:
    """Host names in which a share of the services (codes) have another, half of them in the same domain."""
    first = np.unique(service, return_index=True)[1]
    moves = rng.random(len(first)) < share
    names = [
        f"{prefix}-{i}.{registrable_domain(name) if rng.random() < 0.5 else f'elsewhere-{i}.invalid'}"
        for i, name in enumerate(pc.fill_null(host.take(pa.array(first[moves])), "").to_pylist())
    ]
    new = pa.array(names, pa.string()).take(pa.array(np.cumsum(moves)[service] - 1, mask=~moves[service]))
    return pc.if_else(pc.is_null(host), host, pc.coalesce(new, host))


def _channels(flows: pa.Table) -> np.ndarray:
    """Codes of (device, app, destination)."""
    host = pc.coalesce(flows["dest_host"].cast(pa.string()), flows["dest_ip"].cast(pa.string()))
    return _codes(flows["device_id"], flows["app_id"], host)


def _codes(*columns: pa.ChunkedArray) -> np.ndarray:
    """Codes 0, 1, ... of the rows' values, null being one of them."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        text = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
        code = code * max(len(text.dictionary), 1) + text.indices.to_numpy()
        code = np.unique(code, return_inverse=True)[1]
    return code
