"""Look-ups that one device alone sends to one server, by the thousand, are said."""

import numpy as np
import pytest
from make import flows, together

from appcadence.serving.run import COLUMNS, MIN_LOOKUPS, lookup_findings
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert

TUNNEL = "203.0.113.53"


def asked(n, dest=TUNNEL, device="d1"):
    return flows(7.0 * np.arange(n), device, None, None, dest_ip=dest, service="dns")


def others(n, device="d1"):
    return flows(60.0 * np.arange(n), device)


def said(*tables):
    whole = together(*tables).select(list(COLUMNS))
    parts = [lambda k=k: whole.slice(k * 700, 700) for k in range(len(whole) // 700 + 1)]
    return [finding.parameters for finding in lookup_findings(parts) if finding.code == "dns_channel"]


def test_thousands_that_no_other_device_asks_are_said():
    (one,) = said(asked(1500), others(100), others(40, "d2"), asked(900, "198.51.100.1"))
    assert one == {"device": "d1", "dest": TUNNEL, "lookups": 1500, "other_flows": 100}
    assert [p["lookups"] for p in said(asked(1500), asked(1700, "2001:db8::53"))] == [1700, 1500]


@pytest.mark.parametrize(
    "tables",
    [
        [asked(MIN_LOOKUPS - 1)],
        [asked(1500), asked(1, device="d2")],  # a resolver that another device uses, too
        [asked(1500), others(500)],  # as many names as its own traffic needs
        [asked(1500, "192.168.1.1")],  # the network's own resolver
        [others(5000)],
        [],
    ],
)
def test_ordinary_resolvers_are_not(tables):
    assert said(others(10, "d3"), *tables) == []
    assert lookup_findings([]) == []


def test_the_one_of_a_real_capture_is_found(shared_data, tmp_path):
    convert([shared_data / "insitu" / "zetaswitch" / "conn.log"], tmp_path / "t")
    (one,) = lookup_findings(TelemetryDirectory(tmp_path / "t").pieces("flows", list(COLUMNS)))
    assert one.parameters["dest"] == "172.208.51.75" and one.parameters["lookups"] == 11793


def test_devices_with_nothing_but_lookups_are_counted():
    found = lookup_findings(
        [lambda: together(asked(3), asked(5, device="d2"), others(2)).select(list(COLUMNS))]
    )
    assert [(f.code, f.parameters) for f in found] == [("lookups_only", {"devices": 1, "of": 2})]
