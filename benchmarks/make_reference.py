"""Builds what the package ships: python benchmarks/make_reference.py src/appcadence/models

Simulated fleets of many kinds stand for the world: attributed and not, with and without context, few devices
and many, short pasts and long, benign traffic scaled, thinned and moved. Its seeds are fixed, so equal
versions give equal bytes. It keeps no device, app or destination of theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from weekly_reports import first_export, weekly_reports, with_long_tail

from appcadence._files import write_text
from appcadence.features.extraction import load
from appcadence.features.history import History
from appcadence.features.weekly import contact_weeks
from appcadence.models.bundle import save
from appcadence.models.calibration import Calibration
from appcadence.models.detector import Detector
from appcadence.models.eligibility import STRATA
from appcadence.models.reference import Reference
from appcadence.models.weekly import REFERENCE, Tails
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.phone_log import nowhere
from appcadence.training.fit import WEIGHTS
from appcadence.training.injection import Tables
from appcadence.training.supervised import SIMULATED_TRUST
from appcadence.training.train import train

FLEETS = ((24, 6, 9001, 0.4), (16, 3, 9002, 0.4), (16, 9, 9003, 0.4), (32, 6, 9004, 1.0))
"""Of each the devices, days and seed, and how many of the devices whose apps are seen are seen through their
own log alone."""
NAMELESS_SHARE = 0.5
"""So many of the others lose their app names and context, as behind a gateway or on a PC."""
_ANYONE = "reference"
_MAX_SAMPLE = 2000


def reference_model() -> Detector:
    """Train the model for telemetry without a baseline, against kinds and categories."""
    weights = WEIGHTS.copy()
    # Nothing real contradicts what was learned where apps are known; where they are not, captures do.
    weights[STRATA.index("unattributed"), 0] = SIMULATED_TRUST
    learned = train(world(), seed=9000, from_reference=False, outlined=True, weights=weights)
    return _anonymous(learned.detector)


def starting_model() -> Detector:
    """Train the model that trainings start from, against baselines of the apps."""
    return _anonymous(train(world(), seed=9000, from_reference=False).detector)


def _anonymous(detector: Detector) -> Detector:
    return replace(
        detector,
        baseline=detector.baseline.outlined(),
        history=History.empty(),
        calibration={name: _thinned(part) for name, part in detector.calibration.items()},
        behaviours={name: _quantiles(values) for name, values in detector.behaviours.items()},
        reference=_one_device(detector.reference),
    )


def world() -> Tables:
    """All fleets in one set of tables."""
    parts = [_fleet(*fleet) for fleet in FLEETS]
    names = sorted(set.intersection(*(set(part) for part in parts)))
    return {
        name: pa.concat_tables([part[name] for part in parts], promote_options="none").unify_dictionaries()
        for name in names
    }


def _fleet(devices: int, days: int, seed: int, own_log_share: float) -> Tables:
    """One fleet, its devices renamed, and some of them without app names and context."""
    tables = load(
        simulate(devices, days, seed, implants_per_device_day=0.0, own_log_share=own_log_share).tables
    )
    flows = tables["flows"]
    own_log = set(
        pc.unique(flows["device_id"].filter(pa.array(nowhere(flows))).cast(pa.string())).to_pylist()
    )
    ids = sorted(set(pc.unique(flows["device_id"].cast(pa.string())).to_pylist()) - own_log)
    chosen = np.random.default_rng(seed).random(len(ids)) < NAMELESS_SHARE
    nameless = pa.array([name for name, yes in zip(ids, chosen, strict=True) if yes], pa.string())

    def of_nameless(table: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(table["device_id"].cast(pa.string()), nameless)

    for name, value in (("app_id", None), ("app_attribution", "none")):
        column = pc.if_else(of_nameless(flows), pa.scalar(value, pa.string()), flows[name].cast(pa.string()))
        flows = _with(flows, name, column)
    out = {"flows": flows}
    for name in ("activity", "notifications", "usage", "tasks", "coverage"):
        out[name] = tables[name].filter(pc.invert(of_nameless(tables[name])))
    known = set(ids) - set(nameless.to_pylist()) | own_log
    out["inventory"] = _declared(tables["inventory"], known, seed)
    for name, table in out.items():
        renamed = pc.binary_join_element_wise(table["device_id"].cast(pa.string()), str(seed), "-")
        out[name] = _with(table, "device_id", renamed)
    return out


def _declared(inventory: pa.Table, devices: Collection[str], seed: int) -> pa.Table:
    """What the apps of half of the devices declare; nobody knows it of the others."""
    devices = sorted(devices)
    chosen = np.flatnonzero(np.random.default_rng([seed, 1]).random(len(devices)) < 0.5)
    apps, who = np.meshgrid(np.arange(len(inventory)), chosen)
    rows = inventory.take(pa.array(apps.ravel()))
    names = pa.array(devices, pa.string()).take(pa.array(who.ravel())).dictionary_encode()
    return _with(rows, "device_id", names)


def _with(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    kind = table.schema.field(place).type
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    column = column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column.cast(kind)
    return table.set_column(place, table.schema.field(place), column)


def _thinned(calibration: Calibration) -> Calibration:
    units = _quantiles(calibration.units)
    days = calibration.device_days * len(units) / max(len(calibration.units), 1)
    return replace(calibration, windows=_quantiles(calibration.windows), units=units, device_days=days)


def _quantiles(values: np.ndarray) -> np.ndarray:
    """At most 2,000 of sorted values, evenly spaced, the extremes among them."""
    if len(values) <= _MAX_SAMPLE:
        return values
    return np.asarray(values[np.linspace(0, len(values) - 1, _MAX_SAMPLE).round().astype(np.int64)])


def _one_device(reference: Reference) -> Reference:
    """One device that stands for all."""
    return replace(
        reference,
        devices=pd.Index([_ANYONE], dtype="object"),
        counts=reference.counts.sum(axis=0, keepdims=True),
        attributed=reference.attributed.sum(keepdims=True),
    )


_WEEKLY_FLEET = (128, 43, 20_260_302)
"""Devices, days and seed: three devices in five have a source that knows apps; six weeks."""


def weekly_tails() -> dict[str, Tails]:
    """Train the reference for weekly sums: tails of first reports (`first`) and of later ones (`later`).

    Each phone is judged alone, since it stands in where there are no others to compare with.
    """
    flows = simulate(*_WEEKLY_FLEET, implants_per_device_day=0.0, own_log_share=0.0).tables["flows"]
    flows = flows.filter(pc.is_valid(flows["app_id"]))
    begin = first_export(flows)
    reports = with_long_tail(weekly_reports(flows, begin), begin, _WEEKLY_FLEET[2])
    device = reports["device_id"].cast(pa.string())
    alone = [
        contact_weeks({"contact_summaries": reports.filter(pc.equal(device, name))})
        for name in sorted(pc.unique(device).to_pylist())
    ]
    weeks = pd.concat(alone, ignore_index=True)
    first = weeks["is_new"].isna()
    return {"first": Tails.fit(weeks[first]), "later": Tails.fit(weeks[~first])}


if __name__ == "__main__":
    models = Path(sys.argv[1])
    for name, build in (("reference", reference_model), ("start", starting_model)):
        print(name, save(build(), models / "shipped" / name))
    facts = {name: found.as_dict() for name, found in weekly_tails().items()}
    write_text(models / REFERENCE, json.dumps(facts) + "\n")
