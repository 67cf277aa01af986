"""Where every row of a log went: kept, rejected or left out for a reason; it adds up, whatever is in the log.

Of flow logs the rows kept are counted twice here: as what is left of those read, and as flows written.
"""

import json
import sqlite3
import tempfile
from pathlib import Path

import pytest
from flow_samples import MAP, eve, eve_flow, lines, lookup, nf, nf_array, nss
from hypothesis import given, settings
from hypothesis import strategies as st
from ios_files import APPS, LOCK, PUSHES, START, TRANSFERS, contact, powerlog
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import TelemetryError
from appcadence.telemetry.file_report import LEFT_OUT
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.times import from_iso

ENDS = ("10.0.0.5", "192.0.2.1", "192.168.7.7", "fe80::1", "0.0.0.0", "ff02::fb", "2001:db8::7", "-")
ends = st.lists(st.tuples(st.sampled_from(ENDS), st.sampled_from(ENDS), st.integers(0, 4)), min_size=1)
HEAD = "#separator \\x09\n#path\t{}\n#fields\t{}\n"
FIELDS = (
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state"
)
LONG = "a." * 200 + "example"


def zeek(rows, folder):
    conn, ssl, weird = (folder / f"{name}.log" for name in ("conn", "ssl", "weird"))
    conn.write_text(HEAD.format("conn", FIELDS.replace(" ", "\t")))
    with conn.open("a") as out:
        out.write("1.0\tkept\t10.0.0.5\t5\t192.0.2.1\t443\ttcp\t-\t1\t1\t1\tSF\n")
        for number, (source, dest, what) in enumerate(rows):
            time = "soon" if what == 4 else f"{number}.5"
            out.write(f"{time}\tC{number}\t{source}\t5\t{dest}\t443\ttcp\t-\t1.0\t1\t1\tSF\n")
    ssl.write_text(HEAD.format("ssl", "ts\tuid\tserver_name"))
    with ssl.open("a") as out:
        for number, (_, _, what) in enumerate(rows):
            out.write(f"1.0\tC{number}\t{LONG if what == 3 else 'api.example.com'}\n")
    weird.write_text(HEAD.format("weird", "ts\tuid\tname") + "1.0\tC1\todd\n")
    return [conn, ssl, weird], {}


def suricata(rows, folder):
    path = folder / "eve.json"
    made = [eve_flow(900), eve("alert", 901), eve("tls", 900, tls={"sni": LONG})]
    for number, (source, dest, what) in enumerate(rows):
        start = {"flow": {"start": "soon"}} if what == 4 else {}
        made.append(eve_flow(number, src_ip=source, dest_ip=dest, **start))
        if what == 3:
            made.append(eve("tls", number, tls={"sni": 7}))
    path.write_bytes(lines(*made) + b"{torn\n")
    return [path], {}


def nfdump(rows, folder):
    paths = [folder / "a.json", folder / "b.json"]
    first = [nf("10.0.0.5:50000", "192.0.2.1:443", 0, 1, 10)]
    made = [first, [dict(first[0], type="EVENT")]]
    for number, (source, dest, what) in enumerate(rows):
        record = nf(f"{source}:{50000 + what % 3}", f"{dest}:443", number, number + 1, 10)
        back = nf(f"{dest}:443", f"{source}:{50000 + what % 3}", number, number + 1, 10)
        made[number % 2] += [record, back] if what > 1 else [record if what else back]
        if what == 4:
            made[1].append(dict(record, first="soon"))
    for path, records in zip(paths, made, strict=True):
        path.write_bytes(nf_array(*records))
    return paths, {}


def table(rows, folder):
    path, mapping = folder / "t.csv", folder / "map.toml"
    mapping.write_text(MAP)
    text = "begin;finish;client;url;sent;action;port\n2024-01-01 02:00:00;;10.0.0.5;a.example;1;deny;1\n"
    for number, (source, dest, what) in enumerate(rows):
        time = "soon" if what == 4 else f"2024-01-01 02:00:{number % 60:02}"
        host = LONG if what == 3 else dest
        text += f"{time};;{source};{host};1.5;Allow;443\n"
    path.write_text(text)
    return [path], {"format": "table", "mapping": mapping, "local_nets": ["10.0.0.0/8"]}


@pytest.mark.parametrize("form", [zeek, suricata, nfdump, table])
@settings(max_examples=25, deadline=None)
@given(rows=ends)
def test_what_was_kept_left_out_and_rejected_adds_up_to_the_rows_read(form, rows):
    with tempfile.TemporaryDirectory() as folder:
        files, options = form(rows, Path(folder))
        report = convert(files, Path(folder, "out"), **options)
    assert report.files
    for file in report.files:
        assert file.rows + file.rejected + sum(file.left_out.values()) == file.read
        assert min(file.left_out.values(), default=0) >= 0 and set(file.left_out) <= set(LEFT_OUT)
    assert sum(report.fates.values()) == sum(file.read for file in report.files)
    assert report.fates["kept"] == report.tables["flows"]
    assert report.tables.get("rejected", 0) == sum(file.rejected + file.unnamed for file in report.files)


def test_each_reason_is_told_apart(tmp_path):
    rows = [("10.0.0.5", "192.0.2.1", 0), ("192.0.2.9", "10.0.0.5", 0), ("192.0.2.9", "192.0.2.1", 0)]
    rows += [("fe80::1", "ff02::fb", 0), ("10.0.0.5", "192.0.2.1", 4)]
    files, _ = zeek(rows, tmp_path)
    conn, ssl, weird = convert(files, tmp_path / "zeek").files
    assert (conn.kept, conn.rejected) == (2, 1)
    assert conn.left_out == {"inbound": 1, "one_link": 1, "elsewhere": 1}
    assert (ssl.left_out, weird.left_out) == ({"names": 5}, {"other_kind": 1})
    records = [nf("10.0.0.5:50000", "192.0.2.1:443", 0, 1, 1), nf("192.0.2.1:443", "10.0.0.5:50000", 0, 1, 1)]
    (tmp_path / "n.json").write_bytes(nf_array(*records, nf("192.0.2.1:443", "10.0.0.5:50001", 0, 1, 1)))
    assert convert([tmp_path / "n.json"], tmp_path / "n").files[0].left_out == {"replies": 1, "answers": 1}
    (tmp_path / "z").write_bytes(lines(nss(), nss(deviceostype="Windows"), {"sourcetype": "zscalernss-dns"}))
    assert convert([tmp_path / "z"], tmp_path / "zs").files[0].left_out == {
        "other_kind": 1,
        "other_system": 1,
    }
    other = {"event": {"metadata": {"product": "Network Traffic Stream"}}}
    (tmp_path / "j").write_bytes(lines(lookup(), other))
    assert convert([tmp_path / "j"], tmp_path / "jamf").files[0].left_out == {"other_kind": 1}


@given(bad=st.lists(st.booleans(), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_a_powerlog_accounts_for_every_record_of_its_tables(bad):
    pushes = [(START + 61 * n, "no id" if wrong else "com.a.b", 5) for n, wrong in enumerate(bad)]
    tables = {
        PUSHES: ("timestamp REAL, BundleID TEXT, Priority INT", pushes),
        TRANSFERS: ("timestamp REAL, bundleID TEXT, taskUUID TEXT", [(START, "com.a.b", "t")] * 3),
        APPS: (
            "timestamp REAL, AppBundleId TEXT, AppName TEXT",
            [(START, "com.a.b", "A"), (-1.0, "c.d", "")],
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = powerlog(Path(folder, "p.PLSQL"), tables)
        with sqlite3.connect(path) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
            stored = sum(database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)
        database.close()
        (file,) = convert([path], Path(folder, "out"), device_id="phone").files
    assert (file.read, file.rejected, file.left_out) == (stored, sum(bad) + 1, {})
    assert file.kept == stored - sum(bad) - 1 > 0


def test_the_command_says_where_the_rows_went(tmp_path):
    files, _ = zeek([("192.0.2.9", "10.0.0.5", 0), ("10.0.0.5", "192.0.2.1", 4)], tmp_path)
    printed = CliRunner().invoke(app, ["convert", *map(str, files), "--out", str(tmp_path / "out")]).output
    assert (
        "Of 6 rows read, 1 count; 2 only name hosts (look-ups and handshakes); 1 are connections that were "
        "opened from outside, towards your devices; 1 are records of other kinds; 1 were rejected."
    ) in " ".join(printed.split())


def test_rows_of_an_app_privacy_report_that_are_neither_contact_nor_access_are_counted(tmp_path):
    stream = {"stream": "com.apple.privacy.accounting.stream.tcc", "kind": "event", "tccService": "x"}
    path = tmp_path / "report.ndjson"
    path.write_text(f"{json.dumps(contact())}\n{json.dumps(stream)}\n")
    (file,) = convert([path], tmp_path / "report", device_id="d").files
    assert (file.read, file.kept, file.left_out) == (2, 1, {"other_kind": 1})


@pytest.mark.parametrize(
    ("good", "faulty", "told"), [(89, 11, True), (0, 11, True), (99, 11, False), (1, 10, False)]
)
def test_the_commonest_fault_is_told_where_many_rows_have_it(tmp_path, good, faulty, told):
    fine = [nf("10.0.0.5:50000", "192.0.2.1:443", 60 * n, 60 * n + 1, 1) for n in range(good + 1)]
    bad = [record | {"in_bytes": -1} for record in (fine * faulty)[:faulty]]
    (tmp_path / "n.json").write_bytes(nf_array(*fine, *bad))
    notes = convert([tmp_path / "n.json"], tmp_path / "n").notes
    said = "The commonest reason for rejected rows (11 of 11): in_bytes is out of range."
    assert [note for note in notes if "rejected" in note] == ([said] if told else [])


def test_a_file_tells_until_its_last_interval_ends(tmp_path):
    locks = [(START, 0), (START + 600, 1)]
    log = powerlog(tmp_path / "a.PLSQL", {LOCK: ("timestamp REAL, Locked", locks)})
    (file,) = convert([log], tmp_path / "out", device_id="phone").files
    first, last = (from_iso(text) for text in (file.first, file.last))
    assert (last - first).total_seconds() == 600


def test_a_log_of_the_first_moment_of_1970_alone_is_refused_as_too_early(tmp_path):
    (tmp_path / "f.csv").write_text("start,device,host\n1970-01-01T00:00:00Z,phone,a.example\n")
    (tmp_path / "m.toml").write_text('[columns]\nstart = "start"\ndevice_id = "device"\ndest_host = "host"\n')
    with pytest.raises(TelemetryError, match="all times are too early"):
        convert([tmp_path / "f.csv"], tmp_path / "out", format="table", mapping=tmp_path / "m.toml")
