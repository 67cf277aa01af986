"""Readers of logs that know the device by name: content filter, Zscaler, Jamf."""

import pytest
from flow_samples import SECRET, lines, load, lookup, nss, report

from appcadence.errors import TelemetryError
from appcadence.telemetry.identity import Devices


def read(tmp_path, name, *rows, **options):
    path = tmp_path / "log.json"
    path.write_bytes(lines(*rows))
    return load(name, path, **options)


def devices(tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text("address,device_id\nd1,udid-1\n")
    return Devices.read(path)


BARE = {
    "app_id": None,
    "app_attribution": "none",
    "dest_ip": None,
    "dest_port": None,
    "device_port": None,
    "transport": None,
    "service": None,
    "duration_seconds": None,
    "bytes_out": None,
    "bytes_in": None,
    "source_uid": None,
    "source_app_id": None,
}


def test_a_report_of_a_content_filter(tmp_path):
    (flow,), bad = read(tmp_path, "content_filter", report())
    assert not bad
    assert flow.pop("start").isoformat() == "2026-11-24T08:00:00.120000+00:00"
    assert flow == BARE | {
        "duration_seconds": 3.88,
        "device_id": "d1",
        "app_id": "A1B2C3D4E5.com.example.mail",
        "app_attribution": "exact",
        "dest_host": "imap.example.com",
        "dest_host_source": "observed",
        "dest_ip": "192.0.2.1",
        "dest_port": 993,
        "transport": "tcp",
        "outcome": "established",
        "bytes_out": 512,
        "bytes_in": 2048,
        "time_resolution_seconds": 1e-3,
        "source": "content_filter",
    }


@pytest.mark.parametrize(("app", "expected"), [(".A.com.example.mail", ".A.com.example.mail"), ("", None)])
def test_the_app_of_a_report_is_as_it_stands(tmp_path, app, expected):
    (flow,), _ = read(tmp_path, "content_filter", report(app=app))
    assert (flow["app_id"], flow["app_attribution"]) == (expected, "exact" if expected else "none")


def test_what_a_report_may_leave_out(tmp_path):
    (flow,), bad = read(
        tmp_path,
        "content_filter",
        {"app": "x", "open": "2026-11-24T09:00:00+01:00", "host": "h"},
        device_id="p",
    )
    assert not bad and flow["start"].isoformat() == "2026-11-24T08:00:00+00:00"
    assert (flow["device_id"], flow["outcome"], flow["time_resolution_seconds"]) == ("p", "unknown", 1.0)
    rows = [report(outcome=None), report(outcome=None, bytes_in=0), report(outcome="Failed")]
    flows, _ = read(tmp_path, "content_filter", *rows)
    assert [f["outcome"] for f in flows] == ["established", "unknown", "failed"]
    address = report(host=f"https://{SECRET}@[2001:DB8::1]:443/{SECRET}", address=None)
    (flow,), _ = read(tmp_path, "content_filter", address)
    assert (flow["dest_host"], flow["dest_ip"]) == (None, "2001:db8::1")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"open": None}, "open is missing"),
        ({"open": "now"}, "open is not a time"),
        ({"close": "later"}, "close is not a time"),
        ({"close": "2026-11-24T07:59:00Z"}, "the duration is negative or not finite"),
        ({"device_id": None}, "the device is missing"),
        ({"device_id": 5}, "device_id is not text"),
        ({"host": None, "address": None}, "the destination is missing"),
        ({"transport": "sctp"}, "transport is not one of tcp, udp"),
        ({"outcome": "maybe"}, "outcome is not one of established, failed, unknown"),
        ({"port": -1}, "the port is out of range"),
        ({"bytes_in": -1}, "a byte count is negative"),
    ],
)
def test_bad_reports_are_rejected_with_file_line_and_reason(tmp_path, fault, reason):
    flows, bad = read(tmp_path, "content_filter", report(), report(**fault), report())
    assert (len(flows), bad) == (2, [("log.json", 2, reason)])


def test_times_as_numbers_count_from_1970(tmp_path):
    (flow,), bad = read(tmp_path, "content_filter", report(open=1784880000.12, close="1784880004"))
    assert flow["start"].isoformat() == "2026-07-24T08:00:00.120000+00:00" and not bad
    assert flow["duration_seconds"] == pytest.approx(3.88)
    with pytest.raises(TelemetryError, match=r"too early, up to 1994.*count from 2001"):
        read(tmp_path, "content_filter", report(open=781693200.5, close=None))


def test_a_record_of_zscaler(tmp_path):
    (flow,), bad = read(tmp_path, "zscaler", nss())
    assert not bad
    assert flow.pop("start").isoformat() == "2023-10-16T22:55:48+00:00"
    assert flow == BARE | {
        "device_id": "d1",
        "app_id": "Mail",
        "app_attribution": "display_name",
        "dest_host": "www.example.com",
        "dest_host_source": "observed",
        "dest_ip": "192.0.2.1",
        "transport": "tcp",
        "service": "tls",
        "outcome": "established",
        "bytes_out": 1300,
        "bytes_in": 10500,
        "time_resolution_seconds": 1.0,
        "source": "zscaler",
        "source_uid": "77",
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"epochtime": None}, {}),
        ({"epochtime": 1697496948, "reqsize": 1300}, {}),
        ({"host": "Mail.example.com"}, {"dest_host": "mail.example.com"}),
        ({"external_devid": "None", "devicename": "phone:1"}, {"device_id": "phone:1"}),
        ({"external_devid": "", "cltip": "198.51.100.7"}, {"device_id": "198.51.100.7"}),
        (
            {"external_devid": "", "devicehostname": "phone-2", "cltip": "198.51.100.7"},
            {"device_id": "phone-2"},
        ),
        ({"mobappname": "None"}, {"app_id": None, "app_attribution": "none"}),
        ({"action": "Blocked"}, {"outcome": "failed"}),
        ({"action": "Cautioned"}, {"outcome": "unknown"}),
        ({"proto": "HTTP_PROXY"}, {"service": None}),
        ({"deviceostype": "None"}, {}),
        ({"deviceostype": "iPadOS"}, {}),
    ],
)
def test_what_a_feed_of_zscaler_may_hold(tmp_path, more, expected):
    base, _ = read(tmp_path, "zscaler", nss())
    flows, bad = read(tmp_path, "zscaler", nss(**more))
    assert not bad and flows == [base[0] | expected]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"epochtime": None, "tz": "CET"}, "event.tz is neither UTC nor an offset from it"),
        ({"epochtime": None, "time": "noon"}, "event.epochtime or event.time is not a time"),
        ({"epochtime": "soon", "time": None}, "event.epochtime or event.time is not a time"),
        ({"epochtime": None, "time": None}, "event.epochtime or event.time is missing"),
        ({"reqsize": "many"}, "event.reqsize is not a number"),
        ({"external_devid": None}, "the device is missing"),
        ({"eurl": None, "serverip": None}, "the destination is missing"),
        ({"time": ["x"]}, "event.time is not text"),
    ],
)
def test_bad_records_of_zscaler_are_rejected(tmp_path, more, reason):
    flows, bad = read(tmp_path, "zscaler", nss(), nss(**more))
    assert (len(flows), bad) == (1, [("log.json", 2, reason)])


def test_other_systems_and_other_feeds_are_passed_over(tmp_path):
    rows = [nss(), nss(deviceostype="Windows"), nss() | {"sourcetype": "zscalernss-dns"}]
    assert len(read(tmp_path, "zscaler", *rows)[0]) == 1
    rows = [lookup(), lookup(device={"deviceId": "m", "osType": "MAC_OS"}), lookup(dns=None)]
    rows.append(lookup(device={"deviceId": "x", "osType": ""}))
    flows, bad = read(tmp_path, "jamf", *rows)
    assert [flow["device_id"] for flow in flows] == ["d1", "x"] and not bad


def test_a_look_up_of_jamf_is_dns_on_the_grid_of_its_ttl(tmp_path):
    (flow,), bad = read(tmp_path, "jamf", lookup())
    assert not bad
    assert flow.pop("start").isoformat() == "2024-02-02T06:26:04.273000+00:00"
    assert flow == BARE | {
        "device_id": "d1",
        "dest_host": "s.example.com",
        "dest_host_source": "observed",
        "service": "dns",
        "outcome": "established",
        "time_resolution_seconds": 101.0,
        "source": "jamf",
    }


@pytest.mark.parametrize(
    ("dns", "blocked", "outcome", "grid"),
    [
        ({"responseStatus": "NOERROR", "ttl": 0}, False, "established", 1e-3),
        ({"responseStatus": "NXDOMAIN"}, False, "failed", 1e-3),
        ({"responseStatus": "NOERROR", "ttl": 60}, True, "failed", 60.0),
        ({"ttl": 60}, None, "unknown", 60.0),
    ],
)
def test_outcome_of_a_look_up(tmp_path, dns, blocked, outcome, grid):
    (flow,), _ = read(tmp_path, "jamf", lookup(dns=dns, blocked=blocked))
    assert (flow["outcome"], flow["time_resolution_seconds"]) == (outcome, grid)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"timestamp": "noon"}, "event.timestamp is not a time"),
        ({"timestamp": None}, "event.timestamp is missing"),
        ({"device": {}}, "the device is missing"),
        ({"hostName": ""}, "the destination is missing"),
        ({"dns": {"ttl": -1}}, "event.dns.ttl is out of range"),
        ({"dns": {"ttl": 2**31}}, "event.dns.ttl is out of range"),
        ({"dns": {"ttl": "x"}}, "event.dns.ttl is not a number"),
    ],
)
def test_bad_lookups_are_rejected(tmp_path, more, reason):
    flows, bad = read(tmp_path, "jamf", lookup(), lookup(**more))
    assert (len(flows), bad) == (1, [("log.json", 2, reason)])


@pytest.mark.parametrize(
    ("name", "row"), [("content_filter", report()), ("zscaler", nss()), ("jamf", lookup())]
)
def test_the_device_table_and_the_device_id_hold_here_too(tmp_path, name, row):
    (flow,), _ = read(tmp_path, name, row, devices=devices(tmp_path))
    assert flow["device_id"] == "udid-1"
    (flow,), _ = read(tmp_path, name, row, device_id="mine")
    assert flow["device_id"] == "mine"
