"""The table on disk equals the one in memory, and is whole or not there."""

import os
import signal
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import fleet

from appcadence.errors import AppcadenceError, SchemaError, TelemetryError
from appcadence.features import History, extract
from appcadence.features.build import build
from appcadence.features.partition import write_features
from appcadence.telemetry.directory import write_directory


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    path = tmp_path_factory.mktemp("telemetry")
    write_directory(path, fleet(devices=7, days=3))
    return path


def same(got, want):
    """Equal bit for bit, names as names."""
    names = dict.fromkeys(want.select_dtypes("category"), object)
    pd.testing.assert_frame_equal(got.astype(names), want.astype(names), check_exact=True)


@pytest.mark.parametrize("block_flows", [1, 300, 10**9])
@pytest.mark.parametrize("history", [None, History.empty()], ids=["no history", "history"])
def test_table_on_disk_equals_the_one_in_memory(telemetry, tmp_path, block_flows, history):
    out = tmp_path / "made" / "features.parquet"
    rows = write_features(telemetry, out, "6h", history, block_flows=block_flows)
    want = extract(telemetry, "6h", history)
    assert rows == len(want)
    same(pd.read_parquet(out), want)
    assert [p.name for p in out.parent.iterdir()] == ["features.parquet"]


def test_an_older_history_serves_as_on_memory(telemetry, tmp_path):
    past = build(fleet(devices=2, days=1), 86400, History.empty()).history
    write_features(telemetry, tmp_path / "f.parquet", "24h", past, block_flows=500)
    want = extract(telemetry, "24h", past)
    same(pd.read_parquet(tmp_path / "f.parquet"), want)


def test_progress_goes_from_nothing_to_all_in_every_stage(telemetry, tmp_path):
    seen = []
    write_features(
        telemetry, tmp_path / "f.parquet", progress=lambda *step: seen.append(step), block_flows=300
    )
    for stage in ("reading", "extracting", "writing"):
        shares = [share for name, share in seen if name == stage]
        assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_bad_directory_leaves_nothing(telemetry, tmp_path):
    with pytest.raises(TelemetryError, match="nowhere does not exist"):
        write_features(tmp_path / "nowhere", tmp_path / "f.parquet")
    flows = pq.read_table(telemetry / "flows.parquet").to_pandas()
    bad = tmp_path / "bad"
    bad.mkdir()
    pq.write_table(pa.Table.from_pandas(flows.drop(columns="device_id")), bad / "flows.parquet")
    with pytest.raises(SchemaError, match="device_id"):
        write_features(bad, tmp_path / "f.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


RUN = """
import sys, time
from pathlib import Path
from appcadence.features.partition import write_features
def step(what, share):
    if what == sys.argv[3] and share > 0:
        print("there", flush=True)
        time.sleep(60)
write_features(sys.argv[1], Path(sys.argv[2]), progress=step, block_flows=300)
"""


@pytest.mark.parametrize("stage", ["reading", "writing"])
def test_a_kill_leaves_no_table_and_the_next_run_clears_up(telemetry, tmp_path, stage):
    out = tmp_path / "f.parquet"
    with subprocess.Popen([sys.executable, "-c", RUN, telemetry, out, stage], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"there\n"
        with pytest.raises(AppcadenceError, match="another run is writing"):
            write_features(telemetry, out)
        os.kill(run.pid, signal.SIGKILL)
    assert not out.exists() and len(list(tmp_path.iterdir())) == 1
    write_features(telemetry, out, block_flows=300)
    assert [p.name for p in tmp_path.iterdir()] == ["f.parquet"]
    assert len(pd.read_parquet(out)) == len(extract(telemetry))
