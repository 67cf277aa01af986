"""The reference for weekly sums: tails of simulated phones without implants, each judged alone.

    python -m appcadence.training.weekly_reference src/appcadence/models/weekly_reference.json

Alone, since the reference stands in where there are no other devices to compare with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import replacing
from appcadence.features.weekly import contact_weeks
from appcadence.models.weekly import Tails
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.long_tail import with_long_tail
from appcadence.telemetry.simulate.weekly_reports import first_export, weekly_reports

DEVICES, DAYS, SEED = 128, 43, 20_260_302
"""Three devices in five have a source that knows apps; six weeks."""


def tails() -> dict[str, Tails]:
    """Tails of first reports (`first`) and of later ones (`later`)."""
    flows = simulate(DEVICES, DAYS, SEED, implants_per_device_day=0.0, own_log_share=0.0).tables["flows"]
    flows = flows.filter(pc.is_valid(flows["app_id"]))
    begin = first_export(flows)
    reports = with_long_tail(weekly_reports(flows, begin), begin, SEED)
    device = reports["device_id"].cast(pa.string())
    alone = [
        contact_weeks({"contact_summaries": reports.filter(pc.equal(device, name))})
        for name in sorted(pc.unique(device).to_pylist())
    ]
    weeks = pd.concat(alone, ignore_index=True)
    first = weeks["is_new"].isna()
    return {"first": Tails.fit(weeks[first]), "later": Tails.fit(weeks[~first])}


if __name__ == "__main__":
    with replacing(Path(sys.argv[1])) as staged:
        staged.write_text(json.dumps({name: found.as_dict() for name, found in tails().items()}) + "\n")
