"""The baseline knows the channel, falls back to its parents, and shrugs off a few bad windows."""

import numpy as np
import pandas as pd
import pytest
from make import fleet, flows, together

from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.models.baseline import CLIP, AppBaseline, registrable_domain


@pytest.fixture(scope="module")
def frame():
    return extract(fleet())


def test_a_known_channel_is_as_expected(frame):
    baseline = AppBaseline.fit(frame)
    poll = frame[frame["dest"] == "api.weather.example"]
    expected = pd.DataFrame(baseline.expected(poll), columns=list(NAMES))
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
