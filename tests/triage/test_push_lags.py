"""Sessions after pushes: the features' own numbers, and far from chance only where they should be."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, flows, pushes, together
from pushed_fleet import APART, scored

from appcadence.features.extraction import extract
from appcadence.features.pushes import SHIFTS_SECONDS
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.triage.report.html import lag_curve
from appcadence.triage.report.page import write_report
from appcadence.triage.report_data import Lags, Output, as_rows, lags

DAY = 86_400_000_000
KEY = ["device_id", "app_id", "dest", "window_start"]


@pytest.fixture(scope="module")
def pushed(simulated_model, tmp_path_factory):
    return scored(simulated_model, tmp_path_factory.mktemp("pushed") / "out")


def drawn(svg, name):
    """The share at each of the 251 places of a curve."""
    (path,) = re.findall(rf'<path class="{name}" d="([^"]*)"', svg)
    out, level = [], None
    for kind, number in re.findall(r"([MHV ])(\d+)", path.replace("M0", "")):
        if kind == "H":
            out += [level] * (int(number) - len(out))
        else:
            level = int(number)
    return 1 - np.array([*out, level]) / 1000


def share(seconds, svg, name):
    return drawn(svg, name)[math.ceil(250 * math.log1p(seconds) / math.log(301))]


def test_numbers_are_those_of_the_features(pushed):
    table = extract(pushed.tables)
    table[KEY[:3]] = table[KEY[:3]].astype(object)
    of = table.assign(start=table["window_start"].dt.as_unit("us").astype("int64"))
    of = of.set_index(["device_id", "app_id", "dest", "start"])
    told, untold = 0, 0
    for window in pushed.windows():
        row, found = window.row, window.lags
        if row["app_id"] is None:
            assert window.pushes is None and found is None and window.pushed == ""
            continue
        want = of.loc[(row["device_id"], row["app_id"], row["dest"], row["window_start"])]
        assert (window.pushes is None) == np.isnan(want["pushes_per_hour"])
        if found is None:
            assert np.isnan(want["push_answered_share"])
            untold += 1
            continue
        n = len(window.pushes)
        assert found.answered / n == pytest.approx(want["push_answered_share"])
        assert found.reach_seconds == pytest.approx(30 + want["push_grid_seconds"])
        if not np.isnan(want["push_coupling_excess"]):
            excess = (found.answered - found.by_chance) / n
            assert excess == pytest.approx(want["push_coupling_excess"], abs=1e-6)
        assert "too many" in found.sentence or not np.isnan(want["push_coupling_excess"])
        told += 1
    assert told > 30 and untold > 10


def test_an_implant_stands_far_above_chance_and_an_unrelated_channel_does_not(pushed, tmp_path):
    implant = pushed.implants.iloc[0]
    mine, apart = [], []
    for window in pushed.windows():
        key = tuple(window.row[name] for name in KEY[:3])
        mine += [window] if key == tuple(implant[["device_id", "app_id", "dest"]]) else []
        apart += [window] if key == APART else []
    assert mine and len(apart) == 2
    for window in mine:
        svg = lag_curve(window.lags)
        # It lives a part of the day, and so answers a part of the pushes.
        seen, chance = (share(30, svg, name) for name in ("seen", "chance"))
        assert seen > 0.3 and chance < 0.1 and seen > 10 * chance
    for window in apart:
        svg = lag_curve(window.lags)
        assert np.abs(drawn(svg, "seen") - drawn(svg, "chance")).max() < 0.2
        assert drawn(svg, "seen")[-1] > 0.3
    write_report(pushed.out, tmp_path / "report.html", top=200)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) < 5_000_000 and page.count('class="lag"') > 10
    cases = {case["rank"]: case["case"] for case in Output(pushed.out).cases()}
    shown = [(window, cases[window.row["rank"]]) for window in mine if window.row["rank"] in cases]
    assert shown
    for window, case in shown:
        assert f'role="img" aria-label="{window.lags.sentence}"' in page
        bars = re.search(rf'id="c{case}".*?<svg class="push".*?</svg>', page, re.DOTALL)[0]
        assert 0 < bars.rpartition("<path")[2].count("v1") <= len(window.pushes)


def test_few_pushes_none_and_no_telemetry_are_told_apart(fleet_model, tmp_path):
    starts = np.arange(0, 86_400, 600.0)
    names = ("none", "one", "two", "three")
    tables = {
        "flows": together(*(flows(starts, "d1", f"com.{n}", f"{n}.example") for n in (*names, "else"))),
        "notifications": together(
            pushes([9e4], app="com.none"),
            pushes([86_399.0], app="com.one"),
            pushes([50.0, 7e4], app="com.two"),
            pushes([590.0, 2990.0, 4780.0], app="com.three", grid=60.0),
        ),
    }
    tables["flows"] = together(tables["flows"], flows(starts, "d2", "com.three", "other.example"))
    score_directory(tables, Scorer.load(fleet_model), tmp_path / "out")
    output = Output(tmp_path / "out")
    said = {}
    for window in output.windows(as_rows(output.scores([("rank", ">", 0)]))):
        said[window.row["device_id"], window.row["app_id"]] = (window.pushed, window.pushes)
    few = "to this app in this window: too few to compare with chance."
    assert said["d1", "com.none"] == said["d1", "com.else"] == (f"No push {few}", [])
    assert said["d1", "com.one"] == (f"1 push {few}", [(DAY0 + 86_399) * 1_000_000])
    assert said["d1", "com.two"][0] == f"2 pushes {few}"
    # Shifts of 7, 15 and 25 minutes against a beat of 10: each push meets a beat in 90 s after some.
    assert said["d1", "com.three"][0].startswith("3 of 3 pushes were followed by a session start within 90 s")
    assert said["d2", "com.three"] == ("", None)


def test_a_session_that_goes_on_from_the_day_before_has_no_start(fleet_model, tmp_path):
    on, off = flows([86_300.0], duration=3600.0), flows([86_400 + 7200.0 + 600 * i for i in range(20)])
    tables = {"flows": together(on, off), "notifications": pushes([86_390.0, 86_400.0, 86_401.0, 1e5])}
    score_directory(tables, Scorer.load(fleet_model), tmp_path / "out")
    output = Output(tmp_path / "out")
    (window,) = output.windows(as_rows(output.scores([("dest", "=", "*"), ("rank", ">", 0)])))[-1:]
    assert window.row["window_start"] == (DAY0 + 86_400) * 1_000_000
    assert len(window.sessions) == 21 and window.starts == [start for start, _ in window.sessions][1:]
    assert len(window.pushes) == 3 and window.lags.answered == 0


@given(
    st.lists(st.integers(0, DAY - 1), min_size=3, max_size=20),
    st.lists(st.integers(0, DAY - 1), max_size=20),
    st.sampled_from([0.0, 0.001, 60.0]),
)
def test_against_the_slow_twin(pushes_us, starts_us, grid):
    begin = DAY0 * 1_000_000
    found = lags([begin + p for p in pushes_us], [begin + s for s in starts_us], begin, begin + DAY, grid)

    def within(us, shift):
        after = [(p + int(shift * 1e6)) % DAY for p in pushes_us]
        return sum(any(t <= s <= t + us for s in starts_us) for t in after)

    reach = round((30 + grid) * 1e6)
    chance = [within(reach, shift) for shift in SHIFTS_SECONDS]
    assert found.answered == within(reach, 0) and found.by_chance == pytest.approx(np.mean(chance))
    svg = lag_curve(found)
    for place in (0, 60, 150, 250):
        us = round(math.expm1(place * math.log(301) / 250) * 1e6)
        assert drawn(svg, "seen")[place] == pytest.approx(within(us, 0) / len(pushes_us), abs=1e-3)
        want = np.mean([within(us, shift) for shift in SHIFTS_SECONDS]) / len(pushes_us)
        assert drawn(svg, "chance")[place] == pytest.approx(want, abs=1e-3)


def test_chance_that_answers_half_tells_nothing():
    often = [k * 20_000_000 for k in range(4320)]
    found = lags([1_000_000, 2_000_000, 3_000_000], often, 0, DAY, 0.0)
    assert found.sentence.endswith("within 30 s (3 by chance, too many to tell the two apart)")
    assert lags([1, 2], often, 0, DAY, 0.0) is None and lags([1, 2, 3], [], 0, DAY, 0.0).by_chance == 0


MINUTE, HOURS = 60_000_000, 3_600_000_000


@pytest.mark.parametrize(
    ("wait", "grid", "answered"),
    [
        (0, 0.0, 3),  # at once
        (30_000_000, 0.0, 3),
        (30_000_001, 0.0, 0),
        (90_000_000, 60.0, 3),
        (90_000_001, 60.0, 0),
        (-1, 0.0, 0),
    ],
)
def test_by_hand_a_push_is_answered_within_the_wake_time_and_the_grid(wait, grid, answered):
    times = [HOURS * k for k in (2, 5, 9)]
    found = lags(times, [t + wait for t in times], 0, DAY, grid)
    assert (found.answered, found.by_chance, found.reach_seconds) == (answered, 0.0, 30 + grid)
    assert lags(times[:2], times, 0, DAY, grid) is None


def test_by_hand_chance_is_the_mean_of_six_shifts_turned_round_the_window():
    # Starts 7 minutes after all three (past midnight after the last), and 15 before the first of them.
    times = [5 * MINUTE, DAY // 2, DAY - 5 * MINUTE]
    starts = [t + 7 * MINUTE for t in times[:2]] + [2 * MINUTE, DAY - 10 * MINUTE]
    found = lags(times, starts, 0, DAY, 0.0)
    assert found.answered == 0 and found.by_chance == pytest.approx(4 / 6)
    assert found.facts() == {"pushes": 3, "answered": 0, "by_chance": found.by_chance, "reach_seconds": 30.0}
    assert found.sentence == "0 of 3 pushes were followed by a session start within 30 s (0.67 by chance)"


def chance(of, answered):
    """The sentence on so many pushes, whose shifted ones so many starts follow."""
    none = np.iinfo(np.int64).max
    shifted = np.sort(np.r_[np.zeros(answered, np.int64), np.full(6 * of - answered, none)])
    return Lags(np.full(of, none), shifted, 30.0).sentence.rpartition("(")[2].rstrip(")")


def test_by_hand_half_of_the_pushes_by_chance_still_tell_and_more_do_not():
    assert chance(4, 12) == "2 by chance"
    assert chance(4, 13) == "2.2 by chance, too many to tell the two apart"
    assert chance(20, 60) == "10 by chance" and chance(40, 59) == "9.8 by chance"
    assert chance(40, 61) == "10 by chance"


def test_one_push_was_followed():
    found = Lags(np.array([1, 10**9, 10**9]), np.full(18, 10**9), 30.0)
    assert found.sentence == "1 of 3 pushes was followed by a session start within 30 s (0 by chance)"
