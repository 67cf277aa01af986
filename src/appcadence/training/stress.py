"""Stress test: recall of beacons by period, jitter, missed beats, active hours and lost telemetry."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Progress, silent
from appcadence.errors import TelemetryError
from appcadence.features.columns import micros
from appcadence.models.calibration import alert_unit, device_days
from appcadence.telemetry.schema import FLOWS, conform
from appcadence.telemetry.simulate.behaviours import steady
from appcadence.training.injection import Tables
from appcadence.training.probe import Probe, as_of, probe
from appcadence.training.train import MIN_DEVICES, Training

PERIODS_SECONDS = (60.0, 900.0, 3600.0, 7200.0, 14_400.0)
JITTERS = (0.0, 0.2, 0.5, 1.0)
MISSED = (0.0, 0.25, 0.5)
ACTIVE = (0.5, 0.25, 0.1)
LOST = (0.0, 0.25, 0.5, 0.75)
_AT_ONCE = 3
"""Implants on a device at the same time."""
_MIN_DAYS_PER_CELL = 20
"""Implant-days wanted in each cell of the grid."""
_MAX_ROUNDS = 20

Loss = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Cell:
    """One row of the result: a beacon and the telemetry that should show it."""

    period_seconds: float = 1800.0
    jitter: float = 0.2
    """A gap is period * (1 + jitter * U), U uniform in 0 to 1."""
    missed: float = 0.0
    """Share of beats that are skipped."""
    active: float = 1.0
    """Share of the day in which it beats, as one continuous span."""
    lost_flows: float = 0.0
    """Share of all flows, benign or the beacon's, that are missing from the logs."""
    lost_names: float = 0.0
    """Share of all flows that the logs record without an app."""


GRID = tuple(Cell(p, j, m) for p, j, m in itertools.product(PERIODS_SECONDS, JITTERS, MISSED))
HOURS = tuple(Cell(active=share) for share in ACTIVE)
LOSSES = tuple(Cell(lost_flows=x) for x in LOST) + tuple(Cell(lost_names=x) for x in LOST[1:])
COLUMNS = (*Cell.__dataclass_fields__, "implant_days", "recall", "false_units_per_device_day")


def stress(training: Training, tables: Tables, progress: Progress = silent) -> pd.DataFrame:
    """A table with `COLUMNS` and one row per cell of `GRID`, `HOURS` and `LOSSES`, from beacons in held-out
    devices.

    `tables` is the telemetry of the training. The beacons are injected as flows into its later part. An
    implant-day is found if one of its windows scores 0 or more, the promised threshold of one benign alert
    unit per device-day; an implant-day without enough evidence is missed. Recall is NaN in cells that drew no
    implant. Losses start after the training, so the baseline comes from complete telemetry. The last column
    is filled for `LOSSES` only: benign alert units per device-day that reach the same threshold.
    Deterministic. With twenty implant-days per cell, recall has a standard deviation of .1.

    Raises:
        TelemetryError: the training held out no devices.
    """
    if training.held_out is None:
        raise TelemetryError(
            f"the stress grid needs devices that no model saw; train on {MIN_DEVICES} devices or more, "
            f"not {training.params['devices']}"
        )
    detector, later = as_of(training, tables)
    start = micros(later["flows"]["start"])
    span_days = max((int(start.max()) - int(start.min())) / 86_400e6, 1e-6)
    cells = GRID + HOURS
    a_round = _AT_ONCE * len(training.held_out) * max(round(span_days), 1)
    rounds = min(-(-_MIN_DAYS_PER_CELL * len(cells) // a_round), _MAX_ROUNDS)
    steps = rounds + len(LOSSES)
    seed = training.params["seed"] * 1000 + 900

    def run(number: int, beacons: tuple[Cell, ...], lost: Loss) -> Probe:
        progress("stress grid", number / steps)
        kinds = {
            str(k): steady(c.period_seconds, c.jitter, c.missed, c.active) for k, c in enumerate(beacons)
        }
        return probe(
            detector,
            later,
            seed + number,
            _AT_ONCE / span_days,
            devices=training.held_out,
            kinds=kinds,
            lost=lost,
        )

    found = [run(k, cells, lambda flows: flows).truth.days for k in range(rounds)]
    by_kind = pd.concat(found).assign(found=lambda d: d["score"] >= 0).groupby("kind")["found"]
    count = by_kind.size().reindex([str(k) for k in range(len(cells))], fill_value=0)
    rows = [
        (*vars(cell).values(), n, share, np.nan)
        for cell, n, share in zip(cells, count, by_kind.mean().reindex(count.index), strict=True)
    ]
    for k, cell in enumerate(LOSSES):
        shown = run(rounds + k, (Cell(),), _loss(cell, seed + k))
        hit = shown.truth.days["score"] >= 0
        rows.append((*vars(cell).values(), len(hit), hit.mean(), _false_rate(shown)))
    progress("stress grid", 1.0)
    return pd.DataFrame(rows, columns=COLUMNS)


def _loss(cell: Cell, seed: int) -> Loss:
    """The function that drops what a cell says is lost."""
    rng = np.random.default_rng(seed)

    def lost(flows: pa.Table) -> pa.Table:
        flows = flows.filter(pa.array(rng.random(len(flows)) >= cell.lost_flows))
        nameless = pa.array(rng.random(len(flows)) < cell.lost_names)
        for name, instead in (("app_id", None), ("app_attribution", "none")):
            column = flows[name].cast(pa.string())
            kept = pc.if_else(nameless, pa.scalar(instead, pa.string()), column)
            flows = flows.set_column(flows.schema.get_field_index(name), name, kept)
        return conform(FLOWS, flows)

    return lost


def _false_rate(shown: Probe) -> float:
    """Alert units without an implant that score 0 or more, per device-day."""
    unit = alert_unit(shown.windows)
    bad = np.isin(unit, unit[shown.truth.window])
    high = (shown.windows["score"] >= 0).to_numpy()
    return float(len(np.unique(unit[high & ~bad])) / max(device_days(shown.windows), 1e-9))
