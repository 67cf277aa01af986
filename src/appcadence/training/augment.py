"""Variants of a small benign baseline: whole channels rescaled, thinned, or made new."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features.columns import micros


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
        values = np.nan_to_num(column.cast(pa.float64()).to_numpy()) * factor
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


def _channels(flows: pa.Table) -> np.ndarray:
    """Codes of (device, app, destination) in order of first appearance."""
    code = np.zeros(len(flows), np.int64)
    host = pc.coalesce(flows["dest_host"].cast(pa.string()), flows["dest_ip"].cast(pa.string()))
    for column in (flows["device_id"].cast(pa.string()), flows["app_id"].cast(pa.string()), host):
        part = pc.fill_null(column, "").dictionary_encode().unify_dictionaries().combine_chunks()
        part = part.chunk(0) if isinstance(part, pa.ChunkedArray) and part.num_chunks else part
        indices = part.indices.to_numpy() if len(flows) else np.empty(0, np.int64)
        code = code * (int(indices.max()) + 1 if len(indices) else 1) + indices
    return np.unique(code, return_inverse=True)[1]
