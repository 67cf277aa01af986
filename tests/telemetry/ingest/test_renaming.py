"""Display names become bundle ids, and what points to a person a keyed hash."""

import hashlib
import hmac
import json
from ipaddress import ip_network

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import CHAT, mdm, newest
from flow_samples import lines, nss
from lease_samples import RANDOM, A, B, T
from lease_samples import ROW as LEASE

from appcadence.errors import TelemetryError
from appcadence.telemetry.addresses import is_address, is_local
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.renaming import Renaming
from appcadence.telemetry.inventory.merge import merge

ROW = {
    "open": "2026-03-02T00:00:00Z",
    "close": "2026-03-02T00:00:09Z",
    "port": 443,
    "bytes_out": 1,
    "bytes_in": 2,
}


@pytest.fixture
def log(tmp_path):
    def write(name, *rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(ROW | row) + "\n" for row in rows))
        return path

    return write


def flows(path):
    return (
        TelemetryDirectory(path).read("flows").to_pandas().astype({"device_id": object, "dest_host": object})
    )


def test_hashes_stand_for_devices_and_own_machines_the_same_in_every_call(log, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"sixteen bytes or more of key")
    key.chmod(0o600)
    hosts = ["annas-iphone.local", "nas", "api.example.com", "192.0.2.7"]
    one = log("one.json", *({"device_id": "anna-phone", "app": "com.a", "host": host} for host in hosts))
    two = log("two.json", {"device_id": "anna-phone", "app": "com.b", "host": "nas"})
    convert([one], tmp_path / "t", keyfile=key)
    convert([two], tmp_path / "t", keyfile=key)
    got = flows(tmp_path / "t")
    assert got["device_id"].nunique() == 1 and got["device_id"].str.match(r"device-[0-9a-f]{16}$").all()
    assert sorted(got.groupby("dest_host").size().to_dict().values()) == [1, 1, 2]
    assert "api.example.com" in set(got["dest_host"])
    for part in (tmp_path / "t").rglob("*"):
        if part.is_file():
            raw = part.read_bytes()
            assert b"anna" not in raw and b'"nas"' not in raw
    assert all(
        b"anna" not in str(pq.read_table(p).to_pydict()).encode() for p in (tmp_path / "t").rglob("*.parquet")
    )


def test_another_key_gives_other_names(log, tmp_path):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    names = []
    for text in ("first key, long enough", "second key, long enough"):
        (tmp_path / "key").write_text(text)
        (tmp_path / "key").chmod(0o600)
        convert([path], tmp_path / text, keyfile=tmp_path / "key")
        names.append(flows(tmp_path / text)["device_id"][0])
    assert names[0] != names[1]


def test_clear_names_pseudonyms_and_other_keys_never_stand_side_by_side(log, tmp_path):
    rows = [log(f"{k}.json", {"device_id": f"d{k}", "app": "com.a", "host": "h.example"}) for k in range(3)]
    keys = [None, tmp_path / "one", tmp_path / "other"]
    for key in keys[1:]:
        key.write_text(f"a key of {key.name}, long enough")
        key.chmod(0o600)
    for first in keys:
        out = tmp_path / f"by-{first and first.name}"
        convert(rows[:1], out, keyfile=first)
        convert(rows[1:2], out, keyfile=first)
        for second in keys:
            if second != first:
                with pytest.raises(TelemetryError, match=r"pseudonyms|clear names") as error:
                    convert(rows[2:], out, keyfile=second)
                assert error.value.argument == "keyfile"
        assert len(flows(out)) == 2


@pytest.mark.parametrize(
    "content, words",
    [
        (b"short", "5 bytes"),
        (None, "cannot be read"),
        (b"k" * 32, "easy to guess"),
        (b"abcdefgh" * 4, "easy to guess"),
        (b"0123456" + b"0" * 25, "easy to guess"),
    ],
)
def test_a_key_must_be_there_and_long_enough(log, tmp_path, content, words):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    if content is not None:
        (tmp_path / "key").write_bytes(content)
        (tmp_path / "key").chmod(0o600)
    with pytest.raises(TelemetryError, match=words):
        convert([path], tmp_path / "t", keyfile=tmp_path / "key")
    assert not (tmp_path / "t").exists()


def test_a_key_that_others_may_read_is_said(log, tmp_path, caplog):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    (tmp_path / "key").write_text("first key, long enough")
    (tmp_path / "key").chmod(0o644)
    convert([path], tmp_path / "t", keyfile=tmp_path / "key")
    assert f"{tmp_path / 'key'} is accessible to others (mode 644)" in caplog.text
    (tmp_path / "key").chmod(0o600)
    caplog.clear()
    convert([path], tmp_path / "again", keyfile=tmp_path / "key")
    assert not caplog.text


@pytest.mark.parametrize(
    ("dest", "kept"),
    [
        *((name, False) for name in ("192.168.7.23", "10.1.2.3", "fe80::7", "fd12::7", "203.0.113.77")),
        *((name, False) for name in ("nas.fritz.box", "anna-mac.corp", "7.2.0.10.in-addr.arpa")),
        *((name, False) for name in ("NAS.LOCAL.", "198.51.100.9", "169.254.3.4")),
        *((name, True) for name in ("17.57.144.1", "127.0.0.1", "224.0.0.251", "2001:db8::9", "a.example")),
    ],
)
def test_what_is_on_the_devices_own_networks_is_replaced_and_stays_local(log, tmp_path, dest, kept):
    (tmp_path / "key").write_text("first key, long enough")
    (tmp_path / "key").chmod(0o600)
    # One of the devices goes by its public address, the other's network is named.
    rows = [{"device_id": "203.0.113.77", "app": "com.a", "host": dest, "ip": dest}]
    rows += [{"device_id": "203.0.113.77", "app": "com.a", "host": "a.example"}]
    path = log("annas-phone.json", *rows)
    nets = ["198.51.100.0/24", "203.0.113.77/32"]
    convert([path], tmp_path / "t", keyfile=tmp_path / "key", local_nets=nets)
    stored = "".join(str(TelemetryDirectory(tmp_path / "t").read(name)) for name in ("flows",))
    shown = stored + (tmp_path / "t/sources.json").read_text()
    assert (dest.lower().rstrip(".") in shown) == kept
    assert "annas-phone" not in shown and "203.0.113.77" not in shown
    renaming = Renaming.read(None, tmp_path / "key", (ip_network("198.51.100.0/24"),))
    table = pa.table({"device_id": ["203.0.113.77"], "dest_ip": [dest], "file": ["annas.log"]})
    got = renaming.apply(table).to_pylist()[0]
    if is_address(dest):
        assert (got["dest_ip"] == dest) == kept and (kept or is_local(got["dest_ip"]))
    assert got["file"].startswith("file-")


def test_display_names_become_bundle_ids_where_the_map_knows_them(tmp_path):
    path = tmp_path / "nss.json"
    path.write_bytes(lines(nss(mobappname="Weather"), nss(mobappname="Chat", recordid="78")))
    (tmp_path / "apps.csv").write_text("app_name,app_id\nWeather,com.example.weather\n")
    convert([path], tmp_path / "t", format="zscaler", app_map=tmp_path / "apps.csv")
    got = TelemetryDirectory(tmp_path / "t").read("flows")
    assert got["app_id"].cast("string").to_pylist() == ["com.example.weather", "Chat"]
    assert set(got["app_attribution"].cast("string").to_pylist()) == {"display_name"}


def test_what_stands_under_pseudonyms_is_its_owners_alone(log, tmp_path):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    more = log("two.json", {"device_id": "d", "app": "com.b", "host": "h.example"})
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("a key that is long enough")
    (tmp_path / "key").chmod(0o600)
    for name, key in (("hidden", tmp_path / "key"), ("clear", None)):
        convert([path], tmp_path / name, keyfile=key)
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "clear").stat().st_mode & 0o077
    (tmp_path / "hidden").chmod(0o750)
    convert([more], tmp_path / "hidden", keyfile=tmp_path / "key")
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o750


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_text("a key that is long enough")
    path.chmod(0o600)
    return path


def test_neither_notes_nor_reasons_quote_a_clear_name(tmp_path, key):
    """One phone, one host name of two MAC addresses, one address of two at a time, and rows with faults."""
    leases = [LEASE | {"host_name": "anna-phone"}, LEASE | {"mac": RANDOM, "assigned_addr": "10.0.0.6"}]
    for mac, time in ((A, T), (B, T + 60), (A, T + 90)):
        leases.append(
            LEASE | {"mac": mac, "ts": time, "host_name": "bens-phone", "assigned_addr": "10.0.0.7"}
        )
    conn = {"proto": "tcp", "service": "ssl", "duration": 9.0, "orig_bytes": 1, "resp_bytes": 2}
    conn |= {"id.orig_p": 50000, "id.resp_p": 443, "id.resp_h": "10.0.0.9", "conn_state": "SF"}
    rows = [
        conn | {"ts": T + 5.0 * k, "uid": f"C{k}", "id.orig_h": f"10.0.0.{5 + k % 3}", "local_orig": True}
        for k in range(9)
    ]
    for field, wrong in (("ts", "annas-nas"), ("id.orig_h", "annas-nas"), ("id.resp_p", "annas-nas")):
        rows.append(rows[0] | {"uid": "C99", field: wrong})
    paths = []
    for name, found in (("conn.log", rows), ("dhcp.log", leases)):
        paths.append(tmp_path / name)
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in found))
    names = ("anna", "bens", A, B, RANDOM, "10.0.0.5", "10.0.0.7", "10.0.0.9")
    for renamed in (None, key):
        out = tmp_path / f"to-{renamed and renamed.name}"
        report = convert(paths, out, keyfile=renamed)
        said = json.dumps(report.as_dict()) + str(
            [TelemetryDirectory(out).read(name).to_pylist() for name in ("flows", "rejected")]
        )
        quoted = {name for name in names if name in said}
        assert quoted >= {"bens", A, "10.0.0.7", "10.0.0.9"} if renamed is None else not quoted
        assert any("Two devices hold one address" in note for note in report.notes)
        assert any("belongs to several MAC" in note for note in report.notes) and report.rejected


def test_pseudonyms_of_the_older_form_are_not_added_to(log, tmp_path, key):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    convert([path], tmp_path / "t", keyfile=key)
    sources = tmp_path / "t/sources.json"
    first = "key-" + hmac.new(key.read_bytes(), b"key\0", hashlib.sha256).hexdigest()[:16]
    known = json.loads(sources.read_text())
    text = sources.read_text().replace(Renaming.read(None, key).fingerprint, first)
    sources.write_text(text)
    assert json.loads(text) != known
    more = log("two.json", {"device_id": "e", "app": "com.a", "host": "i.example"})
    with pytest.raises(TelemetryError, match="pseudonyms of an older form, which hides less"):
        convert([more], tmp_path / "t", keyfile=key)
    assert sources.read_text() == text


def test_an_inventory_brings_no_clear_name_beside_pseudonyms(log, tmp_path, key):
    path = log("one.json", {"device_id": "UDID-7", "app": CHAT, "host": "h.example"})
    convert([path], tmp_path / "t", keyfile=key)
    apps = mdm(tmp_path / "annas-phone.plist", udid="UDID-7")
    with pytest.raises(TelemetryError, match="clear names such as UDID-7 must not be mixed with") as error:
        merge([apps], tmp_path / "t")
    assert error.value.argument == "device_id" and not list((tmp_path / "t").glob("inv*"))
    merge([apps], tmp_path / "t", device_id=flows(tmp_path / "t")["device_id"][0])
    stored = (tmp_path / "t/sources.json").read_text()
    assert "anna" not in stored and "UDID-7" not in str(newest(tmp_path / "t"))
    merge([apps], tmp_path / "clear")
    with pytest.raises(TelemetryError, match="clear names, beside which pseudonyms hide nothing"):
        convert([path], tmp_path / "clear", keyfile=key)
