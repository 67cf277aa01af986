"""Implants: each kind keeps its promise, and nothing about their rows gives them away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import FLOWS
from appcadence.telemetry.simulate.behaviours import KINDS, steady
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject

DAYS = 4
DEVICES = 48
NAMES = ["device_id", "app_id", "dest_host", "dest_host_source", "dest_ip", "service", "source", "outcome"]

Injected = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return simulate(DEVICES, DAYS, 2, implants_per_device_day=0.0, own_log_share=0.0).tables


@pytest.fixture(scope="module")
def injected(tables: dict[str, pa.Table]) -> Injected:
    flows, specs = inject(tables, 1, per_device_day=4.0)
    assert flows.schema == FLOWS.schema and len(flows) == specs["flows"].sum()
    return frame(flows), specs


def frame(flows: pa.Table) -> pd.DataFrame:
    rows: pd.DataFrame = flows.to_pandas()
    rows[NAMES] = rows[NAMES].astype(object)
    rows["us"] = rows["start"].dt.as_unit("us").astype("int64")
    return rows


def each(injected: Injected, kind: str) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    """Implants of a kind with their rows, which stand in the order of the implants."""
    rows, specs = injected
    stops = specs["flows"].cumsum()
    found = specs[specs["kind"] == kind]
    assert len(found) > 5
    for number, spec in found.iterrows():
        yield spec, rows.iloc[stops[number] - spec["flows"] : stops[number]]


def test_specs_describe_their_rows(injected: Injected) -> None:
    assert set(injected[1]["kind"]) == set(KINDS)
    assert set(injected[1]["difficulty"]) == {"easy", "medium", "hard"}
    for kind in KINDS:
        for spec, rows in each(injected, kind):
            assert set(rows["device_id"]) == {spec["device_id"]}
            assert (
                rows["app_id"].isna().all()
                if pd.isna(spec["app_id"])
                else (rows["app_id"] == spec["app_id"]).all()
            )
            assert set(rows["dest_host"].where(rows["dest_host"].notna(), rows["dest_ip"])) == set(
                spec["dests"]
            )
            assert rows["us"].min() == spec["start_us"]
            assert (rows["us"] + rows["duration_seconds"].fillna(0) * 1e6).max() <= spec["end_us"] + 1


def test_mixture_is_as_promised(injected: Injected) -> None:
    specs = injected[1]
    assert 0.4 < specs["new_destination"].mean() < 0.6
    assert 0.4 < specs["carrier_sizes"].mean() < 0.6
    told = specs[[KINDS[kind].shows in ("rhythm", "persistence") for kind in specs["kind"]]]
    assert 0.4 < told["coupled"].mean() < 0.6 and 0.15 < told["in_use"].mean() < 0.45
    rest = specs.drop(told.index)
    assert not rest["coupled"].any() and not rest["in_use"].any()


def test_rows_know_no_more_and_no_less_than_their_source(
    tables: dict[str, pa.Table], injected: Injected
) -> None:
    benign, implants = frame(tables["flows"]), injected[0]
    for name in (c.name for c in FLOWS.columns if c.nullable):
        real = benign[name].notna().groupby(benign["source"]).mean()
        made = implants[name].notna().groupby(implants["source"]).mean()
        certain = real.isin([0.0, 1.0])
        pd.testing.assert_series_equal(real[certain], made[certain])


def test_missing_knowledge_is_copied(tables: dict[str, pa.Table]) -> None:
    flows = tables["flows"]
    blank = ["duration_seconds", "app_id", "dest_host", "service", "bytes_out", "bytes_in", "dest_port"]
    for name in blank:
        flows = flows.set_column(
            flows.column_names.index(name),
            FLOWS.schema.field(name),
            pa.nulls(len(flows), FLOWS.column(name).type),
        )
    flows = flows.filter(pc.is_valid(flows["dest_ip"]))
    implants = inject({"flows": flows}, 3, per_device_day=1.0)[0]
    assert len(implants) and all(implants[name].null_count == len(implants) for name in blank)
    assert implants["dest_ip"].null_count == 0


def test_each_connection_has_a_port_of_its_own_where_logs_have_them(tables: dict[str, pa.Table]) -> None:
    flows = tables["flows"]
    place = flows.schema.get_field_index("device_port")
    logged = pc.starts_with(flows["device_id"].cast(pa.string()), "phone-0000")
    assert 0 < pc.sum(logged).as_py() < len(flows)
    ports = pc.if_else(logged, pa.scalar(50_000, pa.int32()), None)
    implants = inject({"flows": flows.set_column(place, "device_port", ports)}, 3, per_device_day=1.0)[0]
    known = implants["device_port"].is_valid()
    assert known.equals(pc.starts_with(implants["device_id"].cast(pa.string()), "phone-0000"))
    assert pc.count_distinct(implants["device_port"]).as_py() == min(pc.sum(known).as_py(), 16_384)


def test_old_destinations_are_old_and_new_ones_new(tables: dict[str, pa.Table], injected: Injected) -> None:
    benign = frame(tables["flows"])
    contacted = set(benign["dest_host"].dropna()) | set(benign["dest_ip"].dropna())
    for spec in injected[1].itertuples():
        assert contacted.isdisjoint(spec.dests) if spec.new_destination else contacted.issuperset(spec.dests)


def test_starts_stay_in_the_span_and_on_the_grid(tables: dict[str, pa.Table]) -> None:
    begin, stop = pd.Timestamp("2026-03-03", tz="UTC"), pd.Timestamp("2026-03-04", tz="UTC")
    start, end = begin.value // 1000, stop.value // 1000
    implants = frame(inject(tables, 4, per_device_day=2.0, start=start, end=end)[0])
    assert len(implants)
    assert (implants["start"] >= begin).all() and (implants["start"] < stop).all()
    ends = implants["start"] + pd.to_timedelta(implants["duration_seconds"].fillna(0), unit="s")
    assert (ends <= stop + pd.Timedelta(microseconds=2)).all()
    grid = (implants["time_resolution_seconds"] * 1e6).round().clip(lower=1).astype("int64")
    assert (implants["us"] % grid == 0).all()


@pytest.mark.parametrize("kind", ["beacon", "few_beats"])
def test_beats_keep_their_period(injected: Injected, kind: str) -> None:
    for spec, rows in each(injected, kind):
        if spec["coupled"] or spec["in_use"] or len(rows) < 6:
            continue
        gaps = np.diff(np.sort(rows["us"])) * 1e-6
        grid = rows["time_resolution_seconds"].iloc[0]
        assert gaps.min() >= spec["period_seconds"] - grid - 0.001
        if spec["missed_ratio"] == 0:
            assert gaps.max() <= spec["period_seconds"] * (1 + spec["jitter_ratio"]) + grid + 0.001


def test_kinds_keep_their_promise(injected: Injected) -> None:
    for _, rows in each(injected, "few_beats"):
        assert len(rows) <= 15
    for _, rows in each(injected, "long_session"):
        assert len(rows) <= 3
    for _, rows in each(injected, "failing_retries"):
        assert (rows["outcome"] == "established").sum() <= max(1, 0.5 * len(rows))
    assert all(
        len(spec["dests"]) == 1
        for kind in set(KINDS) - {"rotating_hosts"}
        for spec, _ in each(injected, kind)
    )
    assert np.median([len(spec["dests"]) for spec, _ in each(injected, "rotating_hosts")]) >= 2


@pytest.mark.parametrize("kind", ["push_burst", "rare_push_burst"])
def test_push_bursts_follow_pushes(tables: dict[str, pa.Table], injected: Injected, kind: str) -> None:
    events = tables["notifications"].to_pandas()
    events = events[events["kind"] == "push_received"]
    events["us"] = events["time"].dt.as_unit("us").astype("int64")
    events = events.astype({"device_id": object, "app_id": object})
    pushes = {key: np.sort(part) for key, part in events.groupby(["device_id", "app_id"])["us"]}
    for spec, rows in each(injected, kind):
        times = pushes[spec["device_id"], spec["app_id"]]
        grid = rows["time_resolution_seconds"].iloc[0] * 1e6
        before = np.searchsorted(times, rows["us"] + grid, side="right") - 1
        assert (before >= 0).all()
        assert np.median((rows["us"] - times[before]) * 1e-6) < 20


def test_userless_avoids_the_user(tables: dict[str, pa.Table], injected: Injected) -> None:
    seen = tables["activity"].to_pandas().astype({"device_id": object})
    seen = seen[seen["kind"] == "device_unlocked"]
    for spec, rows in each(injected, "userless"):
        mine = seen[seen["device_id"] == spec["device_id"]]
        if not len(mine):
            # No activity telemetry: only in the eight quietest hours.
            assert rows["start"].dt.hour.nunique() <= 9
            continue
        for moment in rows["start"]:
            assert not ((mine["start"] < moment) & (mine["end"] > moment)).any()


def test_coupled_starts_follow_the_device(tables: dict[str, pa.Table], injected: Injected) -> None:
    benign = frame(tables["flows"])
    starts = {device: np.sort(part) for device, part in benign.groupby("device_id")["us"]}
    close: dict[bool, list[float]] = {True: [], False: []}
    for spec, rows in each(injected, "beacon"):
        if spec["in_use"]:
            continue
        own = starts[spec["device_id"]]
        lag = (rows["us"] - own[np.maximum(np.searchsorted(own, rows["us"], side="right") - 1, 0)]) * 1e-6
        close[bool(spec["coupled"])].append(float((lag <= 6).mean()))
    assert np.median(close[True]) > 0.9 > np.mean(close[False]) + 0.2


def test_equal_seed_and_rows_in_any_order_give_equal_output(tables: dict[str, pa.Table]) -> None:
    shuffled = tables["flows"].take(pa.array(np.random.default_rng(0).permutation(len(tables["flows"]))))
    flows, specs = inject(tables, 5, per_device_day=0.5)
    again, specs_again = inject(tables | {"flows": shuffled}, 5, per_device_day=0.5)
    assert flows.equals(again)
    pd.testing.assert_frame_equal(specs, specs_again)
    assert not flows.equals(inject(tables, 6, per_device_day=0.5)[0])


def test_bounds_and_bad_arguments(tables: dict[str, pa.Table]) -> None:
    specs = inject(tables, 7, per_device_day=2.0, max_per_device=1, kinds=["beacon"])[1]
    assert specs["device_id"].is_unique and set(specs["kind"]) == {"beacon"}
    for nothing in (
        inject(tables, 7, per_device_day=0.0),
        inject({"flows": FLOWS.empty()}, 7, per_device_day=1.0),
    ):
        assert nothing[0].schema == FLOWS.schema and len(nothing[0]) == len(nothing[1]) == 0
    with pytest.raises(TelemetryError, match="some_kind"):
        inject(tables, 7, per_device_day=1.0, kinds=["some_kind"])
    with pytest.raises(TelemetryError, match="negative"):
        inject(tables, 7, per_device_day=-1.0)


def test_behaviours_of_ones_own_are_kept_as_asked(tables: dict[str, pa.Table]) -> None:
    asked = {"slow": steady(1800.0, 0.0, 0.0), "mornings": steady(600.0, 0.0, 0.0, active=0.25)}
    rows, specs = inject(tables, 8, per_device_day=0.3, kinds=asked)
    rows = frame(rows)
    assert set(specs["kind"]) == set(asked) and not specs["coupled"].any()
    edges = np.append(0, specs["flows"].cumsum())
    hours = []
    for number, spec in specs.iterrows():
        mine = rows.iloc[edges[number] : edges[number + 1]]
        gaps = np.diff(np.sort(mine["us"])) / 1e6
        grid = mine["time_resolution_seconds"].iloc[0]
        if spec["kind"] == "slow":
            assert np.abs(gaps - 1800).max() <= grid + 1e-5 and spec["flows"] > (DAYS - 1) * 47
        else:
            hours.append((mine["us"] // 3_600_000_000).nunique() / DAYS)
    assert 5 < np.mean(hours) < 8  # a quarter of the day
