"""Simulated phones that nothing but their own log shows, and implants in such logs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from appcadence.errors import TelemetryError
from appcadence.telemetry.simulate.behaviours import Kind, steady
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject
from appcadence.telemetry.simulate.phone_log import joined, nowhere, slots

SLOT_US = 8_000_000
ARGUMENTS = {"devices": 12, "days": 3, "seed": 4}


@pytest.fixture(scope="module")
def fleets():
    """The same fleet with destinations, and with as many phones as possible seen through their own log."""
    return [simulate(**ARGUMENTS, implants_per_device_day=0.5, own_log_share=share) for share in (0.0, 1.0)]


def rows_of(table, devices):
    return table.filter(pc.is_in(table["device_id"].cast(pa.string()), pa.array(sorted(devices))))


def devices_of(table):
    return set(pc.unique(table["device_id"].cast(pa.string())).to_pylist())


def test_the_other_devices_are_the_same_whatever_the_share(fleets):
    plain, own = (fleet.tables for fleet in fleets)
    mine = devices_of(own["flows"].filter(pa.array(nowhere(own["flows"]))))
    others = devices_of(own["flows"]) - mine
    assert mine and others
    for name in ("flows", "activity", "notifications"):
        assert rows_of(own[name], others).to_pylist() == rows_of(plain[name], others).to_pylist(), name
    assert not rows_of(own["usage"], others) and not rows_of(own["tasks"], others)


def test_an_own_log_shows_apps_in_slots_and_no_more(fleets):
    plain, own = (fleet.tables for fleet in fleets)
    flows = own["flows"].filter(pa.array(nowhere(own["flows"])))
    mine = devices_of(flows)
    frame = flows.to_pandas()
    assert (
        frame[["dest_host", "dest_ip", "dest_port", "bytes_out", "bytes_in", "service"]].isna().all(axis=None)
    )
    assert (frame["duration_seconds"] >= 7.9).mean() > 0.99 and set(frame["time_resolution_seconds"]) == {8.0}
    seen = rows_of(plain["flows"], mine)
    assert set(frame["app_id"].astype(str)) == set(seen["app_id"].cast(pa.string()).drop_null().to_pylist())
    pushes = rows_of(own["notifications"], mine).to_pandas()
    stamps = pushes.loc[pushes["kind"] == "push_received", "time"].astype("int64") // 10**6
    assert len(stamps) and set(stamps % 60) == {30}
    total = sum(pc.sum(rows_of(plain["flows"], mine)[name]).as_py() for name in ("bytes_out", "bytes_in"))
    counted = sum(pc.sum(own["usage"][name]).as_py() for name in ("bytes_out", "bytes_in"))
    assert counted == total
    labels = rows_of(fleets[1].labels, mine)
    assert set(labels["dest"].to_pylist()) <= {"*"} and devices_of(own["tasks"]) <= mine


def test_slots_of_an_open_connection_are_where_it_moves_something():
    """An hour with few bytes: its ends, and a slot every few minutes; the same with many: most of them."""
    start = np.array([1_772_409_600_000_000])
    few = slots(np.zeros(1, int), start, np.array([3600.0]), np.array([2000.0]))
    assert 14 <= len(few[1]) <= 20
    many = slots(np.zeros(1, int), start, np.array([3600.0]), np.array([1e9]))
    assert (many[2] - many[1]).sum() > 0.75 * 3600e6
    whose, begin, end = slots(
        np.array([1, 0, 1]), np.repeat(start, 3), np.full(3, np.nan), np.full(3, np.nan)
    )
    assert whose.tolist() == [0, 1] and ((end - begin) == SLOT_US).all()


def test_implants_in_an_own_log_are_runs_of_slots_and_join_what_is_there(fleets):
    benign = simulate(**ARGUMENTS, implants_per_device_day=0.0, own_log_share=1.0).tables
    grafted, specs = inject(benign, 3, per_device_day=2.0, kinds={"beat": Kind(steady(300.0, 0.0, 0.0))})
    mine = grafted.filter(pa.array(nowhere(grafted)))
    assert len(mine) and specs["flows"].sum() == len(grafted)
    assert mine["bytes_out"].null_count == len(mine) and pc.min(mine["duration_seconds"]).as_py() >= 7.9
    assert set(specs.loc[specs["device_id"].isin(devices_of(mine)), "dest"]) == {"*"}
    both = joined(benign["flows"], grafted)
    assert len(both) < len(benign["flows"]) + len(grafted)
    seconds = pc.sum(both.filter(pa.array(nowhere(both)))["duration_seconds"]).as_py()
    apart = [
        pc.sum(t.filter(pa.array(nowhere(t)))["duration_seconds"]).as_py() for t in (benign["flows"], grafted)
    ]
    assert max(apart) < seconds < sum(apart)
    assert joined(benign["flows"], grafted[:0]).to_pylist() == benign["flows"].to_pylist()


def test_a_share_is_one():
    with pytest.raises(TelemetryError, match="must be 0 to 1, got 2"):
        simulate(**ARGUMENTS, own_log_share=2)
