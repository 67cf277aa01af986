"""Persistence: how long, how often and how thinly a channel stays connected."""

from __future__ import annotations

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import kernel, median, sort
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.flows import FAILED
from appcadence.features.windows import Windows

FEATURES = (
    Feature("longest_session_seconds", "longest session", "longest session", unit="s"),
    Feature("connected_ratio", "time in sessions / observed time", "share of the time connected"),
    Feature("median_session_seconds", "median session length", "median session", unit="s"),
    Feature(
        "longest_flow_seconds",
        "longest single flow, pieces cut by an exporter's active timeout joined",
        "longest single connection",
        unit="s",
    ),
    Feature(
        "covered_ratio",
        "time under at least one flow / observed time",
        "share of the time under a connection",
    ),
    Feature(
        "parallel_flows",
        "flow seconds / time under at least one flow: connections open at once",
        "connections open at once",
        unit="count",
        direction=0,
    ),
    Feature(
        "longest_chain_seconds",
        "longest run of sessions in which each gap is shorter than both its neighbours",
        "longest chain of reconnecting sessions",
        unit="s",
    ),
    Feature("sessions_per_hour", "sessions per observed hour", "sessions an hour", unit="1/h", direction=0),
    Feature(
        "seconds_per_kilobyte",
        "time in sessions / (1 kB + all bytes): low-volume persistence",
        "seconds connected per kilobyte",
        unit="s/kB",
    ),
    Feature(
        "bytes_per_hour", "bytes both ways per observed hour", "bytes an hour", unit="bytes", direction=0
    ),
    Feature("upload_ratio", "bytes sent / all bytes", "share of bytes sent"),
    Feature("failed_ratio", "share of flows that failed", "share of failed connections"),
    Feature(
        "median_reconnect_seconds",
        "median time from the end of a session to the start of the next",
        "median time to reconnect",
        unit="s",
        direction=0,
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 13) session features; NaN where no flow of the window has a duration (or bytes) at all."""
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        windows.flow_start,
        windows.flow_end,
        windows.bytes_out,
        windows.bytes_in,
        (windows.flags & FAILED) != 0,
        *windows.sessions[:3],
        windows.observed_seconds,
        int(np.diff(windows.sessions.offsets).max(initial=0)),
        wanted,
    )


@kernel
def _chain(start, end):  # type: ignore[no-untyped-def]
    longest, since = 0.0, start[0]
    for i in range(len(start)):
        if i and start[i] - end[i - 1] >= min(end[i] - start[i], end[i - 1] - start[i - 1]):
            since = start[i]
        longest = max(longest, end[i] - since)
    return longest


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    offsets,
    start,
    end,
    sent,
    received,
    failed,
    session_offsets,
    session_start,
    session_end,
    observed,
    most_sessions,
    wanted,
):
    scratch = np.empty(most_sessions)
    for g in range(lo, hi):
        a, b = session_offsets[g], session_offsets[g + 1]
        flows = offsets[g + 1] - offsets[g]
        known, longest_flow, fails = False, 0.0, 0
        total_out, total_in, sized = 0.0, 0.0, False
        flow_seconds, covered, reach = 0.0, 0.0, 0.0
        for i in range(offsets[g], offsets[g + 1]):
            fails += failed[i]
            if not np.isnan(end[i]):
                known = True
                length = end[i] - start[i]
                longest_flow = max(longest_flow, length)
                flow_seconds += length
                covered += max(end[i] - max(start[i], reach), 0.0)
                reach = max(reach, end[i])
            if not np.isnan(sent[i]) and not np.isnan(received[i]):
                sized = True
                total_out += sent[i]
                total_in += received[i]
        hours = observed[g] / 3600.0
        out[g, 7] = (b - a) / hours
        out[g, 11] = fails / flows
        if sized:
            out[g, 9] = (total_out + total_in) / hours
            if total_out + total_in > 0:
                out[g, 10] = total_out / (total_out + total_in)
        if not known:
            continue
        total, longest = 0.0, 0.0
        for i in range(a, b):
            length = session_end[i] - session_start[i]
            scratch[i - a] = length
            total += length
            longest = max(longest, length)
        out[g, 0] = longest
        out[g, 1] = min(total / observed[g], 1.0)
        if wanted[2]:
            sort(scratch[: b - a])
            out[g, 2] = median(scratch[: b - a])
        out[g, 3] = longest_flow
        out[g, 4] = min(covered / observed[g], 1.0)
        if covered > 0:
            out[g, 5] = flow_seconds / covered
        if wanted[6]:
            out[g, 6] = _chain(session_start[a:b], session_end[a:b])
        if wanted[12] and b - a > 1:
            for i in range(a + 1, b):
                scratch[i - a - 1] = session_start[i] - session_end[i - 1]
            sort(scratch[: b - a - 1])
            out[g, 12] = median(scratch[: b - a - 1])
        if sized:
            out[g, 8] = total / (1.0 + (total_out + total_in) / 1000.0)


FAMILY = Family("session", ("flows",), FEATURES, compute)
