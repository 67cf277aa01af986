"""False causes of drift: apps that are said to have been updated on simulated fleets where nothing changed.

Twenty clean fleets of 16 devices; the baseline is five working days, what is compared the five days after,
weekend included: as they are, and with every clock moved as by a change of time zone. The goal is one false
cause in all at most. One to two minutes a condition; no models are trained.

    python benchmarks/drift.py [--fleets 20]
"""

from __future__ import annotations

import argparse
import time

import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US
from appcadence.features.columns import micros
from appcadence.models.baseline import AppBaseline
from appcadence.models.eligibility import eligible
from appcadence.models.pipeline import assemble
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.app_shifts import AppShift, app_shifts
from appcadence.training.injection import history_of, past_and_future

DEVICES, DAYS, LEARNED = 16, 10, 5
MOVED_HOURS = (0, 9, -5)
_TIMES = ("start", "end", "time")


def false_causes(seed: int, hours: float) -> list[AppShift]:
    """Updates that are named on one clean fleet whose later clocks are so many hours ahead."""
    tables = simulate(DEVICES, DAYS, seed, implants_per_device_day=0.0).tables
    first = int(micros(tables["flows"]["start"]).min()) // DAY_US * DAY_US
    past, later = past_and_future(tables, first + LEARNED * DAY_US)
    known = assemble(past, "24h")
    before = known.features
    baseline = AppBaseline.fit(before[eligible(before)])
    moved = {name: _moved(table, hours) for name, table in later.items()}
    after = assemble(moved, "24h", history_of(known)).features
    after = after[eligible(after)].reset_index(drop=True)
    return app_shifts(after, baseline.distances(after))


def _moved(table: pa.Table, hours: float) -> pa.Table:
    for name in _TIMES:
        if name in table.column_names:
            at = table.column_names.index(name)
            field = table.schema.field(at)
            values = pc.add(table[name].cast(pa.int64()), round(hours * 3.6e9)).cast(field.type)
            table = table.set_column(at, field, values)
    return table


def main() -> None:
    """Print the false causes by condition."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fleets", type=int, default=20)
    fleets = parser.parse_args().fleets
    for hours in MOVED_HOURS:
        begun, named = time.perf_counter(), 0
        for seed in range(fleets):
            for shift in false_causes(seed, hours):
                named += 1
                print(f"  fleet {seed}: {shift.sentence()}")
        seconds = time.perf_counter() - begun
        print(
            f"clocks moved by {hours:+d} h: {named} false causes in {fleets} clean fleets ({seconds:.0f} s)"
        )


if __name__ == "__main__":
    main()
