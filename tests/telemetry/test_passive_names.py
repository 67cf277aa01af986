"""Names from the fleet's own records: against a slow twin, on real logs, and wherever flows are read."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import fleet, flows, together

from appcadence.errors import TelemetryError
from appcadence.features import extract
from appcadence.features.extraction import load
from appcadence.features.flows import COLUMNS as CODED
from appcadence.features.partition import write_features
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.inventory.template import template
from appcadence.telemetry.passive_names import complete
from appcadence.telemetry.readiness.assess import readiness
from appcadence.telemetry.schema import FLOWS, conform

DAY_US = 86_400_000_000
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1")


def twin(rows):
    """(host, source) of each (start, address, host, source, service), flow by flow."""
    named = [r for r in rows if r[1] is not None and r[2] is not None and r[4] != "dns"]
    out = []
    for start, address, host, source, service in rows:
        if host is None and address is not None and service != "dns":
            near = {r[2] for r in named if r[1] == address and start - DAY_US <= r[0] <= start}
            if len(near) == 1:
                host, source = near.pop(), "passive"
        out.append((host, source))
    return out


def table(rows):
    """Canonical flows of (start in µs, address, host, source, service)."""
    start, address, host, source, service = zip(*rows, strict=True) if rows else [()] * 5
    columns = {
        "start": pa.array(start, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "device_id": ["d"] * len(rows),
        "app_attribution": ["none"] * len(rows),
        "dest_host": pa.array(host, pa.string()),
        "dest_host_source": pa.array(source, pa.string()),
        "dest_ip": pa.array(address, pa.string()),
        "service": pa.array(service, pa.string()),
        "outcome": ["established"] * len(rows),
        "time_resolution_seconds": pa.array([1e-6] * len(rows), pa.float64()),
        "source": ["test"] * len(rows),
        "source_uid": [str(i) for i in range(len(rows))],
    }
    types = {name: FLOWS.schema.field(name).type for name in columns}
    return conform(FLOWS, pa.table({name: pa.array(c).cast(types[name]) for name, c in columns.items()}))


def names(flows):
    return list(zip(flows["dest_host"].to_pylist(), flows["dest_host_source"].to_pylist(), strict=True))


# Days, half days and single microseconds around them, before 1970 too: ties, and exactly 24 hours.
TIMES = st.builds(lambda half, off: half * DAY_US // 2 + off, st.integers(5, 19), st.integers(-1, 1))
ROWS = st.lists(
    st.tuples(
        TIMES,
        st.sampled_from([*ADDRESSES, None]),
        st.sampled_from(["a.example", "b.example", None, None]),
        st.sampled_from(["observed", "passive", None]),
        st.sampled_from(["tls", "tls", "dns", None]),
    ).map(lambda r: r if r[2] is not None else (*r[:3], None, r[4])),
    max_size=30,
)


@given(ROWS)
def test_the_rule_is_that_of_the_slow_twin(rows):
    assert names(complete(table(rows))) == twin(rows)


@given(ROWS, st.integers(1, 7))
def test_pieces_scan_and_read_agree(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("t")
    pq.write_table(table(rows), path / "flows.parquet", row_group_size=size)
    want = twin(rows)
    assert names(TelemetryDirectory(path).read("flows")) == want
    assert [n for part in TelemetryDirectory(path).scan("flows", size) for n in names(part)] == want
    wanted = ["dest_host_source", "dest_host"]
    parts = [read() for read in TelemetryDirectory(path).pieces("flows", wanted)]
    assert all(part.column_names == wanted[::-1] for part in parts)
    assert [n for part in parts for n in names(part)] == want


@given(ROWS, TIMES)
def test_what_comes_later_changes_nothing(rows, now):
    past = [row for row in rows if row[0] <= now]
    assert names(complete(table(past))) == [
        n for n, row in zip(twin(rows), rows, strict=True) if row[0] <= now
    ]


def test_a_day_to_the_microsecond_and_two_hosts():
    a, b = ("192.0.2.1", "a.example", "observed", "tls"), ("192.0.2.1", "b.example", "observed", "tls")
    bare = ("192.0.2.1", None, None, "tls")
    assert names(complete(table([(0, *a), (DAY_US, *a), (DAY_US, *bare)])))[2] == ("a.example", "passive")
    got = complete(table([(0, *a), (DAY_US, *bare), (DAY_US + 1, *bare)]))
    assert got["dest_host"].to_pylist() == ["a.example", "a.example", None]
    got = complete(table([(0, *a), (5, *b), (5, *bare), (DAY_US + 1, *bare), (DAY_US + 6, *bare)]))
    assert got["dest_host"].to_pylist()[2:] == [None, "b.example", None]
    assert complete(table([(1, *a), (0, *bare)]))["dest_host"].to_pylist() == ["a.example", None]


def test_names_given_by_the_rule_never_feed_it():
    at = [(hours * 3_600_000_000, "192.0.2.1", None, None, "tls") for hours in (20, 40, 60)]
    tables = {"flows": table([(0, "192.0.2.1", "a.example", "passive", "tls"), *at])}
    want = ["a.example", "a.example", None, None]
    for _ in range(3):
        tables = load(tables)
        assert tables["flows"]["dest_host"].to_pylist() == want
    tables["flows"] = tables["flows"].slice(1)
    assert load(tables)["flows"]["dest_host"].to_pylist() == want[1:]


@pytest.mark.parametrize("columns", [[], ["dest_ip"], ["dest_host", "dest_host_source"], ["service"]])
def test_absent_columns_are_unknown(tmp_path, columns):
    rows = [(0, "192.0.2.1", "a.example", "observed", "tls"), (1, "192.0.2.1", None, None, None)]
    pq.write_table(table(rows).drop_columns(columns), tmp_path / "flows.parquet")
    source = TelemetryDirectory(tmp_path)
    want = None if "dest_ip" in columns or "dest_host" in columns else "a.example"
    assert source.read("flows")["dest_host"].to_pylist()[1] == want
    (read,) = source.pieces("flows", ["dest_host"])
    assert read()["dest_host"].to_pylist()[1] == want


def test_nothing_known_and_nothing_there(tmp_path):
    bare = table([(0, None, None, None, None), (1, "192.0.2.1", None, None, None)])
    for name, flows_ in (("bare", bare), ("empty", bare.slice(0, 0))):
        assert complete(flows_) is flows_
        write_directory(tmp_path / name, {"flows": flows_})
        source = TelemetryDirectory(tmp_path / name)
        assert source.read("flows").equals(flows_)
        assert [row for r in source.pieces("flows", ["dest_host"]) for row in r().to_pylist()] == [
            {"dest_host": None}
        ] * len(flows_)


def test_times_at_the_ends_of_the_calendar():
    ends = (-(2**63), 2**63 - 2)
    rows = [(t, "192.0.2.1", h, None, "tls") for t in ends for h in ("a.example", None)]
    assert complete(table(rows))["dest_host"].to_pylist() == ["a.example"] * 4


def test_files_without_statistics_are_named_too(tmp_path):
    rows = [(0, "192.0.2.1", "a.example", "observed", "tls"), (1, "192.0.2.1", None, None, "tls")]
    pq.write_table(table(rows), tmp_path / "flows.parquet", row_group_size=1, write_statistics=False)
    parts = [read() for read in TelemetryDirectory(tmp_path).pieces("flows", ["dest_host"])]
    assert [part["dest_host"].to_pylist() for part in parts] == [["a.example"], ["a.example"]]


def test_named_flows_are_read_once(tmp_path):
    """The file with the second row group spoilt: who reads its names for the first group's sake fails."""
    rows = [(i, "192.0.2.1", "a.example", "observed", "tls") for i in range(2000)]
    lookup = [(i, "192.0.2.9", None, None, "dns") for i in range(2000)]
    pq.write_table(table([*lookup, *rows]), tmp_path / "flows.parquet", row_group_size=2000)
    data = bytearray((tmp_path / "flows.parquet").read_bytes())
    group = pq.read_metadata(tmp_path / "flows.parquet").row_group(1)
    first = min(c.dictionary_page_offset or c.data_page_offset for c in map(group.column, range(17)))
    data[first : first + group.total_byte_size // 2] = bytes(group.total_byte_size // 2)
    (tmp_path / "flows.parquet").write_bytes(data)
    source = TelemetryDirectory(tmp_path)
    good, spoilt = source.pieces("flows", CODED)
    assert good()["dest_host"].null_count == 2000
    with pytest.raises(TelemetryError, match="not a readable"):
        spoilt()


def shared(devices=4, days=3):
    """A fleet whose second half has no names, at the same addresses as the first."""
    whole = fleet(devices, days)["flows"]
    host = pd.Series(whole["dest_host"].to_pylist())
    address = pa.array("192.0.2." + host.astype("category").cat.codes.astype(str))
    bare = pc.is_in(whole["device_id"].cast(pa.string()), pa.array(["phone-02", "phone-03"]))
    named = pc.if_else(bare, pa.scalar(None, pa.string()), whole["dest_host"].cast(pa.string()))
    for name, column in (("dest_ip", address), ("dest_host", named)):
        whole = whole.set_column(whole.column_names.index(name), name, column)
    return conform(FLOWS, whole)


def test_threads_gather_once_and_read_the_same(tmp_path):
    tables = shared()
    pq.write_table(tables, tmp_path / "flows.parquet", row_group_size=50)
    source = TelemetryDirectory(tmp_path)
    reads = source.pieces("flows", FLOWS.schema.names)
    with ThreadPoolExecutor(8) as pool:
        got = together(*pool.map(lambda read: read(), reads))
    want = source.read("flows")
    assert len(reads) > 20 and got.to_pylist() == want.to_pylist()
    assert tables["dest_host"].null_count > 100 > want["dest_host"].null_count
    assert got.to_pandas()["dest_host"].cat.categories.is_unique


def test_features_of_a_directory_are_those_of_its_frames(tmp_path):
    tables = shared()
    pq.write_table(tables, tmp_path / "flows.parquet", row_group_size=100)
    want = extract(tmp_path)
    write_features(tmp_path, tmp_path / "f.parquet", block_flows=300)
    for got in (
        extract({"flows": tables}),
        extract({"flows": tables.to_pandas()}),
        extract(load(tmp_path)),
        pd.read_parquet(tmp_path / "f.parquet"),
    ):
        pd.testing.assert_frame_equal(
            got.astype(dict.fromkeys(got.select_dtypes("category"), object)),
            want.astype(dict.fromkeys(want.select_dtypes("category"), object)),
            check_exact=True,
        )
    late = want[want["device_id"].isin(["phone-02", "phone-03"])]["dest"].astype(str)
    assert "chat.example" in set(late)


def test_readiness_and_the_inventory_template_see_the_names(tmp_path):
    known = flows([0, 10], "d1", dest_ip="192.0.2.1", dest_host_source="observed")
    bare = flows([20, 30], "d2", host=None, dest_ip=["192.0.2.1", "192.0.2.9"])
    write_directory(tmp_path / "t", {"flows": together(known, bare)})
    answer = readiness(tmp_path / "t")
    assert (answer.share("host_known"), answer.share("host_passive")) == (0.75, 0.25)
    text, _ = template(tmp_path / "t")
    assert "a.example 75%" in text and "addresses without a name 25%" in text


@pytest.mark.parametrize(("folder", "least"), [("normal_a", 50), ("normal_b", 100)])
def test_real_logs_of_a_later_conversion_profit(shared_data, tmp_path, folder, least):
    """The first half with its TLS log in one call, the connections of the second half alone in another."""
    logs = {kind: shared_data / "labelled" / folder / f"{kind}.log.labeled" for kind in ("conn", "ssl")}
    lines = {kind: path.read_text().splitlines(keepends=True) for kind, path in logs.items()}
    times = sorted(float(line.split("\t")[0]) for line in lines["conn"] if line[0] != "#")
    middle = times[len(times) // 2]

    def half(kind, late):
        path = tmp_path / f"{kind}-{late}.log"
        kept = [x for x in lines[kind] if x[0] == "#" or (float(x.split("\t")[0]) >= middle) == late]
        path.write_text("".join(kept))
        return path

    out = tmp_path / "out"
    convert([half("conn", False), half("ssl", False)], out)
    before = complete(conform(FLOWS, pq.read_table(sorted((out / "flows").iterdir())[0])))
    convert([half("conn", True)], out)
    stored = pa.concat_tables(
        conform(FLOWS, pq.read_table(file)) for file in TelemetryDirectory(out).files("flows")
    ).unify_dictionaries()
    got = TelemetryDirectory(out).read("flows")
    keys = ("dest_ip", "dest_host", "dest_host_source", "service")
    micros = stored["start"].cast(pa.int64()).to_pylist()
    rows = list(zip(micros, *(stored[key].to_pylist() for key in keys), strict=True))
    assert names(got) == twin(rows)
    late = [i for i, start in enumerate(micros) if start >= middle * 1e6]
    assert not any(rows[i][2] for i in late)
    assert sum(got["dest_host"][i].as_py() is not None for i in late) >= least
    # What was converted first keeps the names it had by itself.
    first = {row["source_uid"]: row["dest_host"] for row in before.to_pylist()}
    assert all(first.get(row["source_uid"], row["dest_host"]) == row["dest_host"] for row in got.to_pylist())


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.1.10", "172.20.0.1", "100.100.1.1", "fe80::1", "fd00::5"]
)
def test_a_private_address_is_another_machine_in_every_home(address):
    rows = [(0, address, "nas.example", "observed", None), (1000, address, None, None, None)]
    assert complete(table(rows))["dest_host"].to_pylist() == ["nas.example", None]
    rows = [(t, "203.0.113.5", *rest) for t, _, *rest in rows]
    assert complete(table(rows))["dest_host"].to_pylist() == ["nas.example", "nas.example"]
