"""Tables of other programs under our names: refused in one sentence that names the file."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import flows

from appcadence.errors import SchemaError, TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory


@pytest.fixture
def written(tmp_path):
    def write(table):
        pq.write_table(table, tmp_path / "flows.parquet")
        return tmp_path

    return write


def reads(path):
    """Every way in which a table is read."""
    directory = TelemetryDirectory(path)
    yield lambda: directory.read("flows")
    yield lambda: [read() for read in directory.pieces("flows", ["device_id", "start"])]
    yield lambda: list(directory.scan("flows"))
    yield lambda: directory.names("flows", "device_id")


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.string()), pa.struct([("a", pa.string())]), pa.map_(pa.string(), pa.string())],
)
def test_a_column_of_lists_or_objects_is_refused(written, kind):
    table = flows([0.0, 60.0])
    at = table.schema.get_field_index("device_id")
    path = written(table.set_column(at, "device_id", pa.array([None, None], kind)))
    for read in reads(path):
        with pytest.raises(SchemaError, match=r"flows\.parquet: column 'device_id' is ") as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry", ["null", "{}", '{"conversion": "a", "key": {}}', '{"conversion": "a", "revisions": 5}']
)
def test_a_list_of_sources_that_was_altered_is_refused(written, entry):
    path = written(flows([0.0, 60.0]))
    (path / "sources.json").write_text(f"[{entry}]")
    with pytest.raises(TelemetryError, match=r"sources\.json is damaged .*remove it and convert again"):
        TelemetryDirectory(path)


def test_a_column_that_stands_twice_is_refused(written):
    table = flows([0.0, 60.0])
    path = written(table.append_column("start", table["start"]))
    for read in reads(path):
        with pytest.raises(TelemetryError, match=r"flows\.parquet .*the column 'start' more than once"):
            read()


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_numbers_are_no_times_as_their_unit_is_unknown(written, kind):
    table = flows([0.0, 60.0])
    at = table.schema.get_field_index("start")
    directory = TelemetryDirectory(
        written(table.set_column(at, "start", pa.array([1.7e9, 1.7e9 + 60], kind)))
    )
    for read in (lambda: directory.read("flows"), lambda: list(directory.scan("flows"))):
        with pytest.raises(SchemaError, match=r"flows\.parquet.* column 'start' holds numbers"):
            read()
