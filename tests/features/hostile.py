"""Hostile flows for hypothesis, and their comparison with the slow twins of tests/naive.py."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from make import DAY0

from appcadence.features import extract
from appcadence.telemetry.schema import FLOWS, conform

DAY = 86_400_000_000
WINDOWS = {"24h": 86400, "6h": 21600, "1h": 3600}


class Row(NamedTuple):
    us: int
    duration: float | None
    device: str = "d1"
    app: str | None = "com.a"
    host: str | None = "a.example"
    ip: str | None = None
    port: int | None = 443
    own: int | None = None
    service: str | None = "tls"
    outcome: str = "established"
    out: int | None = 100
    inn: int | None = 200


ONE = ({},)
MANY = (
    *({},) * 6,
    {"port": 8443},
    {"own": 50_000},
    {"host": "b.example"},
    {"app": "com.b"},
    {"app": "com.b", "host": "b.example", "port": None},
    {"app": None, "host": None, "ip": "10.0.0.1", "port": 5223},
    {"app": None, "host": None, "ip": None, "service": None},
    {"app": "com.b", "host": "c.example", "port": 0},
    {"app": "com.c", "host": None, "port": 0},
    {"service": "dns", "port": 53},
    {"device": "d2"},
    {"device": "d2", "service": "dns"},
)
"""Channels: another port on either side, host, app or device, names unknown, an app without destinations, and
DNS."""

ms = st.integers(0, 5_000_000).map(lambda n: n / 1000)
durations = st.one_of(
    st.sampled_from([0.0, 1.0, 29.0, 30.0, 60.0, 300.0, 0.3, 7200.0]),
    ms,
    st.sampled_from([None, math.nan, -5.0, math.inf, -math.inf, 0.0]),
)
short = st.one_of(st.sampled_from([0.0, 0.3, 1.0, 30.0, None]), ms.map(lambda x: x / 100))
sizes = st.one_of(
    st.sampled_from([0, 1, 100, 104, 105, 106, 1000, None]), st.integers(0, 5000), st.integers(0, 2**63 - 1)
)
_period = st.tuples(st.sampled_from([1, 1, 1, 2, 3]), st.integers(-200, 200))
_gap = st.one_of(
    st.sampled_from([0.0, 0.001, 0.5, 1.0, 1.999, 2.0, 2.001, 29.999, 30.0, 30.001, 60.0, 14401.0]),
    ms.map(lambda x: x / 10),
    _period,
    _period,
)
_jumps = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([-3600.0, 3600.0, 90_000.0, -90_000.0, 315_576_000.0])),
    max_size=1,
)


@st.composite
def telemetry(draw, channels=MANY, duration=durations, size=sizes, most=12, repeat=6):
    """Rows in any order: a pattern of gaps, repeated with jitter, with a clock jump now and then.

    Some rows start on an hour, some go on where the row before ends, some seem to last for weeks or for ever.
    """
    row = st.tuples(_gap, duration, size, size, st.integers(0, 14), st.integers(0, len(channels) - 1))
    pattern = draw(st.lists(row, min_size=draw(st.sampled_from([1, min(8, most)])), max_size=most))
    period = draw(st.sampled_from([2.0, 45.0, 60.0, 300.0]))
    chance = random.Random(draw(st.integers(0, 999)))
    jumps = dict(draw(_jumps))
    noise = draw(st.sampled_from([0.0, 0.0, 0.05, 0.8]))
    at = draw(st.sampled_from([0, 1, 3_600_000_000, 86_399_000_000, 50_000_123_457]))
    rows = []
    for k in range(draw(st.integers(1, repeat))):
        for i, (gap, length, out, inn, kind, channel) in enumerate(pattern):
            if isinstance(gap, tuple):
                gap = period * gap[0] * (1 + gap[1] / 1000)
            if k:
                gap *= chance.uniform(1 - noise, 1 + noise)
            at = max(at + round(gap * 1000) * 1000 + round(jumps.pop(i, 0.0) * 1e6), -DAY)
            if kind == 11:
                at += -at % 3_600_000_000
            if kind == 10 and k == 0:
                length = (1e18, 1e6)[i % 2] if i > 8 else 20_000.0
            outcome = ("failed", "unknown")[kind] if kind < 2 else "established"
            row = Row(DAY0 * 1_000_000 + at, length, outcome=outcome, out=out, inn=inn, **channels[channel])
            if kind >= 12 and rows and rows[-1].duration and 0 < rows[-1].duration < 1e5:
                last, late = rows[-1], chance.choice([0, 0, 900_000, 1_000_000, 1_001_000])
                at = last.us - DAY0 * 1_000_000 + round(last.duration * 1e6) + late
                port = last.port if kind < 14 else row.port
                own = chance.choice([last.own, None, 50_001])
                row = last._replace(us=DAY0 * 1_000_000 + at, port=port, own=own, out=out, inn=inn)
            rows.append(row)
    chance.shuffle(rows)
    return rows


def table(rows):
    """Canonical flows."""
    columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True)) if rows else {}

    def name(key):
        return pa.array(columns[key], pa.string()).dictionary_encode()

    n = len(rows)
    return conform(
        FLOWS,
        pa.table(
            {
                "start": pa.array(columns["us"], pa.timestamp("us", tz="UTC")),
                "duration_seconds": pa.array(columns["duration"], pa.float64()),
                "device_id": name("device"),
                "app_id": name("app"),
                "app_attribution": pa.array(
                    ["none" if app is None else "exact" for app in columns["app"]]
                ).dictionary_encode(),
                "dest_host": name("host"),
                "dest_ip": name("ip"),
                "dest_port": pa.array(columns["port"], pa.int32()),
                "device_port": pa.array(columns["own"], pa.int32()),
                "service": name("service"),
                "outcome": name("outcome"),
                "bytes_out": pa.array(columns["out"], pa.int64()),
                "bytes_in": pa.array(columns["inn"], pa.int64()),
                "time_resolution_seconds": pa.array(np.full(n, 1e-6)),
                "source": pa.array(["test"] * n).dictionary_encode(),
            }
        ),
    )


def extracted(rows, window, names):
    """{(device, app, dest, start_us): values of the columns `names`} of the feature table."""
    frame = extract({"flows": table(rows)}, window)
    values = np.column_stack([frame[name].to_numpy(float) for name in names])
    keys = zip(
        frame["device_id"].astype(object),
        [None if code < 0 else frame["app_id"].cat.categories[code] for code in frame["app_id"].cat.codes],
        frame["dest"].astype(object),
        frame["window_start"].astype("int64"),
        strict=True,
    )
    return dict(zip(keys, values, strict=True))


def same(got, want, names, about=""):
    """Feature values are float32."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    near = np.isclose(got, want, rtol=2e-5, atol=2e-6, equal_nan=True)
    wrong = [
        f"{n}: got {g!r}, twin {w!r}" for n, g, w, ok in zip(names, got, want, near, strict=True) if not ok
    ]
    assert not wrong, f"{about}: " + "; ".join(wrong)
