"""What exceptions are judged by: periods, volumes and hours of windows."""

import numpy as np
import pyarrow as pa
import pytest
from make import DAY0, flows, together
from two_rhythms import DAY, scored, telemetry

from appcadence.features import extract
from appcadence.features.build import build
from appcadence.serving import Scorer
from appcadence.serving.measures import measures_of, of_windows


def measured(windows):
    scores = pa.table({"alert": pa.array([False] * windows.n)})
    return measures_of(of_windows(windows), scores).to_pandas()


def test_measures_by_hand():
    """Six-hour windows: periods of beats, bytes of the whole day, hours of everything connected."""
    poll = np.arange(0, 6 * 3600, 900.0)
    tables = {
        "flows": together(
            flows(poll, host="a.example", duration=1.0, out=100, inn=None),
            flows([7 * 3600.0], host="a.example", duration=2 * 3600.0, out=50, inn=50),
            flows([23 * 3600.0], host="b.example", duration=2 * 3600.0, out=None, inn=None),
            flows(np.arange(0, 60, 15.0), host="c.example", duration=None, out=0, inn=0),
        )
    }
    windows = build(tables, 6 * 3600)
    rows = measured(windows)
    at = {
        (windows.dests[d], int(s // 3_600_000_000 - DAY0 // 3600)): row
        for d, s, row in zip(windows.dest, windows.start_us, rows.itertuples(), strict=True)
        if d >= 0
    }
    a, later = at["a.example", 0], at["a.example", 6]
    assert a.period_seconds == 900.0 and a.bytes_a_day == later.bytes_a_day == 24 * 100 + 100
    assert a.hours == 0b111111 and later.hours == 0b110000000 and np.isnan(later.period_seconds)
    assert np.isnan(at["b.example", 18].bytes_a_day) and at["b.example", 18].hours == 1 << 23
    assert at["b.example", 24].hours == 1 and at["c.example", 0].bytes_a_day == 0
    assert np.isnan(at["c.example", 0].period_seconds) and not rows["alert"].any()
    week = measured(build(tables, 7 * DAY))
    assert week["bytes_a_day"].iloc[0] == pytest.approx(2500 / 7)


@pytest.mark.parametrize(("beats", "period"), [(5, np.nan), (6, 900.0)])
def test_six_beats_have_a_period(beats, period):
    rows = measured(build({"flows": flows(900.0 * np.arange(beats))}, DAY))
    np.testing.assert_array_equal(rows["period_seconds"], [period] * 2)


@pytest.mark.parametrize(
    ("hours", "connected"), [(22, 0b1 << 22), (23, 0b11 << 22), (24, 0b111 << 22), (46, (1 << 24) - 1)]
)
def test_hours_begun_are_hours_connected_round_the_clock(hours, connected):
    """A flow from 22:00 on, in a week's window."""
    rows = measured(build({"flows": flows([22 * 3600.0], duration=(hours - 22) * 3600.0 + 1.0)}, 7 * DAY))
    both = connected | connected >> 24
    assert rows["hours"].tolist() == [both & (1 << 24) - 1] * 2


def test_short_windows_share_the_bytes_of_their_own_day():
    table = flows([0.0, 7 * 3600.0, DAY + 10.0], out=[1, 2, 4], inn=0)
    rows = measured(build({"flows": table}, 6 * 3600))
    assert rows["bytes_a_day"].tolist() == [3, 3, 4] * 2


def test_measures_agree_with_the_feature_table(fleet_model):
    scores, measures = scored(fleet_model)
    frame = extract(telemetry(), history=Scorer.load(fleet_model).detector.history)
    assert (frame["dest"].astype(str).to_numpy() == scores["dest"].to_numpy()).all()
    np.testing.assert_allclose(
        measures["period_seconds"].to_pandas(), frame["beat_median_interval_seconds"], rtol=1e-5
    )
