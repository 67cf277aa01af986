"""A simulated output with implants that answer pushes, and a channel of the same app that does not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from make import flows, together

from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject
from appcadence.triage.report_data import Output, Window, as_rows

APART = ("phone-00000", "com.northmail.work", "apart.example")
"""A channel that knows nothing of its app's pushes."""


class Pushed(NamedTuple):
    out: Path
    tables: dict[str, pa.Table]
    implants: pd.DataFrame
    """As `inject` gives them."""

    def windows(self) -> list[Window]:
        output = Output(self.out)
        return output.windows(as_rows(output.scores([("rank", "<=", 200)]).sort_by("rank")))


def scored(model: Path, out: Path) -> Pushed:
    """Simulate, graft one implant on each of two phones, and score into `out`."""
    tables = simulate(4, 2, 3, implants_per_device_day=0.0, own_log_share=0.0).tables
    kinds = {"push_burst": KINDS["push_burst"]}
    grafted, implants = inject(tables, 1, per_device_day=1.0, kinds=kinds, max_per_device=1)
    apart = np.sort(np.random.default_rng(5).uniform(0, 172_800, 400))
    device, app, host = APART
    tables = tables | {"flows": together(tables["flows"], grafted, flows(apart, device, app, host, 0.5))}
    # So many that an app alerts that is under an exception.
    score_directory(tables, Scorer.load(model), out, alerts_per_device_day=10.0)
    return Pushed(out, tables, implants)
