"""What implants carry is borrowed from real channels, and varies as theirs does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from appcadence.telemetry.simulate.carriers import MAX_SECONDS, Carriers, exchanges
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return simulate(30, 4, 4, implants_per_device_day=0.0, own_log_share=0.0).tables


def test_sizes_vary_and_few_implants_repeat_one_exchange(tables: dict[str, pa.Table]) -> None:
    flows, specs = inject(tables, 2, per_device_day=3.0)
    rows = flows.to_pandas()
    whose = np.repeat(specs.index, specs["flows"])
    sent = rows["bytes_out"].where(rows["bytes_out"] > 0)
    many = sent.groupby(whose).agg(["count", "nunique"]).rename(columns={"count": "size"})
    many = many[many["size"] >= 20]
    assert len(many) > 50
    assert (many["nunique"] == 1).mean() < 0.1
    assert (many["nunique"] > 5).mean() > 0.75


def test_lives_are_of_every_length(tables: dict[str, pa.Table]) -> None:
    specs = inject(tables, 2, per_device_day=6.0, kinds=["beacon", "few_beats"])[1]
    hours = (specs["end_us"] - specs["start_us"]) / 3.6e9
    counts = np.histogram(hours, [0, 0.5, 3, 18, 72, 97])[0] / len(hours)
    assert counts.min() > 0.05 and hours.min() < 0.25
    # Staggered: they begin on every day.
    day = pd.to_datetime(specs["start_us"], unit="us").dt.date
    assert day.nunique() == 4 and day.value_counts(normalize=True).max() < 0.6


@pytest.mark.parametrize("copied", [True, False])
def test_exchanges_are_short_and_the_carriers_its_own(tables: dict[str, pa.Table], copied: bool) -> None:
    fleet = Carriers(tables, None, None)
    rng = np.random.default_rng(0)
    exact = 0
    for carrier in rng.integers(0, len(fleet.carrier_start), 60):
        own = fleet.own(int(carrier))
        found = exchanges(rng, fleet, own, 50, copied)
        assert np.nanmax(found.seconds, initial=0) <= MAX_SECONDS
        assert set(found.outcome) <= {"established", "failed", "unknown"}
        sent, mine = found.sent[~np.isnan(found.sent)], fleet.numbers["bytes_out"][own]
        exact += bool(len(sent)) and bool(np.isin(sent, mine).all())
    # To the byte: one in five, if they are its own.
    assert (4 < exact < 35) if copied else exact < 15


def test_equal_generators_give_equal_exchanges(tables: dict[str, pa.Table]) -> None:
    fleet = Carriers(tables, None, None)
    one, two = (exchanges(np.random.default_rng(7), fleet, fleet.own(3), 30, False) for _ in range(2))
    for name in ("sent", "received", "seconds", "outcome"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
