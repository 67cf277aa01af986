"""Small telemetry for tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.telemetry.schema import (
    ACTIVITY,
    COVERAGE,
    FLOWS,
    INVENTORY,
    NOTIFICATIONS,
    TASKS,
    TIME,
    USAGE,
    conform,
)

DAY0 = 1_772_409_600  # 2026-03-02 00:00 UTC
WEEK_US = 7 * 86_400_000_000


def flows(
    start,
    device="d1",
    app="com.a",
    host="a.example",
    duration=1.0,
    out=100,
    inn=200,
    outcome="established",
    **more,
):
    """Canonical flows; `start` in seconds after 2026-03-02."""
    start = np.atleast_1d(np.asarray(start, float))
    frame = pd.DataFrame(
        {
            "start": pd.to_datetime(
                DAY0 * 1_000_000 + np.rint(start * 1e6).astype("int64"), unit="us", utc=True
            ),
            "duration_seconds": duration,
            "device_id": device,
            "app_id": app,
            "app_attribution": "none" if app is None else "exact",
            "dest_host": host,
            "dest_port": 443,
            "transport": "tcp",
            "service": "tls",
            "outcome": outcome,
            "bytes_out": out,
            "bytes_in": inn,
            "time_resolution_seconds": 1e-6,
            "source": "test",
            **more,
        }
    )
    return conform(FLOWS, pa.Table.from_pandas(frame, preserve_index=False))


def together(*tables):
    return pa.concat_tables(tables).unify_dictionaries()


def activity(spans, device="d1", app=None, kind="device_unlocked"):
    frame = pd.DataFrame(
        {
            "device_id": device,
            "app_id": app,
            "kind": kind,
            "start": pd.to_datetime([int((DAY0 + a) * 1e6) for a, _ in spans], unit="us", utc=True),
            "end": pd.to_datetime([int((DAY0 + b) * 1e6) for _, b in spans], unit="us", utc=True),
            "source": "test",
            "time_resolution_seconds": 1.0,
        }
    )
    return conform(ACTIVITY, pa.Table.from_pandas(frame, preserve_index=False))


def usage(intervals, device="d1", app="com.a"):
    """`intervals` of (start, end, bytes out, bytes in)."""
    start, end, sent, received = np.array(intervals, float).reshape(-1, 4).T
    frame = pd.DataFrame(
        {
            "device_id": device,
            "app_id": app,
            "start": pd.to_datetime(((DAY0 + start) * 1e6).astype("int64"), unit="us", utc=True),
            "end": pd.to_datetime(((DAY0 + end) * 1e6).astype("int64"), unit="us", utc=True),
            "bytes_out": sent.astype("int64"),
            "bytes_in": received.astype("int64"),
            "source": "test",
        }
    )
    return conform(USAGE, pa.Table.from_pandas(frame, preserve_index=False))


def tasks(spans, device="d1", app="com.a"):
    return conform(TASKS, _spans(spans, device).append_column("app_id", pa.array([app] * len(spans))))


def coverage(spans, device="d1"):
    return conform(COVERAGE, _spans(spans, device))


def _spans(spans, device):
    times = [pa.array([int((DAY0 + t) * 1e6) for t in column], TIME) for column in zip(*spans, strict=True)]
    return pa.table(
        {
            "device_id": [device] * len(spans),
            "start": times[0],
            "end": times[1],
            "source": ["test"] * len(spans),
        }
    )


def pushes(times, device="d1", app="com.a", grid=1.0, silent=True):
    frame = pd.DataFrame(
        {
            "device_id": device,
            "app_id": app,
            "time": pd.to_datetime([int((DAY0 + t) * 1e6) for t in times], unit="us", utc=True),
            "kind": "push_received",
            "content_available": silent,
            "source": "test",
            "time_resolution_seconds": grid,
        }
    )
    return conform(NOTIFICATIONS, pa.Table.from_pandas(frame, preserve_index=False))


def fleet(devices=6, days=4, seed=0, app="com.chat"):
    """A small benign fleet: people's bursts in the day, a weather poll, a push socket."""
    rng = np.random.default_rng(seed)
    parts = []
    for d in range(devices):
        name = f"phone-{d:02d}"
        for day in range(days):
            base = day * 86400
            used = np.sort(rng.uniform(8 * 3600, 22 * 3600, 12)) + base
            burst = (used[:, None] + rng.exponential(20, (12, 6)).cumsum(axis=1)).ravel()
            n = len(burst)
            parts.append(
                flows(
                    burst,
                    name,
                    app,
                    "chat.example",
                    rng.exponential(5, n),
                    rng.integers(200, 9000, n),
                    rng.integers(500, 90000, n),
                )
            )
            poll = base + np.arange(0, 86400, 1800) + rng.uniform(0, 60, 48)
            parts.append(
                flows(
                    poll, name, "com.weather", "api.weather.example", 0.4, 420, rng.integers(3000, 3300, 48)
                )
            )
            social = (used[::2, None] + rng.exponential(40, (6, 9)).cumsum(axis=1)).ravel()
            for k, host in enumerate(("img.social.example", "api.social.example", "cdn.social.example")):
                part = social[k::3]
                parts.append(
                    flows(
                        part,
                        name,
                        "com.social",
                        host,
                        rng.exponential(9, len(part)),
                        rng.integers(200, 4000, len(part)),
                        rng.integers(900, 900000, len(part)),
                    )
                )
            push = base + np.array([0, 30000, 60000.0]) + rng.uniform(0, 900, 3)
            parts.append(flows(push, name, None, "1-courier.push.apple.com", 24000.0, 3000, 9000))
    return {"flows": together(*parts)}


def table(declared, rows):
    """Rows of a canonical table, times in seconds after 2026-03-02; what a row leaves out is null."""
    usual = {"source": "test", "time_resolution_seconds": 1.0}
    columns = {}
    for field in declared.schema:
        values = [row.get(field.name, usual.get(field.name)) for row in rows]
        if pa.types.is_timestamp(field.type):
            values = [None if v is None else round((DAY0 + v) * 1e6) for v in values]
        columns[field.name] = pa.array(values, field.type)
    return conform(declared, pa.table(columns, declared.schema))


def inventory(*rows):
    """What apps declare; a row is at least its app_id."""
    return table(INVENTORY, [{"snapshot_time": 0.0} | row for row in rows])


def summaries(hosts, week=0):
    """Rows of the App Privacy Report of a week: the hits of one app on each host."""
    start = DAY0 * 1_000_000 + week * WEEK_US
    return [
        {
            "device_id": "d1",
            "app_id": "com.a",
            "dest_host": host,
            "first_seen": start,
            "last_seen": start + WEEK_US - 1,
            "hits": hits,
            "initiated": "app",
            "dest_owner": None,
            "report_start": start,
            "report_end": start + WEEK_US,
        }
        for host, hits in hosts.items()
    ]
