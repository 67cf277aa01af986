"""The baseline knows the channel, falls back to its parents, and shrugs off a few bad windows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import fleet, flows, together

from appcadence.errors import BundleError
from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.models.baseline import CLIP, AppBaseline, registrable_domain


@pytest.fixture(scope="module")
def frame():
    return extract(fleet())


def test_a_known_channel_is_as_expected(frame):
    baseline = AppBaseline.fit(frame)
    poll = frame[frame["dest"] == "api.weather.example"]
    usual = baseline.expected(baseline.group_of(poll)[:, None], np.arange(len(NAMES)))
    expected = pd.DataFrame(usual, columns=list(NAMES))
    assert expected["session_median_interval_seconds"].median() == pytest.approx(1800, rel=0.1)
    assert np.nanmedian(np.abs(baseline.distances(poll))) < 1.0
    assert np.nanmax(np.abs(baseline.distances(frame))) <= CLIP


def test_an_unknown_channel_falls_back(frame):
    baseline = AppBaseline.fit(frame)
    new = extract({"flows": flows(np.arange(0, 86400, 30.0), app="com.weather", host="new.example")})
    keys = baseline.keys[baseline.group_of(new)]
    assert [k.split("\x1f")[:3] for k in keys if "com.weather" in k] == [
        [kind, "profile", "com.weather"] for kind in ("channel", "app")
    ] or all("com.weather" in k for k in keys)
    stranger = extract({"flows": flows([1.0, 2.0], app="com.never", host="never.example")})
    assert set(baseline.keys[baseline.group_of(stranger)]) <= {
        "channel",
        "app",
        "channel\x1fcategory\x1f",
        "app\x1fcategory\x1f",
    }


def test_three_per_cent_of_bad_windows_move_nothing_much(frame):
    rng = np.random.default_rng(0)
    bad = frame.copy()
    rows = rng.random(len(bad)) < 0.03
    for name in ("session_interval_entropy_ratio", "longest_session_seconds", "beats_per_hour"):
        bad.loc[rows, name] = 1e6
    clean, dirty = AppBaseline.fit(frame), AppBaseline.fit(bad)
    shift = np.abs(clean.location - dirty.location) / clean.scale
    assert np.quantile(shift, 0.95) < 0.5


def test_a_new_week_refines_without_the_old_flows(frame):
    rows = frame["device_id"] == frame["device_id"].iloc[0]
    old, new = frame[rows], frame[~rows]
    first = AppBaseline.fit(old)
    both = AppBaseline.fit(new, first)
    for key in set(first.keys) | set(AppBaseline.fit(new).keys):
        at = both.keys.get_loc(key)
        counts = [
            (f, one.count[one.keys.get_loc(key)], one.median[one.keys.get_loc(key)])
            for f, one in ((0.5, first), (1.0, AppBaseline.fit(new)))
            if key in one.keys
        ]
        want = sum(f * n for f, n, _ in counts)
        np.testing.assert_allclose(both.count[at], want, rtol=1e-6)
        mean = sum(f * n * m for f, n, m in counts) / np.maximum(want, 1e-9)
        np.testing.assert_allclose(both.median[at], mean, rtol=1e-5, atol=1e-6)
    # The same week again moves no expectation; another level of it moves it, and widens it.
    again = AppBaseline.fit(frame, AppBaseline.fit(frame))
    plain = AppBaseline.fit(frame)
    deep = plain.level == 3
    np.testing.assert_allclose(again.median, plain.median, rtol=1e-5, atol=1e-6)
    shifted = frame.assign(session_interval_entropy_ratio=0.9)
    moved = AppBaseline.fit(shifted, AppBaseline.fit(frame.assign(session_interval_entropy_ratio=0.1)))
    f = NAMES.index("session_interval_entropy_ratio")
    np.testing.assert_allclose(moved.median[deep, f], (0.1 + 2 * 0.9) / 3, rtol=1e-4)
    np.testing.assert_allclose(moved.spread[deep, f], 0.8 * np.sqrt(2) / 3, rtol=1e-4)


def test_round_trip_and_damage(frame):
    baseline = AppBaseline.fit(frame)
    table = baseline.to_arrow()
    again = AppBaseline.from_arrow(table)
    assert (again.location == baseline.location).all() and (again.scale == baseline.scale).all()
    parent = table["parent"].to_numpy().copy()
    for damaged in (
        table.set_column(2, "parent", pa.array(np.where(parent == 0, len(parent), parent))),
        table.set_column(2, "parent", pa.array(np.roll(parent, 1))),
        table.set_column(1, "level", pa.array(np.full(len(table), 7, np.int32))),
        table.set_column(0, "key", pa.array(["same"] * len(table))),
        table.slice(0, 0),
    ):
        with pytest.raises(BundleError):
            AppBaseline.from_arrow(damaged)


def test_without_app_names_the_registrable_domain_stands_in():
    table = together(
        *(flows([i * 600.0 + k for i in range(40)], app=None, host=f"edge{k}.cdn.co.uk") for k in range(3))
    )
    baseline = AppBaseline.fit(extract({"flows": table}))
    new = extract({"flows": flows([i * 600.0 for i in range(40)], app=None, host="edge9.cdn.co.uk")})
    assert list(baseline.keys[baseline.group_of(new)]) == ["channel\x1fprofile\x1fcdn.co.uk"]


@pytest.mark.parametrize(
    ("dest", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("x.co.uk", "x.co.uk"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost", "localhost"),
        ("co.uk", "co.uk"),
    ],
)
def test_registrable_domain(dest, domain):
    assert registrable_domain(dest) == domain
