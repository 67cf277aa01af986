"""Who had which address: the logs of DHCP, and the devices that they make of addresses."""

import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lease_samples import FILES, LEFT, RANDOM, ROW, SECOND, A, B, T

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.leases import HardwareAddresses, Sighting, devices_of
from appcadence.telemetry.readers import detect, leases
from appcadence.telemetry.readers._json import NO_OBJECT


@pytest.mark.parametrize("name", FILES)
def test_each_kind_says_the_same(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    assert detect(path) is leases
    fresh, end = not name.startswith("dnsmasq"), (T + 3600) * SECOND
    assert leases.sightings(path) == [
        Sighting("10.0.0.5", A, "ana-phone", T * SECOND if fresh else end, fresh, end)
    ]
    # Alone it is no error; and what it says is counted.
    report = convert([path], tmp_path / "out")
    assert Counter(report.fates) == Counter(leases=1, other_kind=LEFT.get(name, 1) - 1)
    assert report.tables == {"flows": 0}
    assert report.notes[0] == "DHCP and MAC addresses identify 1 device: ana-phone."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"mac": "x"}, "the MAC address is missing"),
        ({"assigned_addr": "10.0.0"}, "an address is missing"),
        ({"ts": "never"}, "a time is missing or outside 1970 to 2100"),
        ({"ts": 1e12}, None),
        ({"lease_time": 10**400}, None),
    ],
)
def test_rows_that_say_nothing_are_rejected(tmp_path, row, reason):
    path = tmp_path / "dhcp.log"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | row) + "\nno JSON\n")
    report = convert([path], tmp_path / "out")
    faults = TelemetryDirectory(tmp_path / "out").read("rejected").to_pylist()
    assert report.fates == {"leases": 1 + (reason is None), "rejected": len(faults)}
    assert [(fault["line"], fault["reason"]) for fault in faults] == ([(2, reason)] if reason else []) + [
        (3, NO_OBJECT)
    ]


def test_a_kea_line_that_is_no_csv_is_rejected(tmp_path):
    path = tmp_path / "kea.csv"
    path.write_text(FILES["kea.csv"] + '"' + "a" * 140_000 + "\n")
    convert([path], tmp_path / "out")
    (fault,) = TelemetryDirectory(tmp_path / "out").read("rejected").to_pylist()
    assert "not readable CSV" in fault["reason"]


HEAD = "#separator \\x09\n#path\tconn\n"
HEAD += "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tconn_state\n"


def conn(path, *rows):
    lines = [f"{T + at}\tC{at}\t{address}\t{5000 + at}\t192.0.2.1\t443\ttcp\tSF\n" for at, address in rows]
    path.write_text(HEAD + "".join(lines))
    return path


def who(out):
    flows = sorted(TelemetryDirectory(out).read("flows").to_pylist(), key=lambda flow: flow["start"])
    return [flow["device_id"] for flow in flows]


def test_addresses_become_devices(tmp_path):
    dhcp = tmp_path / "dhcp.log"
    rows = [
        {},
        {"ts": T + 3600, "mac": B, "host_name": "iPhone"},
        {"ts": T, "assigned_addr": "10.0.0.7", "mac": RANDOM, "host_name": "ben"},
        {"ts": T + 50, "assigned_addr": "10.0.0.8", "mac": B, "host_name": "iPhone"},
    ]
    dhcp.write_text("".join(json.dumps(ROW | row) + "\n" for row in rows))
    log = conn(
        tmp_path / "conn.log",
        (1, "10.0.0.5"),
        (2, "10.0.0.7"),
        (3, "10.0.0.9"),
        (3700, "10.0.0.5"),
        (8000, "10.0.0.5"),
    )
    report = convert([log, dhcp], tmp_path / "out")
    assert who(tmp_path / "out") == ["ana-phone", "ben", "10.0.0.9", B, "10.0.0.5"]
    assert report.notes[0] == f"DHCP and MAC addresses identify 3 devices: {B}, ana-phone, ben."
    assert report.notes[1].startswith("1 of these devices use a randomised MAC address")
    # A table of devices goes before them, and so does a device that is named.
    table = tmp_path / "devices.csv"
    table.write_text("address,device_id\n10.0.0.5,d5\n")
    convert([log, dhcp], tmp_path / "table", devices=table)
    assert who(tmp_path / "table") == ["d5", "10.0.0.7", "10.0.0.9", "d5", "d5"]
    # Leases that were given before count for the logs of the next call, too.
    convert([conn(tmp_path / "next.log", (4, "10.0.0.7")), dhcp], tmp_path / "out")
    assert who(tmp_path / "out").count("ben") == 2


WEEK = 7 * 86_400


def holder(devices, at):
    """Who has 10.0.0.5 at a second."""
    if devices is None:
        return "10.0.0.5"
    return devices.lookup(pa.array(["10.0.0.5"]), pa.array([at * SECOND]))[0].as_py()


def seen(start, end, mac=A, host=None, address="10.0.0.5"):
    time = end if start is None else start
    return Sighting(address, mac, host, time * SECOND, start is not None, end * SECOND)


@pytest.mark.parametrize(
    ("sightings", "at", "expected"),
    [
        ([seen(10, 20)], 15, A),
        ([seen(10, 20)], 20, "10.0.0.5"),
        ([seen(10, 20), seen(30, 40)], 25, A),  # nobody else had it in between
        ([seen(10, 20), seen(20 + WEEK, 30 + WEEK)], 25, A),
        ([seen(10, 20), seen(21 + WEEK, 30 + WEEK)], 25, "10.0.0.5"),
        ([seen(10, 20), seen(30, 40, B)], 25, "10.0.0.5"),
        ([seen(10, 40), seen(30, 60, B)], 35, B),  # given away early
        ([seen(10, 40), seen(20, 60, B), seen(30, 70)], 15, "10.0.0.5"),  # both at one time
        ([seen(None, 40)], 1, A),
        ([seen(None, 40), seen(None, 60, B)], 50, B),
        ([seen(None, 40), seen(None, 60, B)], 5, A),
    ],
)
def test_one_address_over_time(sightings, at, expected):
    devices, notes = devices_of(sightings)
    assert holder(devices, at) == expected
    assert any("Two devices hold" in note for note in notes) == (len(sightings) == 3)


def test_a_host_name_of_several_is_no_name():
    devices, notes = devices_of(
        [seen(1, 9, A, "ana"), seen(1, 9, B, "ana", "10.0.0.6"), seen(9, 20, RANDOM, "ben")]
    )
    assert devices.device_ids == [A, "ben", B]
    assert any("host name ana belongs to several" in note for note in notes)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.sampled_from([A, B])), max_size=6))
def test_any_leases_give_one_device_at_a_time(rows):
    devices, _ = devices_of(seen(start, start + length, mac) for start, length, mac in rows)
    for at in range(20):
        holders = {mac for start, length, mac in rows if start <= at < start + length}
        found = holder(devices, at)
        assert found in {A, B, "10.0.0.5"}
        if len({mac for _, _, mac in rows}) == 1 and holders:
            assert {found} == holders


MACS = HEAD.replace("conn_state", "conn_state\torig_l2_addr")


def with_macs(path, *rows):
    lines = [
        f"{T + at}\tC{at}\t{address}\t{5000 + at}\t192.0.2.1\t443\ttcp\tSF\t{mac}\n"
        for at, address, mac in rows
    ]
    path.write_text(MACS + "".join(lines))
    return path


def test_a_mac_address_joins_the_addresses_of_one_device(tmp_path):
    rows = [
        (1, "10.0.0.5", A),
        (2, "fd00::5", A),
        (3, "fd00::5:1", A),
        (4, "10.0.0.6", B),
        (9, "10.0.0.5", A),
    ]
    rows += [(7200, "10.0.0.9", A), (7300, "10.0.0.7", "-")]
    report = convert([with_macs(tmp_path / "conn.log", *rows)], tmp_path / "out")
    assert who(tmp_path / "out") == [A, A, A, B, A, A, "10.0.0.7"]
    assert report.notes[0].startswith("DHCP and MAC addresses identify 2 devices")
    # Its name comes from DHCP.
    (tmp_path / "dhcp.log").write_text(json.dumps(ROW) + "\n")
    convert([tmp_path / "conn.log", tmp_path / "dhcp.log"], tmp_path / "named")
    assert who(tmp_path / "named") == ["ana-phone"] * 3 + [B] + ["ana-phone"] * 2 + ["10.0.0.7"]


def test_the_mac_address_of_a_router_names_nobody(tmp_path):
    rows = [(1, "10.0.0.5", A), (2, "10.0.0.6", A), (3, "10.0.0.5", A), (4, "10.0.0.7", B)]
    convert([with_macs(tmp_path / "conn.log", *rows)], tmp_path / "out")
    assert who(tmp_path / "out") == ["10.0.0.5", "10.0.0.6", "10.0.0.5", B]


@pytest.mark.parametrize(("second", "router"), [(9, True), (10, False)])
def test_an_address_may_follow_another_at_once(second, router):
    found = HardwareAddresses()
    times = [0, 10, second, 20]
    found.add(*map(pa.array, (["10.0.0.5", "10.0.0.5", "10.0.0.6", "10.0.0.6"], [A] * 4, times)))
    spans = [("10.0.0.5", 0, 11), ("10.0.0.6", second, 21)]
    assert [(s.address, s.time, s.end) for s in found.sightings()] == ([] if router else spans)


def test_a_renewal_means_that_the_device_had_the_address_before(tmp_path):
    (tmp_path / "dhcp.log").write_text(json.dumps(ROW | {"msg_types": ["REQUEST", "ACK"]}) + "\n")
    log = conn(tmp_path / "conn.log", (0, "10.0.0.5"))
    log.write_text(log.read_text().replace(str(T), str(T - 5000)))
    convert([log, tmp_path / "dhcp.log"], tmp_path / "out")
    assert who(tmp_path / "out") == ["ana-phone"]


def test_a_stream_of_several_logs_is_no_log_of_leases():
    other = b'{"_path": "conn", "ts": 1.0, "uid": "C", "id.orig_h": "10.0.0.5"}'
    row = json.dumps({"_path": "dhcp"} | ROW).encode()
    assert leases.sniff(None, row + b"\n") and not leases.sniff(None, row + b"\n" + other)
