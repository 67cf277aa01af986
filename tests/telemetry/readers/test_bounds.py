"""Lengths that whoever opens a connection may choose are bounded on the way in, in every reader."""

import gzip
import json
import sqlite3

import pyarrow.compute as pc
import pytest
from flow_samples import eve, eve_flow, lines, load, lookup, nss, report, sniffs
from ios_files import APPS, PUSHES, START, contact, database, knowledge, powerlog, read
from ios_files import lines as write_lines

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import detect

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
LONGER = "a" + LONGEST
TOO_LONG = "the host name is longer than 253 characters"
CONN = (
    '{"ts": 1700000000.5, "uid": "C1", "id.orig_h": "10.0.0.5", "id.resp_h": "192.0.2.1", "id.resp_p": 443, '
    '"proto": "tcp", "conn_state": "SF", "duration": 1.0}\n'
)


def name_log(kind: str, host: str) -> str:
    row = {"ts": 1700000000.0, "uid": "C1", "id.orig_h": "10.0.0.5", "id.resp_h": "192.0.2.1"}
    more = {
        "ssl": {"server_name": host, "cipher": "x"},
        "quic": {"server_name": host, "client_scid": "x"},
        "http": {"host": host, "trans_depth": 1},
        "dns": {"query": host, "answers": ["192.0.2.1"], "TTLs": [60.0], "trans_id": 1},
    }
    return json.dumps(row | more[kind]) + "\n"


@pytest.mark.parametrize("kind", ["ssl", "quic", "http", "dns"])
def test_a_name_of_zeek_that_is_too_long_names_nothing_and_is_reported(tmp_path, kind):
    conn, names = tmp_path / "conn.log", tmp_path / f"{kind}.log"
    conn.write_text(CONN)
    for host, expected in ((LONGEST, [LONGEST]), (LONGEST + ".", [LONGEST]), (LONGER, [None])):
        names.write_text(name_log(kind, host))
        flows, bad = load("zeek", conn, names)
        assert [flow["dest_host"] for flow in flows] == expected
        assert bad == ([] if expected[0] else [(names.name, 1, TOO_LONG)])


@pytest.mark.parametrize(
    "event",
    [
        eve("tls", tls={"sni": LONGER}),
        eve("quic", quic={"sni": LONGER}),
        eve("http", http={"hostname": LONGER}),
        eve("dns", dns={"rrname": LONGER, "rrtype": "A", "rdata": "192.0.2.1", "ttl": 60}),
    ],
)
def test_a_name_of_suricata_that_is_too_long_names_nothing_and_is_reported(tmp_path, event):
    path = tmp_path / "eve.json"
    path.write_bytes(lines(event, eve_flow()))
    flows, bad = load("suricata", path)
    assert [flow["dest_host"] for flow in flows] == [None]
    assert bad == [("eve.json", 1, TOO_LONG)]


@pytest.mark.parametrize(
    ("name", "row", "kept"),
    [
        ("content_filter", report(host=LONGER), True),
        ("content_filter", report(host=LONGER, address=None), False),
        ("zscaler", nss(host=LONGER), True),
        ("zscaler", nss(host=LONGER, serverip=None), False),
        ("jamf", lookup(hostName=LONGER), False),
    ],
)
def test_a_flow_with_a_name_that_is_too_long_counts_by_its_address(tmp_path, name, row, kept):
    path = tmp_path / "log.json"
    path.write_bytes(lines(row))
    flows, bad = load(name, path)
    assert [flow["dest_host"] for flow in flows] == [None] * kept
    assert [flow["dest_host_source"] for flow in flows] == [None] * kept
    assert bad == [("log.json", 1, TOO_LONG)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (report(device_id="d" * 256), "device is longer than 255 characters"),
        (report(app="a" * 256), "app_id is longer than 255 characters"),
        (report(address="1" * 256), "dest_ip is longer than 255 characters"),
        (report(close="2027-01-24T08:00:00Z"), "the flow lasts longer than 31 days"),
    ],
)
def test_other_lengths_are_bounded_too(tmp_path, row, reason):
    path = tmp_path / "log.json"
    path.write_bytes(lines(row, report()))
    flows, bad = load("content_filter", path)
    assert (len(flows), bad) == (1, [("log.json", 1, reason)])


def test_what_a_device_logs_is_bounded(tmp_path):
    rows = [contact(domain=LONGEST), contact(domain=LONGER), contact(domainOwner="x" * 256)]
    found = read("app_privacy_report", write_lines(tmp_path / "report", rows))
    assert [row["dest_host"] for row in found["contact_summaries"]] == [LONGEST]
    assert [row["line"] for row in found["rejected"]] == [2, 3]
    day = 86_400
    spans = [("/app/usage", 7e8, 7e8 + days * day, "com.a", None) for days in (31, 32)]
    found = read("knowledgec", knowledge(tmp_path / "x.db", spans))
    assert len(found["activity"]) == 1
    assert [row["reason"] for row in found["rejected"]] == [
        "ZOBJECT: ZENDDATE is more than 31 days after ZSTARTDATE"
    ]


def grown(path, old):
    """A copy of a database whose schema has grown: the pages that name its tables stand far behind."""
    wide = ", ".join(f"column_{j}" for j in range(300))
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE noise (x BLOB)")
    connection.execute("INSERT INTO noise VALUES (randomblob(3000000))")
    for i in range(9):
        connection.execute(f"CREATE TABLE wide{i} ({wide})")
    connection.execute(f"ATTACH '{old}' AS old")
    names = connection.execute("SELECT name FROM old.sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in names:
        connection.execute(f"CREATE TABLE main.{name} AS SELECT * FROM old.{name}")
    connection.commit()
    connection.close()
    return path


def test_a_packed_database_is_known_wherever_its_names_stand(tmp_path):
    pushes = ("timestamp, BundleID", [(START, "com.a")])
    made = {
        "powerlog": (powerlog(tmp_path / "p", {PUSHES: pushes}), PUSHES),
        "knowledgec": (knowledge(tmp_path / "k", [("/app/usage", 7e8, 7e8 + 1, "com.a", None)]), "ZOBJECT"),
    }
    for name, (path, table) in made.items():
        plain = grown(tmp_path / f"{name}.grown", path)
        assert plain.read_bytes().find(f"CREATE TABLE {table}".encode()) > 2 << 20
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
        assert detect(plain).NAME == detect(packed).NAME == name
        assert read(name, packed) == read(name, plain)


def test_names_of_tables_in_a_text_do_not_tell_a_database(tmp_path):
    path = database(tmp_path / "foreign", {"notes": ("x", [(PUSHES,), ("ZOBJECT",), (APPS,)])})
    packed = tmp_path / "foreign.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert not sniffs("powerlog", packed) and not sniffs("knowledgec", packed)


def test_a_long_name_reaches_no_table(tmp_path):
    conn, ssl = tmp_path / "conn.log", tmp_path / "ssl.log"
    conn.write_text("".join(CONN.replace("C1", f"C{n}") for n in range(50)))
    names = ["x" * 60_000 if n == 7 else "a.example" for n in range(50)]
    ssl.write_text("".join(name_log("ssl", name).replace("C1", f"C{n}") for n, name in enumerate(names)))
    report = convert([conn, ssl], tmp_path / "out")
    assert report.tables == {"flows": 50, "rejected": 1}
    hosts = TelemetryDirectory(tmp_path / "out").read("flows")["dest_host"]
    assert pc.max(pc.utf8_length(hosts.cast("string"))).as_py() == len("a.example")
