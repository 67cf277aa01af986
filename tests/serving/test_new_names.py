"""Names are chosen by others: however long or many, they cost what they hold and no more."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import fleet, flows, together
from peak import KILOBYTES

from appcadence.features.history import SCHEMA, History
from appcadence.serving.run import MIN_NEW_NAMES, made_up_names
from appcadence.telemetry.arrays import sorted_places
from appcadence.telemetry.directory import write_directory

HOUR_US = 3_600_000_000
SCORE = (
    KILOBYTES
    + """
import sys
from pathlib import Path
from appcadence.models.bundle import reference_model
from appcadence.nightly import score_directory
from appcadence.serving.scorer import Scorer
run = score_directory(sys.argv[1], Scorer(*reference_model()), Path(sys.argv[2]))
print(peak(), run.windows, *(f.code for f in run.blind_spots))
"""
)
YEAR_SECONDS = 365.25 * 86_400


def history(first_seen_us, device="d1"):
    n = len(first_seen_us)
    rows = pd.DataFrame({name: [0] * n for name in SCHEMA.names}).assign(
        device_id=device, app_id="com.a", dest=[f"h{i}.example" for i in range(n)], first_seen=first_seen_us
    )
    return rows


def test_an_hour_of_made_up_names_is_a_finding():
    some = np.arange(MIN_NEW_NAMES) * HOUR_US // MIN_NEW_NAMES + 7 * HOUR_US
    loud, quiet = history(some, "d2"), history(some[:-1], "d3")
    twice = loud.assign(app_id="com.b")  # one name is one name, whatever contacts it
    spread = history(np.arange(MIN_NEW_NAMES) * HOUR_US, "d4")
    known = made_up_names(History(pd.concat([loud, quiet, twice, spread])), 0)
    assert [(f.code, dict(f.parameters)) for f in known] == [
        ("new_names", {"device": "d2", "names": MIN_NEW_NAMES, "hour": "1970-01-01 07:00 UTC"})
    ]
    assert "d2 contacted 5,000 new hosts within an hour (1970-01-01 07:00 UTC)" in known[0].text
    assert not made_up_names(History(loud), int(some[0]) + 1)  # the run before has said it


def test_names_are_sorted_without_their_longest_ones_width():
    names = np.array([*(f"h{i}" for i in range(30_000)), "z" * 100_000, "", "\u00fc"], object)
    assert names[sorted_places(names)].tolist() == sorted(names)  # 12 GB as an array of fixed width


def scored(tmp_path, extra):
    """Peak MB of scoring a small fleet and some more flows, windows, and the codes of what is said."""
    telemetry = tmp_path / "telemetry"
    write_directory(telemetry, {"flows": together(fleet(devices=2, days=1)["flows"], extra)})
    run = [sys.executable, "-c", SCORE, str(telemetry), str(tmp_path / "out")]
    kilobytes, windows, *codes = subprocess.run(
        run, check=True, capture_output=True, text=True
    ).stdout.split()
    return int(kilobytes) / 1024, int(windows), codes


def renamed(table, column, names):
    return table.set_column(
        table.schema.get_field_index(column), column, pa.array(names).dictionary_encode()
    ).cast(table.schema)


def some(n, seconds=3600.0):
    return flows(np.linspace(0, seconds, n), "phone-00", "com.chat", "x.example", 1.0, 100, 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "most", "named"),
    [
        (lambda: renamed(some(1000), "dest_host", [f"{i:0250}.io" for i in range(1000)]), 120, False),
        (lambda: renamed(some(20_000), "dest_host", [f"h{i}.example" for i in range(20_000)]), 260, True),
        (lambda: renamed(some(10_000), "app_id", [f"com.evil.a{i}" for i in range(10_000)]), 260, False),
        (lambda: some(200_000, 0.0), 200, False),
        (lambda: some(2, 40 * YEAR_SECONDS), 60, False),
    ],
    ids=["length of names", "number of names", "number of apps", "flows at one instant", "years of gap"],
)
def test_memory_of_score_is_in_proportion_to_rows_and_windows(tmp_path_factory, extra, most, named):
    """Measured over an empty addition: about 8 kB a window and 0.7 kB a flow, whatever the names."""
    calm, _, _ = scored(tmp_path_factory.mktemp("calm"), some(1))
    peak, windows, codes = scored(tmp_path_factory.mktemp("more"), extra())
    print(f"{peak - calm:.0f} MB more for {windows:,} windows")
    assert peak - calm < most
    assert ("new_names" in codes) == named
