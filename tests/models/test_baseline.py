"""The baseline knows the channel, falls back to its parents, and shrugs off a few bad windows."""

import math
import statistics

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import windows
from hypothesis import given, settings
from hypothesis import strategies as st
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


def no_integers(n):
    """Columns of which one value, or each, is no whole number."""
    yield pa.array([np.nan] * n)
    yield pa.array([0.0] * n)
    yield pa.array([None, *[0] * (n - 1)], pa.int32())
    yield pa.array(["0"] * n)


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
        *(
            table.set_column(at, table.column_names[at], odd)
            for at in (1, 2)
            for odd in no_integers(len(table))
        ),
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


# Against the slow twin: groups of windows as lists of numbers.

SHOWN = ("session_median_interval_seconds", "session_mode_share", "upload_ratio", "unexpected_host_share")
"""A time, which is compared by its logarithm; two shares; and a share that no baseline is held against."""
PLACES = [NAMES.index(name) for name in SHOWN]
CATEGORY = {"com.a": "Games", "com.b": "Games", "com.c": None, None: None}
WEIGHT = (0.5, 5.0, 2.0, 0.5)


def compared(name, value):
    return math.log1p(max(value, 0.0)) if name == SHOWN[0] else value


def groups_of(app, dest):
    """The groups of a window from the widest to the narrowest, as their keys."""
    kind, who = "app" if dest == "*" else "channel", app or dest
    return [
        kind,
        f"{kind}\x1fcategory\x1f{CATEGORY[app] or ''}",
        f"{kind}\x1fprofile\x1f{who}",
        f"{kind}\x1fprofile\x1f{who}\x1f{dest}",
    ]


class Slow:
    """What is usual, by the definition."""

    def __init__(self, rows):
        self.known, self.above = {}, {}
        for app, dest, *numbers in rows:
            groups = groups_of(app, dest)
            self.above |= dict(zip(groups[1:], groups, strict=False))
            for group in groups:
                lists = self.known.setdefault(group, [[] for _ in SHOWN])
                for some, name, number in zip(lists, SHOWN, numbers, strict=True):
                    some += [] if number is None else [compared(name, number)]

    def level(self, group):
        return 1 + self.level(self.above[group]) if group in self.above else 0

    def statistics(self, group, f):
        some = self.known[group][f]
        if not some:
            return 0, 0.0, 0.0
        median = statistics.median(some)
        return len(some), median, 1.4826 * statistics.median(abs(x - median) for x in some)

    def location(self, group, f):
        """Shrunk to that of the wider group."""
        n, median, _ = self.statistics(group, f)
        level = self.level(group)
        own = n / (n + WEIGHT[level])
        return own * median + ((1 - own) * self.location(self.above[group], f) if level else 0.0)

    def width(self, group, f):
        n, _, spread = self.statistics(group, f)
        level, more = self.level(group), max(n - 1, 0)
        own = more / (more + (5.0 if level else WEIGHT[0]))
        return own * spread + (1 - own) * (self.scale(self.above[group], f) if level else 1.0)

    def scale(self, group, f):
        """Shrunk likewise, and at least a fifth of the wider of the two kinds of windows."""
        fleet = [max(self.width(g, f), 0.02) for g in self.known if g not in self.above]
        return max(self.width(group, f), 0.2 * max(fleet), 0.0 if self.level(group) else 0.02)


number = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, 400.0]))
channel = st.sampled_from(
    [("com.a", "x.example"), ("com.a", "x.example"), ("com.a", "y.example"), ("com.a", "*"), ("com.b", "*")]
    + [("com.b", "x.example"), ("com.c", "y.example"), (None, "x.example"), (None, "y.example")]
)
some = st.lists(
    st.tuples(channel, *[number] * len(SHOWN)).map(lambda row: (*row[0], *row[1:])), min_size=1, max_size=14
)


def table_of(rows):
    app, dest, *columns = zip(*rows, strict=True)
    known = {name: np.array(column, float) for name, column in zip(SHOWN, columns, strict=True)}
    return windows(len(rows), app=list(app), dest=list(dest), category=[CATEGORY[a] for a in app], **known)


@given(some, some)
@settings(max_examples=40)
def test_every_group_is_shrunk_to_the_wider_one_as_its_twin_is(rows, later):
    slow, baseline = Slow(rows), AppBaseline.fit(table_of(rows))
    assert set(baseline.keys) == set(slow.known)
    for g, key in enumerate(baseline.keys):
        assert baseline.level[g] == slow.level(key)
        assert (
            baseline.keys[baseline.parent[g]] == slow.above[key]
            if key in slow.above
            else baseline.parent[g] == -1
        )
        for f, place in enumerate(PLACES):
            got = [getattr(baseline, name)[g, place] for name in ("count", "median", "spread")]
            np.testing.assert_allclose(got, slow.statistics(key, f), rtol=1e-6, atol=1e-6)
            got = baseline.location[g, place], baseline.scale[g, place]
            np.testing.assert_allclose(got, [slow.location(key, f), slow.scale(key, f)], rtol=1e-6, atol=1e-6)
    distances = baseline.distances(table_of(later))[:, PLACES]
    for row, got in zip(later, distances, strict=True):
        groups = [group for group in groups_of(*row[:2]) if group in slow.known]
        for f, (name, value) in enumerate(zip(SHOWN, row[2:], strict=True)):
            # What belongs to no known group lies at nought, one wide.
            usual, scale = (slow.location(groups[-1], f), slow.scale(groups[-1], f)) if groups else (0, 1)
            want = math.nan if value is None or f == 3 else (compared(name, value) - usual) / scale
            assert got[f] == pytest.approx(min(max(want, -CLIP), CLIP), rel=1e-4, abs=1e-4, nan_ok=True)


@given(some, some)
@settings(max_examples=20)
def test_a_refined_baseline_counts_the_older_windows_by_half(rows, later):
    old, new = Slow(rows), Slow(later)
    both = AppBaseline.fit(table_of(later), AppBaseline.fit(table_of(rows)))
    assert set(both.keys) == set(old.known) | set(new.known) and (np.diff(both.level) >= 0).all()
    for g, key in enumerate(both.keys):
        assert both.level[g] == (new if key in new.known else old).level(key)
        for f, place in enumerate(PLACES):
            n, was, spread_was = old.statistics(key, f) if key in old.known else (0, 0.0, 0.0)
            k, now, spread_now = new.statistics(key, f) if key in new.known else (0, 0.0, 0.0)
            n, total = 0.5 * n, max(0.5 * n + k, 1e-9)
            variance = (n * spread_was**2 + k * spread_now**2) / total + n * k * (now - was) ** 2 / total**2
            want = n + k, (n * was + k * now) / total, math.sqrt(variance)
            got = [getattr(both, name)[g, place] for name in ("count", "median", "spread")]
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_an_app_that_moved_to_another_category_is_shrunk_to_the_new_one():
    before, since = (windows(9, category=category, upload_ratio=0.3) for category in ("Games", "Finance"))
    moved = AppBaseline.fit(since, AppBaseline.fit(before))
    app = moved.keys.get_loc("channel\x1fprofile\x1fcom.a")
    assert moved.keys[moved.parent[app]] == "channel\x1fcategory\x1fFinance"


def test_an_outline_knows_categories_and_nobody_by_name():
    outline = AppBaseline.fit(windows(9, category="Games", upload_ratio=0.3)).outlined()
    assert list(outline.keys) == ["channel", "channel\x1fcategory\x1fGames"]
    assert outline.group_of(windows(1, category="Games")).tolist() == [1]


def one_feature(values, **more):
    """The baseline of one channel whose upload ratio was so, and the places of its group and the feature."""
    baseline = AppBaseline.fit(windows(len(values), upload_ratio=np.array(values, float), **more))
    return baseline, baseline.keys.get_loc("channel\x1fprofile\x1fcom.a\x1fa.example"), PLACES[2]


def test_a_channel_without_any_spread_has_a_fifth_of_the_fleets():
    alike, g, f = one_feature([0.3] * 400)
    # The fleet is never taken for narrower than .02; a group of it than a fifth of that.
    assert alike.scale[0, f] == pytest.approx(0.02) and alike.scale[g, f] == pytest.approx(0.004)
    fleet = windows(400, app="com.b", upload_ratio=np.tile([0.0, 1.0], 200))
    one = windows(400, upload_ratio=0.3)
    baseline = AppBaseline.fit(pd.concat([fleet, one], ignore_index=True))
    g = baseline.keys.get_loc("channel\x1fprofile\x1fcom.a\x1fa.example")
    width = 1.4826 * 0.15 * (799 / 799.5) + 1 - 799 / 799.5
    assert baseline.scale[0, f] == pytest.approx(width) and baseline.scale[g, f] == pytest.approx(width / 5)


def test_one_window_says_what_is_usual_and_nothing_of_the_spread():
    baseline, g, f = one_feature([0.3])
    # Each level holds the one window: a share of .5, 5, 2 and .5 of what is wider stays.
    assert baseline.location[g, f] == pytest.approx(0.3 * (1 - (1 / 3) * (5 / 6) * (2 / 3) * (1 / 3)))
    assert baseline.scale[g, f] == 1.0


def test_distances_end_at_eight_spreads_on_both_sides():
    baseline, g, f = one_feature([0.0, 0.0])
    usual, scale = baseline.location[g, f], baseline.scale[g, f]
    values = usual + scale * np.array([-9.0, -8.0, -7.99, 0.0, 7.99, 8.0, 9.0])
    asked = np.full((7, len(NAMES)), np.nan)
    asked[:, f] = values
    got = baseline.z_scores(asked, np.full(7, g))[:, f]
    np.testing.assert_allclose(got, [-8, -8, -7.99, 0, 7.99, 8, 8], atol=1e-12)


def test_what_is_usual_is_told_in_the_features_own_units():
    rows = windows(9, session_median_interval_seconds=1800.0, unexpected_host_share=0.5, upload_ratio=0.25)
    baseline = AppBaseline.fit(rows)
    group = baseline.group_of(rows[:1])
    location = baseline.location[group[0]]
    got = baseline.expected(group[:, None], np.array(PLACES))[0]
    assert got[0] == pytest.approx(math.expm1(location[PLACES[0]])) and 1500 < got[0] < 1800
    assert got[2] == location[PLACES[2]] and np.isnan(got[3])
    # However far out a damaged bundle puts it, a finite number.
    location[PLACES[0]] = 1e9
    assert np.isfinite(baseline.expected(group, np.array(PLACES[:1]))[0])


@pytest.mark.parametrize(
    ("column", "value"),
    [("count", -1.0), ("spread", -0.001), ("count", np.nan), ("median", np.inf), ("spread", np.nan)],
)
def test_numbers_that_no_baseline_has_are_refused(column, value):
    table = AppBaseline.fit(windows(3, upload_ratio=0.3)).to_arrow()
    assert len(AppBaseline.from_arrow(table).keys) == 4
    values = table[column].combine_chunks().flatten().to_numpy().copy()
    values[-1] = value
    damaged = pa.FixedSizeListArray.from_arrays(pa.array(values), len(NAMES))
    with pytest.raises(BundleError):
        AppBaseline.from_arrow(table.set_column(table.column_names.index(column), column, damaged))


@pytest.mark.parametrize(
    "levels", [[0, 1, 2, 4], [0, 1, 3], [0, 2, 3], [1, 2, 3], [0, 1, 1, 2], [-1, 0, 1, 2], [0, 1, 2, 3, 4]]
)
def test_levels_that_skip_one_or_go_too_deep_are_refused(levels):
    table = AppBaseline.fit(windows(3, upload_ratio=0.3)).to_arrow()
    deeper = {"key": pa.array(["deeper"]), "parent": pa.array([3], pa.int32())}
    for name in table.column_names:
        deeper.setdefault(name, table[name].slice(3))
    rows = pa.concat_tables([table, pa.table(deeper).select(table.column_names)]).slice(0, len(levels))
    with pytest.raises(BundleError, match="not nested"):
        AppBaseline.from_arrow(rows.set_column(1, "level", pa.array(levels, pa.int32())))
