"""Network bitmaps of a PowerLog: by hand, against a slow twin, and against the byte counts of a real one."""

import sqlite3
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ios_files import START, powerlog, read

from appcadence.telemetry.readers import _network_bitmaps

REAL = "powerlog_2021-12-16_05-54_84E2141B.PLSQL"
BITMAPS = "PLProcessNetworkAgent_EventBackward_NetworkBitmap"
SLEEPS = "PLSleepWakeAgent_EventForward_PowerState"
USAGE = "PLProcessNetworkAgent_EventInterval_UsageDiff"
TASKS = "PLDuetService_EventNone_DASActivity"
COLUMNS = (
    "timestamp REAL, BundleName TEXT, CurrentMachAbsoluteTime INTEGER, MachAbsoluteStartTime INTEGER, "
    "MachAbsoluteEndTime INTEGER, WiFi BLOB, Cellular BLOB"
)
ZERO = datetime.fromtimestamp(START - 100.5, UTC)
"""START on the wall clock."""


def bits(*slots: int) -> bytes:
    """Little-endian words, the earliest slot in the least bit, zero words at the end cut off."""
    words = [sum(1 << (s - 64 * w) for s in slots if s // 64 == w) for w in range(2)]
    return words[0].to_bytes(8, "little") + (words[1].to_bytes(8, "little") if words[1] else b"")


def record(wifi, app="com.a", at=2000.0, uptime=2000.0, span=0, cellular=None):
    """Of the span that begins at uptime `span`, written `at` seconds after START, with this uptime."""
    return (START + at, app, int(uptime * 1e9), span, span + 1024, wifi, cellular)


def tables(path, records, sleeps=()):
    """What is read of these records; sleeps as (first, last) seconds after START."""
    states = [(START + t, state) for pair in sleeps for t, state in zip(pair, (1, 0), strict=True)]
    made = powerlog(
        path,
        {BITMAPS: (COLUMNS, list(records)), SLEEPS: ("timestamp REAL, State INTEGER", states)},
    )
    return read("powerlog", made)


def runs(found, app="com.a"):
    """(start, end) seconds after START of the flows of an app."""
    return [
        (s := (f["start"] - ZERO).total_seconds(), s + f["duration_seconds"])
        for f in found.get("flows", [])
        if f["app_id"] == app
    ]


def observed(found):
    return [
        tuple((row[k] - ZERO).total_seconds() for k in ("start", "end")) for row in found.get("coverage", [])
    ]


def test_a_run_of_slots_is_a_flow_of_its_app_without_a_destination(tmp_path):
    found = tables(tmp_path / "x", [record(bits(0, 1, 2, 64, 127)), record(bits(5), app="nsurlsessiond")])
    assert runs(found) == [(0.0, 24.0), (512.0, 520.0), (1016.0, 1024.0)]
    first = found["flows"][0]
    assert first | {"start": None} == {
        **dict.fromkeys(first),
        "duration_seconds": 24.0,
        "device_id": "phone",
        "app_id": "com.a",
        "app_attribution": "exact",
        "outcome": "unknown",
        "time_resolution_seconds": 8.0,
        "source": "powerlog",
    }
    assert observed(found) == [(0.0, 1024.0)]


def test_a_run_goes_on_in_the_next_span_and_not_on_another_interface(tmp_path):
    records = [
        record(bits(127)),
        record(bits(0, 1), span=1024, at=3000, uptime=3000),
        record(bits(2), app="com.b", cellular=bits(2)),
        record(bits(0, 1), span=1024, at=3100, uptime=3100),  # once more: nothing counts twice
    ]
    found = tables(tmp_path / "x", records)
    assert runs(found) == [(1016.0, 1040.0)]
    assert runs(found, "com.b") == [(16.0, 24.0)] * 2
    assert observed(found) == [(0.0, 2048.0)]


def test_sleep_ends_a_run_and_moves_what_came_before_it(tmp_path):
    """Slots 10 to 13 end at 112 s of uptime; the device slept from 100 s on for 900 s."""
    found = tables(
        tmp_path / "x", [record(bits(10, 11, 12, 13), at=2900.0, uptime=2000.0)], [(100.0, 1000.0)]
    )
    assert runs(found) == [(80.0, 100.0), (1004.0, 1012.0)]
    assert observed(found) == [(0.0, 1924.0)]


def test_a_slot_cut_in_two_by_sleep_stands_where_it_began_and_one_at_its_end_after_it(tmp_path):
    found = tables(tmp_path / "x", [record(bits(12), at=2900.0, uptime=2000.0)], [(99.0, 999.0)])
    assert runs(found) == [(96.0, 99.0)]
    found = tables(tmp_path / "y", [record(bits(12), at=2900.0, uptime=2000.0)], [(96.0, 996.0)])
    assert runs(found) == [(996.0, 1004.0)]


def test_a_reboot_begins_anew(tmp_path):
    records = [record(bits(3)), record(bits(3, 4), at=9000.0, uptime=1500.0)]
    found = tables(tmp_path / "x", records)
    assert runs(found) == [(24.0, 32.0), (7524.0, 7540.0)]
    assert observed(found) == [(0.0, 1024.0), (7500.0, 8524.0)]


def test_spans_that_nobody_wrote_are_not_observed(tmp_path):
    found = tables(tmp_path / "x", [record(bits(0)), record(bits(0), span=4096, at=6000, uptime=6000)])
    assert observed(found) == [(0.0, 1024.0), (4096.0, 5120.0)]


def test_a_span_under_way_is_observed_until_its_record(tmp_path):
    found = tables(tmp_path / "x", [record(bits(3), at=100.0, uptime=100.0)])
    assert observed(found) == [(0.0, 100.0)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"wifi": b"\x01" * 7}, "64-bit words"),
        ({"wifi": b"\x01" * 24}, "64-bit words"),
        ({"wifi": b"\x01" * (1 << 20)}, "64-bit words"),
        ({"wifi": "text"}, None),
        ({"wifi": bits(40), "at": 100.0, "uptime": 100.0}, "after its span, or after the record"),
        ({"wifi": bits(0), "uptime": -5.0}, "no uptime in the week"),
        ({"wifi": bits(0), "span": 4096}, "no uptime in the week"),
        ({"wifi": bits(0), "uptime": 1e9}, "no uptime in the week"),
        ({"wifi": bits(0), "span": -1024}, "no span of 8 s slots"),
        ({"wifi": bits(0), "span": 3}, "no span of 8 s slots"),
        ({"wifi": bits(0), "app": None}, "BundleName"),
        ({"wifi": bits(0), "app": "a\x1b[31m"}, "BundleName"),
        ({"wifi": bits(0), "at": 200.0 - START}, "no uptime in the week"),
        ({"wifi": bits(0), "at": -3 * START}, "timestamp is no time"),
    ],
)
def test_what_cannot_be_is_rejected_and_the_rest_is_read(tmp_path, change, why):
    found = tables(tmp_path / "x", [record(bits(1), app="com.b"), record(**change)])
    assert runs(found, "com.b") == [(8.0, 16.0)] and runs(found) == []
    reasons = [row["reason"] for row in found.get("rejected", [])]
    assert [why in reason for reason in reasons] == ([True] if why else [])


def test_a_span_that_is_none_is_rejected(tmp_path):
    rows = [(START + 2000.0, "com.a", 2_000_000_000_000, 0, end, bits(0), None) for end in (0, 2048, "x")]
    reasons = [row["reason"] for row in tables(tmp_path / "x", rows)["rejected"]]
    assert len(reasons) == 3 and all("MachAbsolute" in reason for reason in reasons)


def test_more_bitmaps_than_any_phone_writes_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(_network_bitmaps, "MAX_BITMAPS", 3)
    found = tables(tmp_path / "x", [record(bits(k), app=f"com.{k}", cellular=bits(k)) for k in range(5)])
    assert {f["app_id"] for f in found["flows"]} == {"com.0", "com.1"}
    assert [row["reason"] for row in found["rejected"]] == [
        f"{BITMAPS}: more than 3 bitmaps; further ones are not read"
    ]


@st.composite
def logs(draw):
    """Records of two apps in some spans, and sleeps, all of one boot at START."""
    moments = sorted(draw(st.lists(st.integers(0, 6000), min_size=0, max_size=8, unique=True)))
    sleeps = [(float(a), float(b)) for a, b in pairwise(moments)][::2]
    spans = draw(st.lists(st.sampled_from([0, 1024, 2048]), min_size=1, max_size=3, unique=True))
    at = 12_000.0
    uptime = at - sum(b - a for a, b in sleeps)
    slots = st.sets(st.integers(0, 127), max_size=20)
    return [
        record(bits(*draw(slots)), app=app, at=at, uptime=uptime, span=span)
        for span in spans
        for app in ("com.a", "com.b")
    ], sleeps


@given(logs())
def test_flows_equal_their_twin(tmp_path_factory, log):
    records, sleeps = log
    found = tables(tmp_path_factory.mktemp("x") / "x", records, sleeps)
    for app in ("com.a", "com.b"):
        mine = [r for r in records if r[1] == app]
        want = twin(mine, [(START + a, START + b) for a, b in sleeps])
        assert np.array(runs(found, app)) == pytest.approx(np.array(want), abs=1e-5)


def twin(records, sleeps):
    """(start, end) seconds after START, a slot at a time."""
    slots = set()
    for time, _, uptime, begin, _, *maps in records:
        for k in range(128):
            if any(data and int.from_bytes(data, "little") >> k & 1 for data in maps):
                slots.add((begin // 8 + k, begun(time, uptime / 1e9 - (begin + 8 * k), sleeps)))
    out = []
    for number, start in sorted(slots):
        end = min([start + 8, *(first for first, _ in sleeps if first > start)])
        before = out[-1] if out else None
        slept = before and any(before[1] <= first < start for first, _ in sleeps)
        if before and number == before[0] + 1 and not slept:
            out[-1] = (number, end, before[2])
        else:
            out.append((number, end, start))
    return [(start - START, end - START) for _, end, start in out]


def begun(time, back, sleeps):
    """The time so many seconds awake before another; after a sleep that ends there.

    What is written within a sleep is written as it ends: the log's times of sleeps are half a second late.
    """
    for first, last in sorted(sleeps, reverse=True):
        if first < time < last:
            time = first
        elif last <= time:
            if time - last >= back - 1e-7:
                break
            back, time = back - (time - last), first
    return time - back


@pytest.fixture(scope="module")
def real(shared_data):
    return shared_data / "ios" / REAL


@pytest.fixture(scope="module")
def power(real):
    return read("powerlog", real)


def test_the_real_sample_by_hand(power):
    """The first span began with the boot at 10:16:21 UTC; slots 10 and 11 came before any sleep, those after
    where the sleeps that the log has put them."""
    flows = power["flows"]
    assert len({f["app_id"] for f in flows}) == 64
    assert all(f["dest_host"] is f["dest_ip"] is f["bytes_out"] is f["bytes_in"] is None for f in flows)
    starts = {
        app: [f["start"].strftime("%H:%M:%S") for f in flows if f["app_id"] == app]
        for app in ("com.google.ios.youtube", "com.toyopagroup.picaboo", "com.apple.AppStore")
    }
    assert starts == {
        "com.google.ios.youtube": ["10:17:49"],
        "com.toyopagroup.picaboo": ["10:17:49", "10:17:51", "10:30:09", "10:30:41"],
        "com.apple.AppStore": ["10:17:41", "10:20:26", "10:22:18"],
    }


def test_the_real_sample_equals_the_twin(real, power):
    database = sqlite3.connect(f"file:{real}?mode=ro&immutable=1", uri=True)
    query = "timestamp, BundleName, CurrentMachAbsoluteTime, MachAbsoluteStartTime, MachAbsoluteEndTime"
    changes = database.execute(f"SELECT timestamp, State FROM {SLEEPS} WHERE State IN (0, 1) ORDER BY 1")
    sleeps, since = [], None
    for time, state in changes:
        if state == 0 and since is not None:
            sleeps.append((since, time))
        since = (since or time) if state else None
    offsets = {0.0: -373.4663619995117, 1635848646.8741438: -411.5740089416504}  # until December
    count = 0
    for app in {f["app_id"] for f in power["flows"]}:
        want = []
        for interface in ("WiFi", "Cellular", "IPSec"):
            rows = database.execute(
                f"SELECT {query}, {interface} FROM {BITMAPS} WHERE BundleName = ? ORDER BY 4", (app,)
            ).fetchall()
            want += [(START + start, end - start) for start, end in twin(rows, sleeps)]
        want = [(raw + offsets[max(t for t in offsets if t <= raw)], seconds) for raw, seconds in want]
        got = [(f["start"].timestamp(), f["duration_seconds"]) for f in power["flows"] if f["app_id"] == app]
        assert np.array(sorted(got)) == pytest.approx(np.array(sorted(want)), abs=1e-5, rel=0)
        count += len(got)
    assert count == 218


def test_the_real_sample_agrees_with_its_byte_counts(power):
    """A process that was counted moved packets in that interval: 86 of 92 intervals show a slot, and over 94%
    of the slots since the first count lie in one. With a wrong bit order, clock or sleep they would not."""
    counted = [
        (u["app_id"], u["start"].timestamp(), u["end"].timestamp())
        for u in power["usage"]
        if u["bytes_in"] + u["bytes_out"]
    ]
    flows = [(f["app_id"], f["start"].timestamp(), f["duration_seconds"]) for f in power["flows"]]
    slots = [(app, start + 8 * k) for app, start, length in flows for k in range(max(round(length / 8), 1))]
    slots = [s for s in slots if s[1] < datetime(2021, 11, 2, 10, 54, tzinfo=UTC).timestamp()]
    first, last = min(t for _, t in slots), max(t for _, t in slots)
    touched = [c for c in counted if c[1] < last + 8 and c[2] > first]
    shown = [c for c in touched if any(app == c[0] and t < c[2] and t + 8 > c[1] for app, t in slots)]
    assert (len(shown), len(touched)) == (86, 92)

    def share(shift):
        since = [(app, t + shift) for app, t in slots if t >= min(start for _, start, _ in counted)]
        inside = [any(app == c[0] and c[1] <= t + 8 and t <= c[2] for c in counted) for app, t in since]
        return sum(inside) / len(inside)

    assert share(0) > 0.94 and all(share(shift) < 0.82 for shift in (-200, -400, 200, 400))


def test_bytes_per_interval(tmp_path):
    columns = (
        "timestamp REAL, timestampEnd REAL, BundleName TEXT, ProcessName TEXT, WifiIn INTEGER, "
        "WifiOut INTEGER, CellIn INTEGER, CellOut INTEGER"
    )
    rows = [
        (START, START + 300, "com.a", "a", 10, 20, 3, 4),
        (START, START + 300, None, "daemon", 1, None, None, None),
        (START, START + 300, "com.quiet", None, 0, 0, 0, 0),
        (START, START - 1, "com.a", None, 1, 1, 0, 0),
        (START, START + 90_000, "com.a", None, 1, 1, 0, 0),
        (START, START + 300, None, None, 1, 1, 0, 0),
        (START, START + 300, "com.a", None, -1, 1, 0, 0),
    ]
    found = read("powerlog", powerlog(tmp_path / "x", {USAGE: (columns, rows)}))
    assert [(u["app_id"], u["bytes_out"], u["bytes_in"]) for u in found["usage"]] == [
        ("com.a", 24, 13),
        ("daemon", 0, 1),
    ]
    assert {(u["end"] - u["start"]).total_seconds() for u in found["usage"]} == {300.0}
    assert len(found["rejected"]) == 4


def test_work_that_ios_scheduled(tmp_path):
    columns = "timestamp REAL, bundleID TEXT, application TEXT, taskName TEXT, duration INTEGER"
    rows = [
        (START, None, "com.apple.AppStore, com.a", "com.apple.CFNetwork-cc", 9),
        (START + 60, None, None, "com.example.mail.fetch", 5),
        (START + 90, None, None, "com.nobody.task", 5),
        (START + 120, "com.a", None, None, -1),
    ]
    names = [(START, "com.example.mail"), (START, "com.example")]
    apps = {"PLApplicationAgent_EventNone_AllApps": ("timestamp REAL, AppBundleId TEXT", names)}
    found = read("powerlog", powerlog(tmp_path / "x", {TASKS: (columns, rows)} | apps))
    tasks = found["tasks"]
    assert [
        (t["app_id"], (t["start"] - ZERO).total_seconds(), (t["end"] - t["start"]).total_seconds())
        for t in tasks
    ] == [
        ("com.a", 0.0, 9.0),
        ("com.apple.AppStore", 0.0, 9.0),
        ("com.example.mail", 60.0, 5.0),
    ]
    assert [row["reason"] for row in found["rejected"]] == [
        f"{TASKS}: duration is no number of seconds up to a day"
    ]
