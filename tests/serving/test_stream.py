"""Micro-batches that come late, out of order, damaged, or from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from appcadence.errors import AppcadenceError, SchemaError
from appcadence.features.columns import micros
from appcadence.models import bundle
from appcadence.models.scores import SCORES
from appcadence.serving import Scorer
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.train import train

KEY = ["device_id", "app_id", "dest", "window_start"]
HOUR_US = 3_600_000_000
END = pd.Timestamp("2100-01-01", tz="UTC")


@pytest.fixture(scope="module", params=["24h", "6h"])
def detector(request, simulated_model):
    if request.param == "24h":
        return bundle.load(simulated_model)[0]
    return train(simulate(8, 4, 1).tables, request.param).detector


@pytest.fixture(scope="module")
def tables():
    return simulate(6, 2, 2, implants_per_device_day=0.5).tables


@pytest.fixture
def live(detector):
    return Scorer(detector, "test")


def by_key(rows):
    return rows.sort_values(KEY, ignore_index=True)


def around(tables):
    return {name: table for name, table in tables.items() if name != "flows"}


def same(rows, batch):
    """All but ranks, and the reasons of those that are worded in one of them alone."""
    rows, batch = (
        by_key(t).drop(columns=["rank", "reasons", "findings", "contributions"]) for t in (rows, batch)
    )
    pd.testing.assert_frame_equal(rows, batch, check_exact=True)


def test_connections_that_are_logged_when_they_end_add_up_to_the_batch(live, tables):
    flows = tables["flows"]
    seconds = flows["duration_seconds"].fill_null(0.0).to_numpy()
    logged = micros(flows["start"]) + (seconds * 1e6).astype(np.int64)
    flows, logged = flows.take(np.argsort(logged, kind="stable")), np.sort(logged)
    assert (np.diff(micros(flows["start"])) < 0).any()
    behind = pd.Timedelta(seconds=float(seconds.max()))
    found = [live.update(flows[:0], **around(tables))]
    for first in range(0, len(flows), 500):
        now = pd.Timestamp(int(logged[min(first + 500, len(flows)) - 1]), unit="us", tz="UTC")
        found.append(live.update(flows[first : first + 500], until=now - behind))
    found.append(live.update(flows[:0], until=END))
    assert live.live.late_flows == 0
    assert sum(len(rows) > 0 for rows in found) > 1
    same(pd.concat([rows for rows in found if len(rows)], ignore_index=True), live.score(tables))


def test_threads_may_share_it(live, tables):
    flows = tables["flows"]
    parts = [flows[first : first + 300] for first in range(0, len(flows), 300)]
    early = pd.Timestamp("2000-01-01", tz="UTC")
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda part: live.update(part, until=early), parts))
    assert not any(len(rows) for rows in given)
    same(live.update(flows[:0], until=END, **around(tables)), live.score(tables))


def test_a_restart_in_the_middle_loses_and_doubles_nothing(live, tables):
    flows = tables["flows"].sort_by("start")
    start, more = micros(flows["start"]), around(tables)
    half = len(flows) // 2
    found = [live.update(flows[:half], **more)]
    history, until = live.live.history, live.live.closed_until
    history = type(history).from_arrow(history.to_arrow())  # as it comes back from a file
    ends = start + (flows["duration_seconds"].fill_null(0.0).to_numpy() * 1e6).astype(np.int64)
    again = flows.filter(pa.array(ends >= until.value // 1000 - 24 * HOUR_US))
    resumed = Scorer(live.detector, "test").resumed(history, until)
    found.append(resumed.update(again, until=END, **more))
    assert len(found[0]) and resumed.live.late_flows
    same(pd.concat(found, ignore_index=True), live.score(tables))


def test_without_a_closed_window_there_are_no_rows(live, tables):
    rows = live.update(tables["flows"][:0])
    assert len(rows) == 0 and list(rows.columns) == SCORES.names
    first = tables["flows"].sort_by("start")[:10]
    assert len(live.update(first)) == 0


def test_what_is_wrong_is_refused_and_leaves_nothing_behind(live, tables):
    flows = tables["flows"]
    with pytest.raises(SchemaError, match="start"):
        live.update(flows.drop_columns(["start"]), **around(tables))
    with pytest.raises(AppcadenceError, match="no table 'activities'"):
        live.update(flows, activities=tables["activity"])
    with pytest.raises(AppcadenceError, match="no time zone"):
        live.update(flows, until=pd.Timestamp("2026-03-04"))
    assert len(live.update(flows[:0], until=END)) == 0


def test_a_call_that_fails_may_be_made_again(live, tables, monkeypatch):
    def failing(*asked, **more):
        raise MemoryError

    flows, more = tables["flows"].sort_by("start"), around(tables)
    half = len(flows) // 2
    found = [live.update(flows[:half], **more)]
    for _ in range(2):
        with monkeypatch.context() as broken, pytest.raises(MemoryError):
            broken.setattr("appcadence.models.detector.Detector.score", failing)
            live.update(flows[half:], until=END)
    with pytest.raises(AppcadenceError, match="alerts_per_device_day is -1; expected a number above 0"):
        live.update(flows[half:], until=END, alerts_per_device_day=-1)
    found.append(live.update(flows[half:], until=END))
    assert live.live.late_flows == 0
    same(pd.concat([rows for rows in found if len(rows)], ignore_index=True), live.score(tables))


def test_the_last_moment_of_all_closes_every_window(live, tables):
    assert len(live.update(tables["flows"], until=pd.Timestamp("9999-12-31", tz="UTC")))


def test_memory_holds_open_windows_alone(live, tables):
    flows = tables["flows"].sort_by("start")
    live.update(flows, **around(tables))
    start = micros(flows["start"])
    width = pd.Timedelta(live.detector.window).value // 1000
    border = start.max() // width * width
    kept = pa.concat_tables(live.live._open["flows"])
    assert 0 < len(kept) < len(flows)
    ends = micros(kept["start"]) + (kept["duration_seconds"].fill_null(0.0).to_numpy() * 1e6).astype(int)
    assert (np.maximum(ends, micros(kept["start"])) >= border).all()
