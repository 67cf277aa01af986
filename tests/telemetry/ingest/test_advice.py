"""What is said of rows that are left out as those of others, where they may be phones after all."""

import pytest
from test_each_once import HEAD, row

from appcadence.errors import TelemetryError
from appcadence.telemetry.ingest.convert import convert

HOME = [row(f"H{i}", i * 9.0, 5000 + i) for i in range(5)]


def told(tmp_path, devices, **options):
    rows = [row(f"C{i}", 1000 + i * 9.0, 6000, device=device) for i, device in enumerate(devices)]
    (tmp_path / "conn.log").write_text(HEAD + "".join([*HOME, *rows]))
    report = convert([tmp_path / "conn.log"], tmp_path / "out", **options)
    assert report.fates == {"kept": 5, "elsewhere": len(devices)}
    return report.notes


def test_phones_of_ipv6_are_named_with_their_networks(tmp_path):
    devices = [f"2001:db8:9:{net}::{host:x}" for net in (1, 2) for host in range(1, 5)]
    (note,) = told(tmp_path, devices)
    assert note == (
        "8 rows left out were opened by IPv6 addresses, which phones have beside IPv4 addresses, in "
        "2001:db8:9:1::/64, 2001:db8:9:2::/64: if your devices are there, convert into a new directory with "
        "--local-net 2001:db8:9:1::/64 --local-net 2001:db8:9:2::/64 and the networks of their other "
        "addresses."
    )


@pytest.mark.parametrize(
    "devices",
    [
        [f"2001:db8:9:{net:x}::1" for net in range(40)],  # the world
        ["192.0.2.9", "198.51.100.3"] * 5,
        ["fe80::1"] * 3,
    ],
)
def test_the_rest_of_the_world_looks_like_nobodys_phones(tmp_path, devices):
    rows = [row(f"C{i}", 1000 + i * 9.0, 6000, device=device) for i, device in enumerate(devices)]
    (tmp_path / "conn.log").write_text(HEAD + "".join([*HOME, *rows]))
    assert convert([tmp_path / "conn.log"], tmp_path / "out").notes == ()


def test_private_networks_that_were_not_given(tmp_path):
    devices = ["192.168.7.3", "192.168.7.4", "100.64.1.2", "192.0.2.1"]
    (note,) = told(tmp_path, devices, local_nets=["10.0.0.0/8"])
    assert note.startswith(
        "3 rows left out were opened by private addresses in 192.168.7.0/24, 100.64.1.0/24:"
    )
    assert note.endswith("--local-net 192.168.7.0/24 --local-net 100.64.1.0/24, too.")


def test_where_no_row_counts_the_networks_there_are_named(tmp_path):
    (tmp_path / "conn.log").write_text(HEAD + "".join(HOME))
    with pytest.raises(TelemetryError, match=r"your devices, which may be 10\.0\.0\.0/24$") as error:
        convert([tmp_path / "conn.log"], tmp_path / "out", local_nets=["172.16.0.0/12"])
    assert error.value.argument == "local_nets"
    # Connections from outside stay such, whatever networks are given.
    (tmp_path / "in.log").write_text(HEAD + row("A", device="192.0.2.7").replace("192.0.2.1\t", "10.0.0.9\t"))
    with pytest.raises(TelemetryError, match="give the logs of connections that your devices open") as error:
        convert([tmp_path / "in.log"], tmp_path / "out", local_nets=["10.0.0.0/8"])
    assert error.value.argument is None
