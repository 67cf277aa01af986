"""Devices under two names."""

import pytest
from make import DAY0, activity, flows, pushes, together

from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.aliases import alias_notes
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.simulate.fleet import simulate

HEAD = "#separator \\x09\n#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\t"
HEAD += "service\tduration\torig_bytes\tresp_bytes\tconn_state\n"


def row(at, device):
    return f"{DAY0 + at}\tC\t{device}\t1\t192.0.2.1\t443\ttcp\tssl\t1.0\t10\t20\tSF\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "conn.log"
    path.write_text(HEAD + row(0, "10.0.0.5") + row(7200, "10.0.0.5") + row(7200, "10.0.0.6"))
    return path


def leases(path, *rows):
    path.write_text("\n".join(["address,device_id,from,to", *rows]) + "\n")
    return path


def notes(path, devices, **tables):
    write_directory(path, tables)
    return alias_notes(TelemetryDirectory(path), devices)


def test_rows_outside_the_leases(tmp_path, log):
    table = leases(tmp_path / "d.csv", "10.0.0.5,phone,2026-03-02T01:00:00Z,", "10.0.0.7,zebra,,")
    (note,) = convert([log], tmp_path / "a", devices=table).notes
    assert "10.0.0.5 (phone)." in note and "10.0.0.6" not in note and "zebra" not in note
    table = leases(tmp_path / "d.csv", "10.0.0.5,phone,,", "10.0.0.6,10.0.0.6,2026-03-02T03:00:00Z,")
    assert convert([log], tmp_path / "b", devices=table).notes == ()


def test_leases_and_pseudonyms(tmp_path, log):
    table = leases(tmp_path / "d.csv", "10.0.0.5,phone,2026-03-02T01:00:00Z,")
    (tmp_path / "key").write_text("a key that is long enough")
    (tmp_path / "key").chmod(0o600)
    (note,) = convert([log], tmp_path / "a", devices=table, keyfile=tmp_path / "key").notes
    names = set(TelemetryDirectory(tmp_path / "a").read("flows")["device_id"].to_pylist())
    assert len([name for name in names if name in note]) == 2
    assert "phone" not in note and "10.0.0.5" not in note


def test_spellings(tmp_path):
    table = together(*(flows([0.0], name) for name in ("Anna's iPhone", "annas-iphone", "pad", "pod")))
    more = together(*(flows([0.0], name) for name in ("anna'siphone.local", "PAD.lan")))
    pushed = together(*(pushes([0.0], name) for name in ("pad", "pod")))
    (note,) = notes(tmp_path / "a", {"pad", "pod"}, flows=together(table, more), notifications=pushed)
    assert "local suffix: PAD.lan = pad. If" in note
    everything = alias_notes(TelemetryDirectory(tmp_path / "a"), {"pad", "Anna's iPhone"})
    assert "Anna's iPhone = anna'siphone.local, PAD.lan = pad." in everything[0]
    assert alias_notes(TelemetryDirectory(tmp_path / "a"), {"pod"}) == ()


def test_flows_and_pushes_of_different_names(tmp_path):
    tables = {
        "flows": together(*(flows([0.0], f"10.0.0.{i}") for i in range(5)), flows([0.0], "both")),
        "activity": together(activity([(0, 1)], "both"), activity([(0, 1)], "phone")),
        "notifications": pushes([0.0], "pad"),
    }
    (note,) = notes(tmp_path / "a", {"10.0.0.4"}, **tables)
    assert "pushes: 10.0.0.4, 10.0.0.0, 10.0.0.1 and 2 more;" in note
    assert "but no flows: pad, phone." in note and "both" not in note
    source = TelemetryDirectory(tmp_path / "a")
    assert alias_notes(source, {"phone"}) and alias_notes(source, {"both"}) == ()
    assert notes(tmp_path / "b", {"pad"}, notifications=tables["notifications"]) == ()
    assert notes(tmp_path / "c", {"both"}, flows=tables["flows"]) == ()


def test_a_real_mix(tmp_path, shared_data):
    """Flows of an address first, pushes under a name after: said once, by the conversion that shows it."""
    out = tmp_path / "out"
    assert convert(sorted((shared_data / "labelled" / "normal_b").iterdir()), out).notes == ()
    logs = [next((shared_data / "ios").glob("knowledgec*"))]
    (note,) = convert(logs, out, device_id="phone").notes
    assert "147.32.83.234" in note and "phone" in note and "convert again with the same names" in note


def test_a_simulated_fleet_is_silent(tmp_path):
    tables = simulate(16, 1, seed=2).tables
    devices = set(tables["flows"]["device_id"].to_pylist())
    assert notes(tmp_path / "t", devices, **tables) == ()


def test_a_broken_table_is_said_not_raised(tmp_path, log):
    out = tmp_path / "out"
    convert([log], out)
    (out / "activity.parquet").write_bytes(b"PAR1")
    other = tmp_path / "other.log"
    other.write_text(HEAD + row(0, "10.0.0.9"))
    (note,) = convert([other], out).notes
    assert "not checked" in note and "activity.parquet" in note
    assert len(TelemetryDirectory(out).read("flows")) == 4
