"""Windows compared with the past of their device: the kernel behind novelty and history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from appcadence._types import DAY_US
from appcadence.features._kernels import bisect_left, kernel, micros
from appcadence.features.history import CHANNEL, Comparison, Past
from appcadence.features.windows import Windows

_STEADY_DAYS = 14
_MIN_DAYS = 2
"""Contact on fewer days is no evidence of steadiness."""
_FADE = 0.5 ** (1 / 14)
"""Weight of a count from one day earlier."""
_NEVER = np.iinfo(np.int64).max
_BITS = 62
_MIN_HABITS = 2


def compare(windows: Windows, past: Past) -> Comparison:
    """Compare each window of a device, in the order of time, with what came before it.

    A window's past ends when the device is first seen in it: telemetry that begins in the middle of a window
    therefore treats the morning's contacts as its past. A history that holds the window itself keeps no
    older habits: the channel is then no twin. What is not vetted counts for days with contact alone.
    """
    n = windows.n_channels
    device, app, dest = windows.device[:n], windows.app[:n], windows.dest[:n]
    low, high = (int(device.min()), int(device.max()) + 1) if n else (0, 0)
    old = past.of_devices(low, high)
    n_apps, n_dests = len(past.apps) + 1, max(len(past.dests), 1)

    def key(rows: Any, app: Any, dest: Any) -> np.ndarray:
        return np.asarray(((rows.astype(np.int64) - low) * n_apps + app + 1) * n_dests + dest)

    unique, code = np.unique(
        np.concatenate([key(old["device"], old["app"], old["dest"]), key(device, app, dest)]),
        return_inverse=True,
    )
    owner, rest = np.divmod(unique, n_apps * n_dests)
    channel_app, channel_dest = np.divmod(rest, n_dests)
    pair = np.unique(owner * n_dests + channel_dest, return_inverse=True)[1]
    m = len(old)
    known, now = np.zeros(len(unique), CHANNEL), np.zeros(n, CHANNEL)
    known["first_us"], known["last_us"], known["vetted"] = _NEVER, -_NEVER, past.vetting
    known["port"], known["habit"] = -1, np.nan
    known[code[:m]] = old
    known["device"], known["app"], known["dest"] = owner + low, channel_app - 1, channel_dest
    now["device"], now["port"] = device - low, windows.port[:n]
    device_offsets = np.searchsorted(owner, np.arange(high - low + 1))
    order, offsets = windows.by_device_interval
    values = np.full((n, 5), np.nan, np.float32)
    counts = windows.push_counts[:n].copy()
    _seen(
        now,
        windows.offsets,
        windows.start_us,
        windows.flow_start,
        windows.flow_end,
        windows.bytes_out,
        windows.bytes_in,
        *windows.beats,
    )
    _compare(
        values,
        order,
        offsets,
        code[m:],
        pair,
        int(pair.max(initial=-1)) + 1,
        windows.start_us,
        device_offsets,
        known,
        now,
        past.vetting,
        counts,
    )
    return Comparison(values, counts, replace(past, rows=known))


@kernel
def _log(total, count):  # type: ignore[no-untyped-def]
    return np.log2(1.0 + total / count) if count else np.nan


@kernel
def _seen(now, offsets, start_us, flow_start, flow_end, sent, received, beat_offsets, beats):  # type: ignore[no-untyped-def]
    """Fill first and last flow start of each channel window, bits of the days up to the last, and habits."""
    for g in range(len(now)):
        row, a, b = now[g], offsets[g], offsets[g + 1]
        row.first_us = start_us[g] + micros(flow_start[a])
        row.last_us = start_us[g] + micros(flow_start[b - 1])
        up, n_up, down, n_down, length, n_length = 0.0, 0, 0.0, 0, 0.0, 0
        today, days = row.last_us // DAY_US, np.int64(1)
        for i in range(a, b):
            back = today - (start_us[g] + np.int64(flow_start[i] * 1e6)) // DAY_US
            days |= np.int64(1) << min(back, _BITS)
            if not np.isnan(sent[i]):
                up += sent[i]
                n_up += 1
            if not np.isnan(received[i]):
                down += received[i]
                n_down += 1
            if not np.isnan(flow_end[i]):
                length += flow_end[i] - flow_start[i]
                n_length += 1
        row.days = days
        k = beat_offsets[g + 1] - beat_offsets[g]
        span = beats[beat_offsets[g + 1] - 1] - beats[beat_offsets[g]] if k > 1 else 0.0
        row.habit[0], row.habit[1] = _log(up, n_up), _log(down, n_down)
        row.habit[2], row.habit[3] = _log(length, n_length), _log(span, max(k - 1, 0))


@kernel
def _twin(now, past, rows, sizes):  # type: ignore[no-untyped-def]
    """Octaves (the largest difference) to the nearest row on the port; `sizes` are the rows' bytes."""
    n, size = len(rows), now.habit[0]
    right = bisect_left(sizes, 0, n, size)
    best, left = np.inf, right - 1
    while True:
        below = size - sizes[left] if left >= 0 else np.inf
        above = sizes[right] - size if right < n else np.inf
        nearest = min(below, above)
        if nearest >= best:
            # The rest is farther by bytes sent alone.
            return best if best < np.inf else np.nan
        row = past[rows[left] if below <= above else rows[right]]
        left, right = left - (below <= above), right + (below > above)
        if row.port != now.port:
            continue
        farthest, known = nearest, 1
        for k in range(1, len(now.habit)):
            apart = abs(now.habit[k] - row.habit[k])
            if apart >= best:
                known = 0
                break
            if not np.isnan(apart):
                farthest = max(farthest, apart)
                known += 1
        if known >= _MIN_HABITS:
            best = farthest


@kernel
def _accumulate(counts, pushed, later):  # type: ignore[no-untyped-def]
    """A later window's counts added to its channel's, and the sums put in their place; an earlier one's have
    been added before, and it is judged alone. Without a push there is nothing to judge."""
    if np.isnan(counts[0]):
        return
    none = counts[0] == 0.0
    for k in range(len(counts)):
        if later:
            pushed[k] += counts[k]
            counts[k] = pushed[k]
        if none:
            counts[k] = np.nan


@kernel
def _rank(ranked, sizes, known, begin):  # type: ignore[no-untyped-def]
    """Put rows in order of their bytes sent, and return how many of them may be a twin.

    They are nearly in order since the window before, so that an insertion sort is cheap."""
    for i in range(len(ranked)):
        c, j = ranked[i], i
        row = known[c]
        may_be = row.vetted and row.last_us < begin and not np.isnan(row.habit[0])
        size = row.habit[0] if may_be else np.inf
        sizes[i] = size
        while j > 0 and sizes[j - 1] > size:
            ranked[j], sizes[j] = ranked[j - 1], sizes[j - 1]
            j -= 1
        ranked[j], sizes[j] = c, size
    k = len(ranked)
    while k > 0 and sizes[k - 1] == np.inf:
        k -= 1
    return k


@kernel
def _contact_share(row, begin, today):  # type: ignore[no-untyped-def]
    """Share of the days before today, at most fourteen, with contact."""
    if row.first_us >= begin:
        return 0.0
    span, met = min(today - row.first_us // DAY_US, _STEADY_DAYS), 0
    # The bits of the days before today, the latest first.
    ahead = row.last_us // DAY_US - (today - 1)
    bits = row.days >> ahead if ahead >= 0 else row.days << min(-ahead, _BITS)
    for back in range(span):
        met += (bits >> back) & 1
    return met / span if met >= _MIN_DAYS else 0.0


@kernel
def _add_days(row, own):  # type: ignore[no-untyped-def]
    """Add a window's days with contact to its channel's row; what pushes it counted fades by the day."""
    contact = own.last_us // DAY_US
    last_day = row.last_us // DAY_US if row.days else contact
    if contact > last_day:
        shift = contact - last_day
        for k in range(len(row.pushed)):
            row.pushed[k] *= _FADE**shift
        row.days = row.days << shift if shift < _BITS else 0
        last_day = contact
    if last_day - contact < _BITS:
        row.days |= own.days << (last_day - contact)
    row.days &= (np.int64(1) << _BITS) - 1


@kernel
def _add_habits(row, own, before):  # type: ignore[no-untyped-def]
    """Let a window's habits replace those of its channel's row, last seen at `before`."""
    if own.last_us > before:
        row.port = own.port
        for k in range(len(row.habit)):
            row.habit[k] = own.habit[k]
    elif own.last_us == before:
        # The same day in two versions, a late log's perhaps: in either order the same comes out.
        row.port = max(row.port, own.port)
        for k in range(len(row.habit)):
            if not row.habit[k] >= own.habit[k] and not np.isnan(own.habit[k]):
                row.habit[k] = own.habit[k]


@kernel
def _compare(  # type: ignore[no-untyped-def]
    out, order, offsets, channel, pair, n_pairs, start_us, device_offsets, known, now, vetting, counts
):
    n = len(now)
    pair_first = np.full(n_pairs, _NEVER)
    device_first = np.full(len(device_offsets) - 1, _NEVER)
    for d in range(len(device_offsets) - 1):
        for c in range(device_offsets[d], device_offsets[d + 1]):
            if known[c].vetted:
                pair_first[pair[c]] = min(pair_first[pair[c]], known[c].first_us)
                device_first[d] = min(device_first[d], known[c].first_us)
    owner, ranked, sizes = -1, np.empty(0, np.int64), np.empty(0)
    for m in range(len(offsets) - 1):
        members = order[offsets[m] : offsets[m + 1]]
        members = members[members < n]
        if not len(members):
            continue
        d, today = now[members[0]].device, start_us[members[0]] // DAY_US
        begin = _NEVER
        for w in members:
            begin = min(begin, now[w].first_us)
        if d != owner:
            owner, ranked = d, np.arange(device_offsets[d], device_offsets[d + 1])
            sizes = np.empty(len(ranked))
        k = _rank(ranked, sizes, known, begin)
        for w in members:
            row = known[channel[w]]
            out[w, 3] = _contact_share(row, begin, today)
            if device_first[d] >= begin:
                continue
            new = not row.vetted or row.first_us >= begin
            out[w, 0] = new
            out[w, 1] = 0.0 if new else (begin - row.first_us) / DAY_US
            out[w, 2] = pair_first[pair[channel[w]]] >= begin
            if not np.isnan(now[w].habit[0]):
                out[w, 4] = _twin(now[w], known, ranked[:k], sizes[:k])
        for w in members:
            c, own = channel[w], now[w]
            row = known[c]
            row.first_us = min(row.first_us, own.first_us)
            if row.vetted:
                pair_first[pair[c]] = min(pair_first[pair[c]], own.first_us)
                device_first[d] = min(device_first[d], own.first_us)
            _add_days(row, own)
            before, row.last_us = row.last_us, max(row.last_us, own.last_us)
            _accumulate(counts[w], row.pushed, before < start_us[w])
            if vetting or not row.vetted:
                _add_habits(row, own, before)
