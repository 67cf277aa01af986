from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import AsOf
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.schema import TIME

TABLE = """address,device_id,from,to
10.0.0.1,phone-1,,2026-01-02T00:00:00Z
10.0.0.1,phone-2,2026-01-02T00:00:00Z,
2001:DB8::1,phone-3,2026-01-01T12:00:00+02:00,2026-01-01T13:00:00+02:00
10.0.0.4,phone-4,,
"""


def _times(*days: datetime) -> pa.Array:
    return pa.array(days, TIME)


def _read(tmp_path, text: str) -> Devices:
    (tmp_path / "devices.csv").write_text(text)
    return Devices.read(tmp_path / "devices.csv")


def test_an_address_belongs_to_the_device_that_had_it_at_that_time(tmp_path):
    devices = _read(tmp_path, TABLE)
    first, second = datetime(2026, 1, 1, 10, 30, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    rows = [
        ("10.0.0.1", first, "phone-1"),
        ("10.0.0.1", second, "phone-2"),
        ("2001:db8::1", first, "phone-3"),
        ("2001:db8::1", second, "2001:db8::1"),
        ("2001:db8::1", datetime(2026, 1, 1, 10, tzinfo=UTC), "phone-3"),
        ("2001:db8::1", datetime(2026, 1, 1, 11, tzinfo=UTC), "2001:db8::1"),  # the end is not included
        ("10.0.0.4", second, "phone-4"),
        ("10.0.0.9", second, "10.0.0.9"),
        (None, second, None),
    ]
    addresses = pa.array([row[0] for row in rows])
    times = _times(*(row[1] for row in rows))
    expected = [row[2] for row in rows]
    assert devices.lookup(addresses, times).to_pylist() == expected
    chunked = pa.chunked_array([addresses.slice(0, 3), addresses.slice(3)]).dictionary_encode()
    assert devices.lookup(chunked, times).to_pylist() == expected


def test_an_empty_table_maps_nothing(tmp_path):
    devices = _read(tmp_path, "address,device_id\n")
    assert devices.lookup(pa.array(["a"]), _times(datetime(2026, 1, 1, tzinfo=UTC))).to_pylist() == ["a"]
    assert devices.lookup(pa.array([], pa.string()), _times()).to_pylist() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns must be"),
        ("ip,device\n", "line 1: the columns must be"),
        ("address,device_id\n10.0.0.1,\n", "line 2: address and device_id"),
        ("address,device_id\n10.0.0.1,a,b\n", "line 2 has more values"),
        ("address,device_id,from,to\n10.0.0.1,a,yesterday,\n", "line 2: from is 'yesterday'"),
        ("address,device_id,from,to\n10.0.0.1,a,2026-01-02,2026-01-01\n", "line 2: 'to' must be later"),
        ("address,device_id,from,to\n10.0.0.1,a,,\n10.0.0.1,b,2026-01-01,\n", "line 3: address 10.0.0.1"),
    ],
)
def test_errors_name_file_line_and_reason(tmp_path, text, message):
    with pytest.raises(TelemetryError, match=message) as error:
        _read(tmp_path, text)
    assert "devices.csv" in str(error.value)


def test_a_missing_or_binary_table_is_one_sentence(tmp_path):
    with pytest.raises(TelemetryError, match=r"none\.csv cannot be read"):
        Devices.read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\x80\xff\x00")
    with pytest.raises(TelemetryError, match=r"binary\.csv cannot be read"):
        Devices.read(tmp_path / "binary.csv")


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(-50, 50)), max_size=30)


@given(records=pairs, queries=pairs)
def test_as_of_equals_a_plain_search(records, queries):
    def arrays(rows):
        return (pa.array([r[i] for r in rows], pa.int64()).to_numpy() for i in (0, 1))

    found = AsOf(*arrays(records)).find(*arrays(queries))
    for (key, time), index in zip(queries, found, strict=True):
        known = [(t, i) for i, (k, t) in enumerate(records) if k == key and t <= time]
        assert index == (max(known)[1] if known else -1)
