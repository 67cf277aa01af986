import base64
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import flows

from appcadence import cli
from appcadence._inputs import parsed_json, read_bytes
from appcadence._parquet import MAX_COLUMNS, open_parquet, read_file, read_parquet
from appcadence.errors import SchemaError, TelemetryError
from appcadence.nightly import read_history
from appcadence.serving.run import read_table
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.schema import FLOWS, LABELS, conform
from appcadence.telemetry.sheet import read_named
from appcadence.triage.case_state import read_cases


def written(path, table):
    pq.write_table(table, path, compression="zstd")
    return path


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (lambda: pa.table({"a": pa.nulls(30_000_000, pa.int8())}), r"30,000,000 rows in [\d,]+ bytes"),
        (lambda: pa.table({"a": ["a" * (200 << 20)]}), "unpacks from"),
        (lambda: pa.table({f"c{i}": [1] for i in range(MAX_COLUMNS + 1)}), "1,001 columns"),
        (lambda: pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]), "'a' more than once"),
    ],
    ids=["rows of nothing", "a bomb", "columns", "a column twice"],
)
def test_a_table_is_bounded_before_it_is_unpacked(table, said, tmp_path):
    file = written(tmp_path / "t.parquet", table())
    for read in (read_file, open_parquet, lambda file: read_parquet(io.BytesIO(file.read_bytes()))):
        with pytest.raises(pa.ArrowInvalid, match=said):
            read(file)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_an_open_file_is_read_by_no_other_thread(tmp_path):
    """One that gives the memory of a Python file back while Python ends aborts the process."""
    file = written(tmp_path / "t.parquet", pa.table({"a": np.arange(50_000), "b": ["x"] * 50_000}))
    code = (
        "import os, sys; from pathlib import Path; from appcadence._parquet import read_file, read_parquet\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "file = Path(sys.argv[1]); before = threads()\n"
        "with file.open('rb') as stream: read_parquet(stream)\n"
        "after = threads(); read_file(file); print(after - before, threads() > before)"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True\n"


def test_a_table_that_is_replaced_while_it_is_read_is_one_or_the_other(tmp_path):
    """Given a path, Arrow read the footer of one file and the pages of another."""
    rows = [pa.table({"a": np.arange(n), "b": [text] * n}) for n, text in ((50_000, "x"), (90_000, "y" * 9))]
    versions = [written(tmp_path / f"{i}.parquet", table).read_bytes() for i, table in enumerate(rows)]
    place, ended = tmp_path / "t.parquet", threading.Event()
    place.write_bytes(versions[0])

    def replace():
        while not ended.is_set():
            for content in versions:
                (tmp_path / "new").write_bytes(content)
                (tmp_path / "new").replace(place)

    other = threading.Thread(target=replace)
    other.start()
    try:
        read = [read_file(place, columns=["b", "a"], filters=[("a", ">=", 10)]) for _ in range(150)]
    finally:
        ended.set()
        other.join()
    found = {(len(table), *table["b"].unique().to_pylist()) for table in read}
    assert found <= {(49_990, "x"), (89_990, "y" * 9)}


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "p.parquet")
    with pytest.raises(OSError, match="pipe"):
        read_file(tmp_path / "p.parquet")


def test_what_is_read_takes_no_more_room_than_the_file(tmp_path):
    (tmp_path / "small").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "small", 1 << 62) == b"x" * 10


def test_a_name_that_is_not_in_its_dictionary_is_refused():
    names = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([], pa.string()), safe=False)
    table = flows(0)
    table = table.set_column(table.schema.get_field_index("device_id"), "device_id", names)
    with pytest.raises(SchemaError, match=r"^flows\.parquet: table flows, column 'device_id' is damaged: "):
        conform(FLOWS, table, "flows.parquet")


def test_deep_json_is_no_value():
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed_json(b"[" * 100_000)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("start", pa.scalar(2**62, pa.timestamp("us", tz="UTC")), "1970 to 2100"),
        ("duration_seconds", pa.scalar(1.5e9), "out of range"),
        ("bytes_out", pa.scalar(-1, pa.int64()), "out of range"),
        ("dest_host", pa.scalar("a" * 256), "256 characters; at most 255"),
    ],
)
def test_telemetry_that_no_log_holds_is_refused(column, value, said, tmp_path):
    write_directory(tmp_path / "tel", {"flows": flows([0.0, 60.0])})
    file = tmp_path / "tel" / "flows.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index(column)
    written(
        file,
        table.set_column(
            place,
            column,
            pa.array([value.as_py()] * 2, value.type)
            if column != "start"
            else pa.array(np.full(2, 2**62), pa.int64()).cast(value.type),
        ),
    )
    with pytest.raises((SchemaError, TelemetryError), match=said) as caught:
        TelemetryDirectory(tmp_path / "tel").read("flows")
    assert "flows.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory; provide more"),
        (pa.ArrowInvalid("odd\n\x1bfile"), "an input cannot be used (ArrowInvalid: odd  file)"),
        (json.JSONDecodeError("bad", "", 0), "an input cannot be used (JSONDecodeError: bad"),
        (RecursionError("deep"), "an input cannot be used (RecursionError: deep)"),
    ],
)
def test_whatever_a_library_raises_is_one_sentence(error, said, monkeypatch, capsys):
    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("sys.argv", ["appcadence", "score"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in " ".join(shown.split()) or said in shown
    assert "Traceback" not in shown


def with_odd_integer(content):
    """A Parquet file whose footer states an integer of 24 bits, which Arrow does not implement."""
    stated = pq.read_metadata(io.BytesIO(content)).metadata[b"ARROW:schema"]
    schema = base64.b64decode(stated)
    for at in range(len(schema) - 3):
        if schema[at : at + 4] == (64).to_bytes(4, "little"):
            odd = schema[:at] + (24).to_bytes(4, "little") + schema[at + 4 :]
            damaged = content.replace(stated, base64.b64encode(odd))
            try:
                pq.ParquetFile(io.BytesIO(damaged))
            except pa.ArrowNotImplementedError:
                return damaged
            except pa.ArrowException:
                continue
    raise AssertionError("no integer in the schema")


@pytest.mark.parametrize(
    "read",
    [
        lambda file: read_named(file, LABELS),
        read_history,
        read_cases,
        read_table,
        lambda file: TelemetryDirectory(file.parent).read("flows"),
    ],
    ids=["labels", "history", "cases", "an output", "telemetry"],
)
def test_a_file_that_arrow_cannot_express_is_refused_as_any_other(read, tmp_path):
    file = tmp_path / "flows.parquet"
    pq.write_table(pa.table({"a": pa.array([1], pa.int64())}), file)
    file.write_bytes(with_odd_integer(file.read_bytes()))
    with pytest.raises((SchemaError, TelemetryError), match=str(file)):
        read(file)
