"""Whether the alert budget outlasts an honest change in a quarter of the devices.

shifts.py [--seeds N] [--first-seed S] [--devices N]

Simulated fleets without implants: a week to train on, and a week to score in which a quarter of the devices
changed on its first day (drawn from those that have what gets lost). Alerts are device-app-days
(device-dest-days without app names) at a promise of one a device-day, on the changed devices and on the rest,
with `device_shift` and without; "unusual" is the share of the changed devices' days (and of the others') of
which a window says `device_unusual`. The findings on identity are printed. Simulated figures promise nothing
for a real fleet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from fleet import DAYS, spread, weeks

from appcadence.features.extraction import load
from appcadence.models.calibration import alert_unit, device_days
from appcadence.models.detector import Detector
from appcadence.models.pipeline import assemble
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import Tables
from appcadence.training.train import train

CHANGED_SHARE = 0.25
Change = Callable[[Tables, pa.Array], Tables]
"""Raw tables of a week as they are with some devices changed."""


def without_apps(tables: Tables, changed: pa.Array) -> Tables:
    return _with(tables, changed, {"app_id": None, "app_attribution": "none"})


def without_filter(tables: Tables, changed: pa.Array) -> Tables:
    """No app names, no activity and no notifications: a gateway is left."""
    kept = {
        name: tables[name].filter(pc.invert(_of(tables[name], changed)))
        for name in ("activity", "notifications")
    }
    return without_apps(tables, changed) | kept


def without_hosts(tables: Tables, changed: pa.Array) -> Tables:
    """No host names where the address is known; the fleet's own records may yet say them."""
    bare = pc.is_valid(tables["flows"]["dest_ip"])
    return _with(tables, changed, {"dest_host": None, "dest_host_source": None}, bare)


def without_any_hosts(tables: Tables, changed: pa.Array) -> Tables:
    """The same where the fleet's own records do not say them."""
    return without_hosts(load(tables), changed)


def new_ids(tables: Tables, changed: pa.Array) -> Tables:
    def renamed(table: pa.Table) -> pa.Table:
        old = table["device_id"].cast(pa.string())
        new = pc.binary_join_element_wise("enrolled", old, "-")
        return _set(table, "device_id", pc.if_else(_of(table, changed), new, old))

    per_device = ("flows", "activity", "notifications")
    return tables | {name: renamed(tables[name]) for name in per_device}


CHANGES: dict[str, tuple[Change, tuple[str, ...], str]] = {
    "nothing": (lambda tables, changed: tables, (), ""),
    "content filter lost": (without_filter, ("app_id",), "3.0"),
    "app names lost": (without_apps, ("app_id",), "6.7"),
    "new device ids": (new_ids, (), "3.9"),
    "host names lost": (without_hosts, ("dest_host", "dest_ip"), "-"),
    "... in no record": (without_any_hosts, ("dest_host", "dest_ip"), "-"),
}
"""What changes, the columns that the changed devices have, and alerts of theirs before, on another fleet."""
ARMS = ("with", "without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--devices", type=int, default=40)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results = pd.concat([fleet_results(options.devices, seed) for seed in seeds], ignore_index=True)
    print(
        f"\nsimulated, no implants: {options.devices} devices, a quarter changed, a week to train and a week "
        f"to score, {options.seeds} seeds from {options.first_seed}; alerts a device-day, one promised\n"
    )
    columns = [f"{arm} {whose}" for whose in ("changed", "rest") for arm in ARMS]
    columns += ["unusual", "unusual rest"]
    print(f"{'device_shift, devices':22s}" + "".join(f"{name:>16s}" for name in columns) + "   earlier")
    for name, (_, _, earlier) in CHANGES.items():
        rows = results[results["change"] == name]
        print(f"{name:22s}" + "".join(f"  {spread(list(rows[c]))}" for c in columns) + f"   {earlier:>7s}")
    print('"earlier" was on another fleet, before there was a device_shift; the goal is at most 1.5.')


def fleet_results(devices: int, seed: int) -> pd.DataFrame:
    """One row a change, on one fleet."""
    raw = simulate(devices, DAYS, seed, implants_per_device_day=0.0).tables
    before, after = weeks(raw)
    detector = train(load(before), seed=seed).detector
    rows = []
    for name, (change, having, _) in CHANGES.items():
        changed = drawn(before["flows"], having, round(devices * CHANGED_SHARE), seed)
        rows.append({"change": name} | measured(detector, change(after, changed), changed))
        print(f"seed {seed}, {rows[-1]}", flush=True)
    return pd.DataFrame(rows)


def drawn(flows: pa.Table, having: tuple[str, ...], count: int, seed: int) -> pa.Array:
    """Some of the devices of which some flow has all of these columns."""
    for name in having:
        flows = flows.filter(pc.is_valid(flows[name]))
    devices = sorted(pc.unique(flows["device_id"].cast(pa.string())).to_pylist())
    return pa.array(np.random.default_rng(seed).permutation(devices)[:count], pa.string())


def measured(detector: Detector, tables: Tables, changed: pa.Array) -> dict[str, float | str]:
    """Alert units a device-day of the changed devices and of the rest, and how often they are unusual."""
    new = assemble(load(tables), detector.window, detector.history)
    found = new.fleet_events(detector.reference.end_us)
    theirs = changed.to_pylist()
    theirs += [f"enrolled-{name}" for name in theirs]
    out: dict[str, float | str] = {"identity": str(found.identity and dict(found.identity.parameters))}
    for arm in ARMS:
        none = mock.patch("appcadence.models.detector.device_shift", lambda f, *_: np.zeros(len(f)))
        with none if arm == "without" else nullcontext():
            scores = detector.score(new.features, fleet_event=found.windows).to_pandas()
        mine = scores["device_id"].isin(theirs).to_numpy()
        for whose, rows in (("changed", scores[mine]), ("rest", scores[~mine])):
            units = len(np.unique(alert_unit(rows)[rows["alert"].to_numpy()]))
            out[f"{arm} {whose}"] = units / device_days(rows)
            if arm == "with":
                out["unusual" if whose == "changed" else "unusual rest"] = unusual(rows)
    return out


def unusual(scores: pd.DataFrame) -> float:
    """Share of the devices' days with flows of which a window says that the device is unusual."""
    scores = scores[scores["n_flows"] > 0]
    said = scores["findings"].map(lambda found: any(one["code"] == "device_unusual" for one in found))
    days = said.groupby([scores["device_id"], scores["window_start"]]).any()
    return float(days.mean())


def _of(table: pa.Table, devices: pa.Array) -> pa.ChunkedArray:
    return pc.is_in(table["device_id"].cast(pa.string()), devices)


def _set(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, values.cast(field.type))


def _with(
    tables: Tables, changed: pa.Array, values: dict[str, str | None], where: pa.ChunkedArray | None = None
) -> Tables:
    """The tables with some columns of the changed devices' flows set to a value."""
    flows = tables["flows"]
    rows = _of(flows, changed) if where is None else pc.and_(_of(flows, changed), where)
    for name, value in values.items():
        text = flows[name].cast(pa.string())
        flows = _set(flows, name, pc.if_else(rows, pa.scalar(value, pa.string()), text))
    return tables | {"flows": flows}


if __name__ == "__main__":
    main()
