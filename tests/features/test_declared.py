"""Conflict with what the app declares equals its twin."""

import naive_context
import naive_declared as naive
import numpy as np
import pytest
from hypothesis import given
from make import activity, flows, inventory, tasks, together
from make import pushes as push_log
from strategies import (
    activities,
    activity_table,
    agree,
    flow_table,
    fronts_of,
    inventories,
    mixed_flows,
    push_table,
    pushes,
    pushes_of,
    scheduled,
    table,
)

from appcadence.features import extract
from appcadence.telemetry.schema import TASKS


@given(mixed_flows, inventories, pushes, activities, scheduled)
def test_declared_equals_its_twin(rows, profiles, events, spans, work):
    tables = {
        "flows": flow_table(rows),
        "inventory": inventory(*profiles),
        "notifications": push_table(events),
        "activity": activity_table(spans),
        "tasks": table(
            TASKS, [dict(zip(("device_id", "app_id", "start", "end"), row, strict=True)) for row in work]
        ),
    }

    def expect(w, _):
        return naive.declared(
            w,
            naive.profile(profiles, w.device, w.app),
            fronts_of(spans, w),
            *pushes_of(events, w.device, w.app),
            [(s, e) for d, a, s, e in work if (d, a) == (w.device, w.app)],
        )

    agree(extract(tables), naive_context.windows_of(rows), expect, "declared")


def of_app(tables, **profile):
    frame = extract(tables | {"inventory": inventory({"app_id": "com.a"} | profile)})
    return frame[frame["dest"] == "a.example"].sort_values("window_start")


def test_an_app_that_names_no_hosts_has_no_unexpected_ones():
    """`NaN where it names none`: an empty list names none."""
    tables = {"flows": flows([1.0])}
    assert of_app(tables, expected_hosts=["b.example"])["unexpected_host_share"].tolist() == [1]
    assert of_app(tables, expected_hosts=None)["unexpected_host_share"].isna().all()
    assert of_app(tables, expected_hosts=[])["unexpected_host_share"].isna().all()


def test_a_background_session_of_days_is_not_zero_seconds_of_work_on_the_second():
    tables = {
        "flows": flows([40_000.0], duration=100_000.0),
        "activity": activity([(1000, 2000)], app="com.a", kind="app_foreground"),
    }
    first, second = of_app(tables, background_modes=[])["background_work_seconds"]
    assert first == 46_400 - 30
    assert np.isnan(second) or second > 30


def test_two_background_sessions_a_minute_apart():
    """Shrunk for few gaps: one short gap of one is a third."""
    tables = {
        "flows": flows([40_000.0, 40_060.0]),
        "activity": activity([(1000, 2000)], app="com.a", kind="app_foreground"),
    }
    assert of_app(tables, background_modes=[])["below_scheduler_floor_share"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("gap", "beats", "period", "ratio"),
    [
        (900.0, 6, 900.0, 1),
        (75.0, 6, 900.0, 12),
        (1800.0, 6, 900.0, 0.5),
        (900.0, 5, 900.0, np.nan),
        (900.0, 6, None, np.nan),
        # What no period can be, as a table written elsewhere may hold it.
        (900.0, 6, 0.0, np.nan),
        (900.0, 6, -900.0, np.nan),
        (900.0, 6, np.inf, np.nan),
        (900.0, 6, 1e300, np.nan),
    ],
)
def test_the_rhythm_against_the_approved_one(gap, beats, period, ratio):
    """Connections a second apart are one beat; the app window has the rhythm of its only channel."""
    starts = np.repeat(gap * np.arange(beats), 2)
    starts[1::2] += 1
    profile = inventory({"app_id": "com.a", "expected_period_seconds": period})
    frame = extract({"flows": flows(starts), "inventory": profile})
    assert frame["expected_rhythm_ratio"].to_numpy() == pytest.approx([ratio, ratio], nan_ok=True)


def test_the_rhythm_of_an_app_is_that_of_its_hosts_together():
    starts = 900.0 * np.arange(24)
    both = together(flows(starts[::2]), flows(starts[1::2], host="b.example"))
    profile = inventory({"app_id": "com.a", "expected_period_seconds": 900.0})
    frame = extract({"flows": both, "inventory": profile})
    ratios = frame.set_index(frame["dest"].astype(str))["expected_rhythm_ratio"].to_dict()
    assert ratios == {"a.example": 0.5, "b.example": 0.5, "*": 1.0}


@pytest.mark.parametrize(
    ("more", "foreign", "provider"),
    [
        ({"dest_ip": "17.57.144.1", "dest_port": 5223}, 0, 0),
        ({"dest_ip": "10.0.0.9", "dest_port": 5223}, 1, 0),
        ({"dest_ip": "fd00::1", "dest_port": 5223}, 1, 0),
        ({"dest_ip": "2620:149:a44::5", "dest_port": 5223}, 0, 0),
        ({"dest_ip": "::ffff:17.57.144.1", "dest_port": 5223}, 0, 0),
        ({"dest_ip": "nonsense", "dest_port": 5223}, 0, 0),
        ({"dest_ip": "10.0.0.9", "dest_port": 443}, 0, 0),
        ({"dest_port": 5223}, 1, 0),
        ({"dest_ip": "9.9.9.9", "dest_port": 443, "host": "7-courier.push.apple.com"}, 1, 0),
        # Whose the address of a proxy, a translator or a tunnel is, nobody knows.
        ({"dest_ip": "10.0.0.9", "dest_port": 443, "host": "7-courier.push.apple.com"}, 0, 0),
        ({"dest_ip": "100.64.0.9", "dest_port": 5223, "host": "7-courier.push.apple.com"}, 0, 0),
        ({"dest_ip": "64:ff9b::1139:9014", "dest_port": 5223, "host": "7-courier.push.apple.com"}, 0, 0),
        ({"dest_ip": "64:ff9b::909:909", "dest_port": 5223, "host": "7-courier.push.apple.com"}, 1, 0),
        ({"dest_ip": "17.57.144.1", "dest_port": 443, "host": "7-courier.push.apple.com"}, 0, 0),
        ({"dest_port": 443, "host": "7-courier.push.apple.com"}, 0, 0),
        ({"dest_port": 2195}, 0, 1),
        ({"dest_port": 2197}, 0, 1),
        ({"dest_port": 2198}, 0, 0),
    ],
)
def test_push_ports(more, foreign, provider):
    got = extract({"flows": together(flows([5.0], **more))}).iloc[0]
    assert (got["foreign_push_port_share"], got["provider_endpoint_share"]) == (foreign, provider)


FRONT = {"app": "com.a", "kind": "app_foreground"}


@pytest.mark.parametrize(("gap", "short"), [(900.0, 0.0), (899.999999, 3 / 5)])
def test_the_scheduler_comes_every_quarter_of_an_hour(gap, short):
    tables = {"flows": flows(40_000 + gap * np.arange(4)), "activity": activity([(1000, 2000)], **FRONT)}
    assert of_app(tables, background_modes=[])["below_scheduler_floor_share"].item() == pytest.approx(short)
    assert of_app(tables, background_modes=["audio"])["below_scheduler_floor_share"].item() == 0


@pytest.mark.parametrize(("lag", "behind"), [(30.0, False), (30.000001, True)])
def test_an_app_is_behind_thirty_seconds_after_it_was_in_front(lag, behind):
    tables = {"flows": flows([2000 + lag], duration=75.0), "activity": activity([(1000, 2000)], **FRONT)}
    work = of_app(tables, background_modes=[])["background_work_seconds"].item()
    assert work == pytest.approx(45.0 if behind else np.nan, nan_ok=True)
    brief = tables | {"flows": flows([2000 + lag], duration=29.0)}
    work = of_app(brief, background_modes=[])["background_work_seconds"].item()
    assert work == pytest.approx(0.0 if behind else np.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("gaps", "share"),
    [
        ([100.0, 130.0] * 2 + [100.0], 4 / 6),
        ([100.0, 130.001] * 2 + [100.0], 0.0),
        ([100.0, 130.0] * 2, np.nan),
    ],
)
def test_a_background_rhythm_takes_five_gaps_within_a_factor(gaps, share):
    start = np.cumsum([40_000.0, *gaps])
    tables = {"flows": flows(start), "activity": activity([(1000, 2000)], **FRONT)}
    got = of_app(tables, background_modes=[])["undeclared_background_rhythm"].item()
    assert got == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(
    ("cause", "late", "left_out"),
    [
        ("push", 0.0, True),
        ("push", 30.0, True),
        ("push", 31.0, False),
        ("push", -10.0, True),
        ("push", -11.0, False),
        ("task", 0.0, True),
        ("task", 10.0, True),
        ("task", 11.0, False),
        ("other app", 0.0, False),
    ],
)
def test_what_a_push_or_the_scheduler_started_is_no_background_work_of_its_own(cause, late, left_out):
    """Apple lets a push wake an app at any time, and has no floor for it; scheduled work may last."""
    starts = 40_000 + 300.0 * np.arange(8)
    known = {
        "push": {"notifications": push_log(starts - late, grid=0.0)},
        "task": {"tasks": tasks([(t - late, t - late) for t in starts])},
        "other app": {"tasks": tasks([(t, t + 60) for t in starts], app="com.unseen")},
    }
    tables = {"flows": flows(starts, duration=75.0), "activity": activity([(1000, 2000)], **FRONT)}
    row = of_app(tables | known[cause], background_modes=[]).iloc[0]
    names = ["undeclared_background_rhythm", "below_scheduler_floor_share", "background_work_seconds"]
    own = [6 / 8, 7 / 9, 45.0]
    kept_work = 45.0 if cause == "push" else np.nan
    assert row[names].tolist() == pytest.approx([np.nan, np.nan, kept_work] if left_out else own, nan_ok=True)


def test_the_work_of_an_app_without_flows_is_nobody_elses():
    """Its rows have no code, which must not read as the last app of the device before."""
    both = together(flows([40_000.0], device="d1"), flows([40_000.0], device="d2"))
    tables = {
        "flows": both,
        "activity": activity([(1000, 2000)], device="d1", **FRONT),
        "tasks": tasks([(39_990, 40_010)], device="d2", app="com.unseen"),
    }
    row = of_app(tables, background_modes=[]).iloc[0]
    assert row["device_id"] == "d1" and row["background_work_seconds"] == 0.0


@pytest.mark.parametrize(
    ("mode", "rhythm", "short"), [("widget", 0, 7 / 9), ("network-extension", 0, 0), ("file-provider", 0, 0)]
)
def test_an_extension_that_runs_by_itself_is_declared(mode, rhythm, short):
    tables = {
        "flows": flows(40_000 + 300.0 * np.arange(8)),
        "activity": activity([(1000, 2000)], **FRONT),
    }
    row = of_app(tables, background_modes=[mode]).iloc[0]
    assert row["undeclared_background_rhythm"] == rhythm
    assert row["below_scheduler_floor_share"] == pytest.approx(short)


@pytest.mark.parametrize(("wait", "share"), [(30.0, 1.0), (30.000001, 0.0), (0.0, 1.0), (-1e-6, 0.0)])
def test_work_after_a_silent_push_comes_within_thirty_seconds(wait, share):
    tables = {"flows": flows([5000 + wait]), "notifications": push_log([5000.0], grid=0.0)}
    assert of_app(tables, background_modes=[])["undeclared_push_work_share"].item() == share
    loud = tables | {"notifications": push_log([5000.0], grid=0.0, silent=False)}
    assert of_app(loud, background_modes=[])["undeclared_push_work_share"].isna().all()
