"""Windows compared with the past of their device: the kernel behind novelty and history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from appcadence._types import DAY_US
from appcadence.features._kernels import bisect_left, kernel, micros
from appcadence.features.history import HABITS, Comparison, Past
from appcadence.features.pushes import COUNTS
from appcadence.features.windows import Windows

_STEADY_DAYS = 14
_MIN_DAYS = 2
"""Contact on fewer of them is no evidence of anything steady."""
_FADE = 0.5 ** (1 / 14)
"""What a count of a day ago weighs."""
_NEVER = np.iinfo(np.int64).max
_BITS = 62
_MIN_HABITS = 2


def compare(windows: Windows, past: Past) -> Comparison:
    """Go through the windows of each device in time, each judged by what came before it.

    A window's past ends when the device is first seen in it: telemetry that begins in the middle of a window
    so keeps the morning's contacts as past. A history that holds the window itself keeps no older habits: the
    channel is then no twin. What is not vetted counts for days with contact alone.
    """
    n = windows.n_channels
    device, app, dest = windows.device[:n], windows.app[:n], windows.dest[:n]
    low, high = (int(device.min()), int(device.max()) + 1) if n else (0, 0)
    old = past.of_devices(low, high)
    n_apps, n_dests = len(past.apps) + 1, max(len(past.dests), 1)

    def key(rows: Any, app: Any, dest: Any) -> np.ndarray:
        return np.asarray(((rows.astype(np.int64) - low) * n_apps + app + 1) * n_dests + dest)

    unique, code = np.unique(
        np.concatenate([key(old.device, old.app, old.dest), key(device, app, dest)]), return_inverse=True
    )
    owner, rest = np.divmod(unique, n_apps * n_dests)
    channel_app, channel_dest = np.divmod(rest, n_dests)
    pair = np.unique(owner * n_dests + channel_dest, return_inverse=True)[1]
    m, count = len(old.device), len(unique)
    first, last = np.full(count, _NEVER), np.full(count, -_NEVER)
    days, port = np.zeros(count, np.int64), np.full(count, -1, np.int32)
    vetted = np.full(count, past.vetting)
    habit = np.full((count, len(HABITS)), np.nan, np.float32)
    first[code[:m]], last[code[:m]], days[code[:m]] = old.first_us, old.last_us, old.days
    pushed = np.zeros((count, len(COUNTS)), np.float32)
    pushed[code[:m]] = old.pushed
    vetted[code[:m]], port[code[:m]], habit[code[:m]] = old.vetted, old.port, old.habit
    device_offsets = np.searchsorted(owner, np.arange(high - low + 1))
    order, offsets = windows.by_device_interval
    values = np.full((n, 5), np.nan, np.float32)
    counts = windows.push_counts[:n].copy()
    seen_first, seen_last, seen_days, habits = _habits(
        n,
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
        device - low,
        code[m:],
        pair,
        int(pair.max(initial=-1)) + 1,
        windows.start_us,
        windows.port,
        seen_first,
        seen_last,
        seen_days,
        habits,
        device_offsets,
        first,
        last,
        days,
        vetted,
        past.vetting,
        port,
        habit,
        counts,
        pushed,
    )
    channels = replace(
        past,
        device=owner + low,
        app=channel_app - 1,
        dest=channel_dest,
        first_us=first,
        last_us=last,
        days=days,
        vetted=vetted,
        port=port,
        habit=habit,
        pushed=pushed,
    )
    return Comparison(values, counts, channels)


@kernel
def _log(total, count):  # type: ignore[no-untyped-def]
    return np.log2(1.0 + total / count) if count else np.nan


@kernel
def _habits(n, offsets, start_us, flow_start, flow_end, sent, received, beat_offsets, beats):  # type: ignore[no-untyped-def]
    """First and last flow start of each channel window, bits of the days up to the last, and its habits."""
    first, last, days = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    habit = np.empty((n, 4), np.float32)
    for g in range(n):
        a, b = offsets[g], offsets[g + 1]
        first[g] = start_us[g] + micros(flow_start[a])
        last[g] = start_us[g] + micros(flow_start[b - 1])
        up, n_up, down, n_down, length, n_length = 0.0, 0, 0.0, 0, 0.0, 0
        today, days[g] = last[g] // DAY_US, 1
        for i in range(a, b):
            back = today - (start_us[g] + np.int64(flow_start[i] * 1e6)) // DAY_US
            days[g] |= np.int64(1) << min(back, _BITS)
            if not np.isnan(sent[i]):
                up += sent[i]
                n_up += 1
            if not np.isnan(received[i]):
                down += received[i]
                n_down += 1
            if not np.isnan(flow_end[i]):
                length += flow_end[i] - flow_start[i]
                n_length += 1
        k = beat_offsets[g + 1] - beat_offsets[g]
        span = beats[beat_offsets[g + 1] - 1] - beats[beat_offsets[g]] if k > 1 else 0.0
        habit[g, 0], habit[g, 1] = _log(up, n_up), _log(down, n_down)
        habit[g, 2], habit[g, 3] = _log(length, n_length), _log(span, max(k - 1, 0))
    return first, last, days, habit


@kernel
def _twin(habit, port, habits, ports, rows, sizes):  # type: ignore[no-untyped-def]
    """Octaves (the largest difference) to the nearest row on the port; `sizes` are the rows' bytes."""
    n, size = len(rows), habit[0]
    right = bisect_left(sizes, 0, n, size)
    best, left = np.inf, right - 1
    while True:
        below = size - sizes[left] if left >= 0 else np.inf
        above = sizes[right] - size if right < n else np.inf
        nearest = min(below, above)
        if nearest >= best:
            # The rest is farther by bytes sent alone.
            return best if best < np.inf else np.nan
        row = rows[left] if below <= above else rows[right]
        left, right = left - (below <= above), right + (below > above)
        if ports[row] != port:
            continue
        farthest, known = nearest, 1
        for k in range(1, len(habit)):
            apart = abs(habit[k] - habits[row, k])
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
def _compare(  # type: ignore[no-untyped-def]
    out,
    order,
    offsets,
    device,
    channel,
    pair,
    n_pairs,
    start_us,
    now_port,
    now_first,
    now_last,
    now_days,
    now_habit,
    device_offsets,
    first,
    last,
    days,
    vetted,
    vetting,
    port,
    habit,
    counts,
    pushed,
):
    n = len(device)
    pair_first = np.full(n_pairs, _NEVER)
    device_first = np.full(len(device_offsets) - 1, _NEVER)
    for d in range(len(device_offsets) - 1):
        for c in range(device_offsets[d], device_offsets[d + 1]):
            if vetted[c]:
                pair_first[pair[c]] = min(pair_first[pair[c]], first[c])
                device_first[d] = min(device_first[d], first[c])
    owner, ranked, sizes = -1, np.empty(0, np.int64), np.empty(len(habit))
    for m in range(len(offsets) - 1):
        members = order[offsets[m] : offsets[m + 1]]
        members = members[members < n]
        if not len(members):
            continue
        d, today = device[members[0]], start_us[members[0]] // DAY_US
        now = _NEVER
        for w in members:
            now = min(now, now_first[w])
        lo, hi = device_offsets[d], device_offsets[d + 1]
        # By bytes sent: nearly in order since the window before, so that an insertion sort is cheap.
        if d != owner:
            owner, ranked = d, np.arange(lo, hi)
        for i in range(hi - lo):
            c, j = ranked[i], i
            size = habit[c, 0] if vetted[c] and last[c] < now and not np.isnan(habit[c, 0]) else np.inf
            sizes[i] = size
            while j > 0 and sizes[j - 1] > size:
                ranked[j], sizes[j] = ranked[j - 1], sizes[j - 1]
                j -= 1
            ranked[j], sizes[j] = c, size
        k = hi - lo
        while k > 0 and sizes[k - 1] == np.inf:
            k -= 1
        for w in members:
            c, span, met = channel[w], 0, 0
            if first[c] < now:
                span = min(today - first[c] // DAY_US, _STEADY_DAYS)
                # The bits of the days before today, the latest first.
                ahead = last[c] // DAY_US - (today - 1)
                bits = days[c] >> ahead if ahead >= 0 else days[c] << min(-ahead, _BITS)
                for back in range(span):
                    met += (bits >> back) & 1
            out[w, 3] = met / span if met >= _MIN_DAYS else 0.0
            if device_first[d] >= now:
                continue
            new = not vetted[c] or first[c] >= now
            out[w, 0] = new
            out[w, 1] = 0.0 if new else (now - first[c]) / DAY_US
            out[w, 2] = pair_first[pair[c]] >= now
            if not np.isnan(now_habit[w, 0]):
                out[w, 4] = _twin(now_habit[w], now_port[w], habit, port, ranked[:k], sizes[:k])
        for w in members:
            c = channel[w]
            first[c] = min(first[c], now_first[w])
            if vetted[c]:
                pair_first[pair[c]] = min(pair_first[pair[c]], now_first[w])
                device_first[d] = min(device_first[d], now_first[w])
            contact = now_last[w] // DAY_US
            last_day = last[c] // DAY_US if days[c] else contact
            if contact > last_day:
                shift = contact - last_day
                for k in range(pushed.shape[1]):
                    pushed[c, k] *= _FADE**shift
                days[c] = days[c] << shift if shift < _BITS else 0
                last_day = contact
            if last_day - contact < _BITS:
                days[c] |= now_days[w] << (last_day - contact)
            days[c] &= (np.int64(1) << _BITS) - 1
            before, last[c] = last[c], max(last[c], now_last[w])
            _accumulate(counts[w], pushed[c], before < start_us[w])
            if vetted[c] and not vetting:
                continue
            if now_last[w] > before:
                port[c] = now_port[w]
                for k in range(habit.shape[1]):
                    habit[c, k] = now_habit[w, k]
            elif now_last[w] == before:
                # The same day in two versions, a late log's perhaps: in either order the same comes out.
                port[c] = max(port[c], now_port[w])
                for k in range(habit.shape[1]):
                    if not habit[c, k] >= now_habit[w, k] and not np.isnan(now_habit[w, k]):
                        habit[c, k] = now_habit[w, k]
