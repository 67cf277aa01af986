"""Some of the features: those of the whole table to the bit, and nothing else is read or computed."""

import numpy as np
import pandas as pd
import pytest
from make import activity, coverage, fleet, inventory, pushes, tasks, together, usage
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.cli.options import sentence
from appcadence.errors import AppcadenceError
from appcadence.features import History, extract
from appcadence.features.catalog import FAMILIES, FAMILY_OF, NAMES
from appcadence.features.extraction import INPUT_TABLES, KEYS
from appcadence.features.families import novelty
from appcadence.features.partition import write_features
from appcadence.features.selection import WHOLE, Selection
from appcadence.features.windows import Windows
from appcadence.telemetry.directory import TelemetryDirectory, write_directory

FAMILY_NAMES = [family.name for family in FAMILIES]
DAYS, PHONES, APPS = 4, ("phone-00", "phone-01"), ("com.chat", "com.weather")
TIMES = np.arange(0.0, DAYS * 86400, 1800)


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    """Every table, so that every feature is known somewhere."""
    pairs = [(phone, name) for phone in PHONES for name in APPS]
    spans = [(t, t + 600) for t in TIMES[::5]]
    tables = fleet(devices=5, days=DAYS) | {
        "activity": together(
            *(activity(spans, phone) for phone in PHONES),
            *(activity(spans, *pair, "app_foreground") for pair in pairs),
        ),
        "notifications": together(*(pushes(TIMES - 3, *pair) for pair in pairs)),
        "usage": together(*(usage([(t, t + 900, 9, 7) for t in TIMES], *pair) for pair in pairs)),
        "tasks": together(*(tasks([(t + 60, t + 90) for t in TIMES], *pair) for pair in pairs)),
        "coverage": together(*(coverage([(0, DAYS * 86400)], phone) for phone in PHONES)),
        "inventory": inventory(
            *(
                {
                    "app_id": name,
                    "approved": True,
                    "background_modes": ["fetch"],
                    "expected_hosts": ["chat.example"],
                    "expected_period_seconds": 3600.0,
                }
                for name in APPS
            )
        ),
    }
    path = tmp_path_factory.mktemp("telemetry")
    write_directory(path, tables)
    return path


@pytest.fixture(scope="module")
def whole(telemetry):
    return extract(telemetry, "6h", History.empty())


def test_the_whole_table_knows_every_feature_somewhere(whole):
    known = whole[list(NAMES)].notna().any()
    assert known.all(), list(known.index[~known])


@pytest.mark.parametrize("column", [*NAMES, *FAMILY_NAMES])
def test_what_is_asked_for_is_what_the_whole_table_holds(telemetry, whole, column):
    table = extract(telemetry, "6h", History.empty(), [column])
    names = [name for name in NAMES if column in (name, FAMILY_OF[name])]
    pd.testing.assert_frame_equal(table, whole[[*KEYS, *names]], check_exact=True)


def test_any_set_of_columns_stands_in_catalogue_order(telemetry, whole):
    rng = np.random.default_rng(3)
    for _ in range(40):
        columns = rng.choice(NAMES, rng.integers(2, 30), replace=False).tolist()
        table = extract(telemetry, "6h", History.empty(), columns)
        names = [name for name in NAMES if name in columns]
        pd.testing.assert_frame_equal(table, whole[[*KEYS, *names]], check_exact=True)


@pytest.mark.parametrize(
    "columns", [["size"], ["destination_prevalence_ratio", "jitter_ratio"]], ids=["family", "two"]
)
def test_the_table_on_disk_holds_the_same(telemetry, tmp_path, columns):
    out = tmp_path / "features.parquet"
    write_features(telemetry, out, "6h", History.empty(), columns, block_flows=300)
    want, got = extract(telemetry, "6h", History.empty(), columns), pd.read_parquet(out)
    names = dict.fromkeys(want.select_dtypes("category"), object)
    pd.testing.assert_frame_equal(got.astype(names), want.astype(names), check_exact=True)


def test_what_nothing_asked_for_takes_is_left_alone(telemetry, monkeypatch):
    def never(*_):
        raise AssertionError("not asked for")

    def noted(self, name, columns):
        read.add(name)
        return pieces(self, name, columns)

    read, pieces = set(), TelemetryDirectory.pieces
    monkeypatch.setattr(TelemetryDirectory, "pieces", noted)
    monkeypatch.setattr(novelty, "Fleet", never)
    monkeypatch.setattr(Windows, "compared", property(never))
    monkeypatch.setattr(Windows, "push_counts", property(never))
    extract(telemetry, history=History.empty(), columns=["beats_per_hour", "size", "companion"])
    assert read == {"flows", "coverage"} and read < set(INPUT_TABLES)


def test_all_but_some_families():
    left = Selection.without(["size", "novelty"]).names
    assert left == [name for name in NAMES if FAMILY_OF[name] not in ("size", "novelty")]
    assert Selection.without([]).names == WHOLE.names == list(NAMES)


def test_features_and_families_share_no_name():
    assert not set(FAMILY_NAMES) & set(NAMES)


@pytest.mark.parametrize(
    ("columns", "said"),
    [(["beats_per_hours"], "'beats_per_hours'.*did you mean beats_per_hour"), ([], "names no feature")],
    ids=["unknown", "none"],
)
def test_columns_that_are_none_are_refused(telemetry, columns, said):
    with pytest.raises(AppcadenceError, match=said):
        extract(telemetry, columns=columns)


def test_the_command_writes_the_columns_asked_for(telemetry, tmp_path):
    out = tmp_path / "features.parquet"
    base = ["features", str(telemetry), "--out", str(out), "--columns"]
    done = CliRunner().invoke(app, [*base, "size, jitter_ratio"])
    assert done.exit_code == 0, done.output
    size = [name for name in NAMES if FAMILY_OF[name] == "size"]
    assert list(pd.read_parquet(out).columns) == [*KEYS, "jitter_ratio", *size]
    refused = sentence(CliRunner().invoke(app, [*base, "size,nothing"]).exception)
    assert "'nothing'" in refused and "--columns" in refused
