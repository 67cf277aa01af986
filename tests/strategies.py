"""Hypothesis strategies for hostile telemetry, and tables made from what they draw."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from make import DAY0, table
from naive_context import DAY, Flow

from appcadence.features.catalog import FAMILIES
from appcadence.telemetry.schema import ACTIVITY, FLOWS, NOTIFICATIONS

DEVICES = st.sampled_from(["d1", "d1", "d2"])
APPS = st.sampled_from(["com.a", "com.a", "com.b", None])
crowded = st.integers(0, 80).map(lambda k: 40_000.0 + 15 * k)
midnight = st.integers(-60, 60).map(lambda k: DAY + 7.5 * k)
anywhere = st.integers(0, int(4 * DAY) - 1).map(lambda k: k / 2)
fine = st.integers(0, int(2 * DAY) * 1_000_000 - 1).map(lambda k: k / 1e6)
moments = st.one_of(crowded, crowded, midnight, anywhere, fine)
durations = st.one_of(
    st.none(), st.just(0.0), st.integers(0, 40).map(lambda k: 7.5 * k), st.integers(0, 200_000).map(float)
)
sizes = st.one_of(st.none(), st.just(0), st.integers(0, 9000), st.integers(0, 2**40))
hosts = st.sampled_from(["a.example", "a.example", "b.a.example", "api.push.apple.com", "x.apple.com", None])
addresses = st.sampled_from([None, None, "17.57.144.1", "10.0.0.9", "2620:149:a44::5", "fd00::1", "nonsense"])
ports = st.sampled_from([443, 443, 443, None, 5223, 5223, 2194, 2195, 2197, 2198])
a_flow = st.builds(
    Flow,
    moments,
    durations,
    DEVICES,
    APPS,
    hosts,
    addresses,
    ports,
    sizes,
    sizes,
    st.booleans(),
    st.sampled_from(["tls", "tls", "tls", "dns"]),
)
flow_lists = st.lists(a_flow, min_size=1, max_size=14)


@st.composite
def trains(draw):
    """Flows of one app whose gaps are nearly equal: what chance draws too seldom."""
    start, gap = draw(moments), draw(st.sampled_from([35.0, 60.0, 100.0, 900.0]))
    wobble = draw(st.lists(st.sampled_from([0.0, 0.0, 0.0, 4.0, 18.0, 40.0]), min_size=2, max_size=12))
    one = draw(a_flow)._replace(app="com.a", duration=draw(st.sampled_from([None, 0.0, 1.0, 15.0])))
    return [one._replace(start=start + gap * k + w) for k, w in enumerate(wobble)]


mixed_flows = st.tuples(flow_lists, st.one_of(st.just([]), trains())).map(lambda pair: pair[0] + pair[1])
ends = st.one_of(st.none(), st.integers(-40, 400).map(lambda k: 7.5 * k), st.integers(0, 90_000).map(float))
activities = st.lists(
    st.tuples(
        DEVICES,
        APPS,
        st.sampled_from(["device_unlocked", "screen_on", "app_foreground", "app_foreground", "charging"]),
        st.one_of(moments, moments, st.integers(-90_000, 0).map(float)),
        ends,
    ),
    max_size=10,
)

scheduled = st.lists(
    st.builds(
        lambda device, app, start, seconds: (device, app, start, start + seconds),
        DEVICES,
        st.sampled_from(["com.a", "com.a", "com.b", "com.unseen"]),
        moments,
        st.sampled_from([0.0, 7.5, 60.0, 3000.0]),
    ),
    max_size=6,
)


@st.composite
def push_logs(draw):
    """Anybody's pushes, and some of one app at times at which it is busy."""
    grid = draw(st.sampled_from([0.0, 0.5, 15.0, 30.0, 60.0]))
    rest = (
        st.sampled_from(["push_received"] * 5 + ["notification_shown"]),
        st.sampled_from([None, True, True, False]),
        st.sampled_from([None, 5, 10]),
        st.sampled_from([grid, grid, 0.0]),
    )
    when = st.one_of(crowded, moments, st.sampled_from([0.0, DAY, DAY - 30, 2 * DAY]))
    anybody = draw(st.lists(st.tuples(DEVICES, APPS, when, *rest), max_size=8))
    busy = draw(st.lists(st.tuples(st.just("d1"), st.just("com.a"), crowded, *rest), max_size=8))
    return anybody + busy


pushes = push_logs()
host_lists = st.lists(
    st.sampled_from(
        ["a.example", "*.a.example", "*.A.Example", "example", "10.0.0.9", "b.a.example", "apple.com"]
    ),
    min_size=1,
    max_size=3,
)
modes = st.lists(
    st.sampled_from(["fetch", "remote-notification", "audio", "voip", "processing", "widget", "unheard-of"]),
    max_size=2,
)
inventories = st.lists(
    st.fixed_dictionaries(
        {
            "app_id": st.sampled_from(["com.a", "com.a", "com.b", "com.absent"]),
            "device_id": st.sampled_from([None, "d1", "d2", "d9"]),
            "approved": st.sampled_from([None, True, False]),
            "background_modes": st.one_of(st.none(), st.just([]), st.just([]), modes),
            "expected_hosts": st.one_of(st.none(), host_lists),
            "expected_period_seconds": st.sampled_from([None, 1.0, 60.0, 900.0, 86_400.0]),
            "snapshot_time": st.integers(0, 10**6).map(float),
        }
    ),
    max_size=6,
    unique_by=lambda row: row["snapshot_time"],
)

apart = st.integers(0, 19).map(lambda day: DAY * day)
a_contact = st.builds(
    lambda day, *rest: Flow(*rest)._replace(start=rest[0] % DAY + day),
    apart,
    moments,
    st.one_of(st.none(), st.sampled_from([0.0, 1.0, 300.0, 100_000.0])),
    st.sampled_from(["d1", "d1", "d2", "d3"]),
    st.sampled_from(["com.a", "com.a", "com.b", None]),
    st.sampled_from(["a.example", "b.a.example", "a.co.uk", "b.co.uk", None]),
    st.sampled_from([None, "10.0.0.9", "fd00::1"]),
    st.sampled_from([443, 443, 443, 80, None]),
    st.one_of(st.none(), st.integers(0, 3000), st.integers(0, 2**40)),
    st.one_of(st.none(), st.integers(0, 3000), st.integers(0, 2**40)),
)


@st.composite
def habitual(draw):
    """A contact on most days, some of them left out."""
    one = draw(a_contact)
    days = draw(st.lists(st.integers(0, 19), min_size=2, max_size=12, unique=True))
    return [one._replace(start=one.start % DAY + DAY * day) for day in days]


fleets = st.tuples(st.lists(a_contact, min_size=1, max_size=12), st.one_of(st.just([]), habitual())).map(
    lambda pair: pair[0] + pair[1]
)


def flow_table(flows):
    return table(
        FLOWS,
        [
            {
                "start": f.start,
                "duration_seconds": f.duration,
                "device_id": f.device,
                "app_id": f.app,
                "app_attribution": "none" if f.app is None else "exact",
                "dest_host": f.host,
                "dest_ip": f.ip,
                "dest_port": f.port,
                "service": f.service,
                "outcome": "failed" if f.failed else "established",
                "bytes_out": f.sent,
                "bytes_in": f.received,
            }
            for f in flows
        ],
    )


def activity_table(spans):
    rows = [
        {"device_id": d, "app_id": a, "kind": k, "start": s, "end": None if e is None else s + e}
        for d, a, k, s, e in spans
    ]
    return table(ACTIVITY, rows)


def push_table(events):
    names = [
        "device_id",
        "app_id",
        "time",
        "kind",
        "content_available",
        "priority",
        "time_resolution_seconds",
    ]
    return table(NOTIFICATIONS, [dict(zip(names, event, strict=True)) for event in events])


def is_logged(spans, window):
    """Whether the activity log says anything in the window or, if it is shorter, in the day up to its end."""
    end = window.begin + window.length
    ends = [
        math.inf if e is None else s + max(e, 0) for d, _, _, s, e in spans if d == window.device and s < end
    ]
    return any(e > end - max(window.length, 86_400.0) for e in ends)


def uses_of(spans, window, events=()):
    """When the device was in use; None = its log is silent. Where it reports unlocks, a screen that a push
    has lit, and which is not unlocked meanwhile, is no use."""
    if not is_logged(spans, window):
        return None
    device = window.device
    mine = [(k, s, math.inf if e is None else s + max(e, 0)) for d, _, k, s, e in spans if d == device]
    unlocked = [(s, e) for k, s, e in mine if k == "device_unlocked"]
    received = [e for e in events if e[0] == device and e[3] == "push_received"]
    reach = 5 + max((e[6] for e in received), default=0) + 5e-7
    loud = [e[2] for e in received if not (e[4] or e[5] == 5)]

    def by_push(start, end):
        met = any(s <= end and e >= start for s, e in unlocked)
        return unlocked and not met and any(0 <= start - t <= reach for t in loud)

    lit = [(s, e) for k, s, e in mine if k == "screen_on" and not by_push(s, e)]
    return unlocked + lit or None


def fronts_of(spans, window):
    """When the app was in front; None = the device reports no app in front, or its log is silent."""
    fronts = [(a, s, e) for d, a, k, s, e in spans if d == window.device and k == "app_foreground"]
    mine = [(s, None if e is None else s + e) for a, s, e in fronts if a == window.app]
    return mine if fronts and is_logged(spans, window) else None


def pushes_of(events, device, app):
    """((time, silent) of the app's pushes, grid of the device's log; None = the device has none)."""
    received = [e for e in events if e[0] == device and e[3] == "push_received"]
    mine = [(e[2], bool(e[4]) or e[5] == 5) for e in received if e[1] == app]
    return mine, max((e[6] for e in received), default=None)


def channels_of(frame, windows):
    """(n,) whether each row of the frame is of one of these windows of the twin, which are channels."""
    begin = frame["window_start"].astype("int64") / 1e6 - DAY0
    names = [frame[key].astype(object) for key in ("device_id", "app_id", "dest")]
    mine = {w.key for w in windows}
    return np.array(
        [tuple(None if v != v else v for v in k) in mine for k in zip(*names, begin, strict=True)]
    )


def agree(frame, windows, expect, family):
    """Every window is in the frame, with the values of `expect(window, its observed seconds)`; others NaN."""
    names = [f.name for f in next(f for f in FAMILIES if f.name == family).features]
    names_of_key = [frame[key].astype(object) for key in ("device_id", "app_id", "dest")]
    begin = frame["window_start"].astype("int64") / 1e6 - DAY0
    keys = [tuple(None if v != v else v for v in key) for key in zip(*names_of_key, begin, strict=True)]
    assert set(keys) == {w.key for w in windows}
    rows, values = dict(zip(keys, frame.index, strict=True)), frame[names].to_numpy(float)
    for window in windows:
        at = rows[window.key]
        want = expect(window, frame["observed_seconds"].iloc[at])
        assert set(want) <= set(names)
        np.testing.assert_allclose(
            values[at],
            [want.get(name, np.nan) for name in names],
            rtol=2e-5,
            atol=2e-5,
            err_msg=f"{window.key}: {names}",
        )
