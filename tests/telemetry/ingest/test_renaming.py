"""Display names become bundle ids, and what points to a person a keyed hash."""

import json

import pyarrow.parquet as pq
import pytest
from flow_samples import lines, nss

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert

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
        convert([path], tmp_path / text, keyfile=tmp_path / "key")
        names.append(flows(tmp_path / text)["device_id"][0])
    assert names[0] != names[1]


def test_clear_names_pseudonyms_and_other_keys_never_stand_side_by_side(log, tmp_path):
    rows = [log(f"{k}.json", {"device_id": f"d{k}", "app": "com.a", "host": "h.example"}) for k in range(3)]
    keys = [None, tmp_path / "one", tmp_path / "other"]
    for key in keys[1:]:
        key.write_text(f"a key of {key.name}, long enough")
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


@pytest.mark.parametrize("content, words", [(b"short", "5 bytes"), (None, "cannot be read")])
def test_a_key_must_be_there_and_long_enough(log, tmp_path, content, words):
    path = log("one.json", {"device_id": "d", "app": "com.a", "host": "h.example"})
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(TelemetryError, match=words):
        convert([path], tmp_path / "t", keyfile=tmp_path / "key")
    assert not (tmp_path / "t").exists()


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
    (tmp_path / "key").write_text("a key that is long enough")
    for name, key in (("hidden", tmp_path / "key"), ("clear", None)):
        convert([path], tmp_path / name, keyfile=key)
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "clear").stat().st_mode & 0o077
    (tmp_path / "hidden").chmod(0o750)
    convert([more], tmp_path / "hidden", keyfile=tmp_path / "key")
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o750
