"""Controls: equal to their implants in volume, newness and the user's absence, and without their rhythm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from twins import inject_with_twins

from appcadence.features.extraction import extract
from appcadence.telemetry.schema import FLOWS
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject

RATE = 1.5


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return simulate(40, 4, 3, implants_per_device_day=0.0, own_log_share=0.0).tables


Drawn = tuple[pa.Table, pd.DataFrame]


@pytest.fixture(scope="module")
def drawn(tables: dict[str, pa.Table]) -> Drawn:
    return inject_with_twins(tables, 1, per_device_day=RATE)


@pytest.fixture(scope="module")
def pairs(drawn: Drawn) -> list[tuple[pd.Series, pd.DataFrame, pd.Series, pd.DataFrame]]:
    """Each mirrored implant and its rows, its control and its rows."""
    flows, specs = drawn
    rows = flows.to_pandas()
    rows["us"] = flows["start"].cast(pa.int64()).to_numpy()
    rows["outcome"] = rows["outcome"].astype(object)
    stop = specs["flows"].cumsum()

    def of(number: int) -> tuple[pd.Series, pd.DataFrame]:
        return specs.loc[number], rows.iloc[stop[number] - specs.loc[number, "flows"] : stop[number]]

    return [(*of(c.mirrors), *of(c.Index)) for c in specs[specs["control"]].itertuples()]


def apart(pairs: list, shows: str) -> Iterator[tuple[pd.Series, pd.DataFrame, pd.Series, pd.DataFrame]]:
    found = [pair for pair in pairs if KINDS[pair[0]["kind"]].shows == shows]
    assert len(found) > 5
    return iter(found)


def test_nearly_every_implant_has_one_and_is_no_other_for_it(
    tables: dict[str, pa.Table], drawn: Drawn
) -> None:
    flows, specs = drawn
    control = specs["control"].to_numpy()
    assert control.sum() > 0.9 * (~control).sum()
    assert not control[: (~control).sum()].any() and specs.loc[~control, "mirrors"].eq(-1).all()
    assert specs.loc[control, "mirrors"].is_unique
    mirrored = specs["kind"][specs.loc[control, "mirrors"]]
    assert specs.loc[control, "kind"].tolist() == mirrored.tolist()
    alone, told = inject(tables, 1, per_device_day=RATE)
    pd.testing.assert_frame_equal(told, specs.loc[~control, list(told)])
    assert alone.to_pylist() == flows.slice(0, len(alone)).to_pylist()
    half = inject_with_twins(tables, 1, per_device_day=RATE, share=0.5)[1]["control"].sum()
    assert 0.35 * control.sum() < half < 0.65 * control.sum()


def test_an_equal_seed_gives_equal_controls(tables: dict[str, pa.Table], drawn: Drawn) -> None:
    shuffled = tables["flows"].take(pa.array(np.random.default_rng(0).permutation(len(tables["flows"]))))
    again, specs = inject_with_twins(tables | {"flows": shuffled}, 1, per_device_day=RATE)
    assert again.equals(drawn[0])
    pd.testing.assert_frame_equal(specs, drawn[1])


def test_a_control_has_the_volume_of_its_implant(pairs: list) -> None:
    for spec, rows, twin, mirrored in pairs:
        assert twin["flows"] == spec["flows"] == len(mirrored)
        for name in ("bytes_out", "bytes_in"):
            assert sorted(mirrored[name].fillna(-1)) == sorted(rows[name].fillna(-1))
        assert sorted(mirrored["outcome"]) == sorted(rows["outcome"])
        # The end of the telemetry may cut a session short.
        if KINDS[spec["kind"]].shows != "persistence":
            assert mirrored["duration_seconds"].sum() <= rows["duration_seconds"].sum() * 1.5 + 1e5
            assert mirrored["duration_seconds"].isna().sum() == rows["duration_seconds"].isna().sum()


def test_a_control_lives_elsewhere_with_destinations_as_new(tables: dict[str, pa.Table], pairs: list) -> None:
    host, address = (tables["flows"][name].cast(pa.string()) for name in ("dest_host", "dest_ip"))
    contacted = set(pc.unique(host).to_pylist()) | set(pc.unique(address).to_pylist())
    homes = []
    for spec, _, twin, _ in pairs:
        assert twin["new_destination"] == spec["new_destination"]
        # A neighbour's address may be a contact's by chance.
        known = np.mean([dest in contacted for dest in twin["dests"]])
        assert known < 0.2 if spec["new_destination"] else known > 0
        for one in (spec, twin):
            app = one["app_id"] if isinstance(one["app_id"], str) else tuple(one["dests"])
            homes.append((one["kind"], one["device_id"], app, one is twin))
    controls = [home[1:3] for home in homes if home[3]]
    assert len(set(controls)) == len(controls)
    assert set(controls).isdisjoint(home[1:3] for home in homes if not home[3])


def test_a_control_lives_as_long(pairs: list) -> None:
    ratio = [
        (twin["end_us"] - twin["start_us"]) / (spec["end_us"] - spec["start_us"])
        for spec, _, twin, _ in apart(pairs, "rhythm")
        if spec["kind"] == "beacon" and not spec["in_use"]
    ]
    assert 0.8 < np.median(ratio) < 1.1 and np.max(ratio) < 2


def test_a_control_has_no_rhythm(tables: dict[str, pa.Table], drawn: Drawn, pairs: list) -> None:
    """Its cadence is near what chance gives, and its implant's is not."""
    cadence = extract({"flows": drawn[0]}, "24h")
    cadence = cadence[cadence["dest"].astype(object) != "*"].astype({"device_id": object, "dest": object})
    best = cadence.groupby(["device_id", "dest"])["beat_ratio_share_1_3"].max()
    found = {True: [], False: []}
    for spec, _, twin, _ in apart(pairs, "rhythm"):
        if spec["kind"] in ("beacon", "few_beats") and not spec["coupled"] and not spec["in_use"]:
            for one in (spec, twin):
                found[one is twin].append(best.get((one["device_id"], one["dest"]), np.nan))
    assert len(found[True]) > 10
    # Of two exponential gaps the larger is at most 1.3 times the other with a chance of .13.
    assert np.nanmedian(found[True]) < 0.2 < 0.5 < np.nanmedian(found[False])


def test_it_lacks_what_shows_its_kind(tables: dict[str, pa.Table], pairs: list) -> None:
    for _, rows, _, mirrored in apart(pairs, "persistence"):
        assert not mirrored["duration_seconds"].max() > 120.0 or rows["duration_seconds"].isna().all()
    pushes = (
        tables["notifications"].to_pandas().astype({"device_id": object, "app_id": object, "kind": object})
    )
    pushes = pushes[pushes["kind"] == "push_received"]
    pushes["us"] = pushes["time"].dt.as_unit("us").astype("int64")
    times = {key: np.sort(part) for key, part in pushes.groupby(["device_id", "app_id"])["us"]}
    near: dict[bool, list[float]] = {True: [], False: []}
    for spec, rows, twin, mirrored in apart(pairs, "push"):
        for one, own in ((spec, rows), (twin, mirrored)):
            heard = times.get((one["device_id"], one["app_id"]), np.zeros(1, np.int64))
            before = heard[np.maximum(np.searchsorted(heard, own["us"]) - 1, 0)]
            near[one is twin].append(float(((own["us"] - before) < 30e6).mean()))
    assert np.mean(near[True]) < 0.2 < 0.8 < np.mean(near[False])


def test_the_user_is_as_absent_as_for_the_implant_unless_absence_shows_it(
    tables: dict[str, pa.Table], pairs: list
) -> None:
    seen = tables["activity"].to_pandas().astype({"device_id": object, "kind": object})
    seen = seen[(seen["kind"] == "device_unlocked") & seen["end"].notna()]
    by = {key: part[["start", "end"]] for key, part in seen.groupby("device_id")}

    def there(spec: pd.Series, rows: pd.DataFrame) -> float:
        spans = by[spec["device_id"]]
        return float(np.mean([((spans["start"] <= t) & (spans["end"] >= t)).any() for t in rows["start"]]))

    for shows in ("rhythm", "absence"):
        both = [
            (there(spec, rows), there(twin, mirrored))
            for spec, rows, twin, mirrored in apart(pairs, shows)
            if spec["device_id"] in by and twin["device_id"] in by and not spec["coupled"]
        ]
        implant, control = np.array(both).T
        if shows == "absence":
            assert implant.max() == 0.0 and np.median(control) > 0.9
        else:
            assert np.median(np.abs(implant - control)) < 0.05


def test_one_app_alone_has_no_control(tables: dict[str, pa.Table]) -> None:
    """Its twin would stand in the same app-level window."""
    flows = tables["flows"]
    # Of the system's push daemon, which is no home of implants, the flows come first.
    app = flows["app_id"].cast(pa.string())
    who = flows.filter(pc.fill_null(pc.not_equal(app, "com.apple.apsd"), False))
    first = {name: who[name].cast(pa.string())[0] for name in ("device_id", "app_id")}
    mask = pc.and_(
        pc.equal(flows["device_id"].cast(pa.string()), first["device_id"]),
        pc.fill_null(pc.equal(flows["app_id"].cast(pa.string()), first["app_id"]), False),
    )
    lone, specs = inject_with_twins({"flows": flows.filter(mask)}, 1, per_device_day=3.0)
    assert len(specs) and not specs["control"].any() and lone.schema == FLOWS.schema


def test_without_app_names_a_control_has_another_destination(tables: dict[str, pa.Table]) -> None:
    flows = tables["flows"]
    nameless = flows.filter(pc.is_null(flows["app_id"]))
    device = nameless["device_id"].cast(pa.string())
    one = nameless.filter(pc.equal(device, device[0]))
    specs = inject_with_twins({"flows": one}, 1, per_device_day=8.0)[1]
    control = specs["control"]
    implants = set(specs.loc[~control, "dests"].explode())
    assert control.sum() > 5 and implants.isdisjoint(specs.loc[control, "dests"].explode())
