"""Columns of names, and what of them is written."""

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.names import of_rows

LOG = """#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring
1750000000.1\tC1\t192.168.1.5\t4000\t203.0.113.7\t443\ttcp\tssl\t1.0\t100\t200\tSF
1750000060.1\tC2\t192.168.1.66\t4001\t203.0.113.99\t443\ttcp\tssl\t1.0\t100\t200\tSF
"""


@given(st.lists(st.none() | st.sampled_from("abcdef")), st.lists(st.sampled_from("abcdefgh"), unique=True))
def test_names_that_no_row_has_go_and_the_rows_stay(rows, more):
    names = [*more, *sorted({row for row in rows if row} - set(more))]
    codes = pa.array([None if row is None else names.index(row) for row in rows], pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    found = of_rows(pa.table({"name": column, "number": range(len(rows))}))
    assert found["name"].to_pylist() == rows and found["number"].to_pylist() == list(range(len(rows)))
    assert found["name"].type == column.type
    left = [name for chunk in found["name"].chunks for name in chunk.dictionary.to_pylist()]
    assert left == [name for name in names if name in rows]


def test_nothing_of_another_device_is_written(tmp_path):
    (tmp_path / "conn.log").write_text(LOG)
    convert([tmp_path / "conn.log"], tmp_path / "out", local_nets=["192.168.1.5/32"])
    (file,) = (tmp_path / "out/flows").iterdir()
    names = [n for n, kind in zip(*_schema(file), strict=True) if pa.types.is_string(kind)]
    stored = pq.read_table(file, read_dictionary=names)
    text = {name: stored[name].chunk(0).dictionary.to_pylist() for name in names}
    assert text["device_id"] == ["192.168.1.5"] and text["dest_ip"] == ["203.0.113.7"]


def _schema(file):
    schema = pq.read_table(file, read_dictionary=[]).schema
    plain = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
    return schema.names, plain
