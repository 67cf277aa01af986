"""Which destinations are on a device's own network."""

import pytest

from appcadence.telemetry.addresses import is_local


@pytest.mark.parametrize(
    "dest",
    [
        *("10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fd00::1", "fc00::"),
        *("169.254.1.1", "fe80::1", "fe80::1%en0", "127.0.0.1", "::1", "224.0.0.251", "239.255.255.250"),
        *("ff02::fb", "255.255.255.255", "0.0.0.0", "::", "::ffff:192.168.1.1"),
        *("printer.local", "_airplay._tcp.local", "printer.local.", "Printer.LOCAL", "localhost"),
        *("printer.lan", "nas.home", "nas.home.arpa", "tv.localdomain", "Router.Internal."),
    ],
)
def test_local(dest):
    assert is_local(dest)


@pytest.mark.parametrize(
    "dest",
    [
        *("9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "172.208.51.75", "192.167.255.255"),
        *("192.169.0.0", "169.255.0.0", "223.255.255.255", "240.0.0.1", "100.64.0.1", "203.0.113.9"),
        *("fb00::1", "2620:149:a44::5", "::ffff:17.57.144.1", "a.example", "local.example", "mylocal"),
        *("printer.lan.example", "e164.arpa", "notlan", "homes", "internal.example"),
        *("", "*", "unknown", "%", ".", "1.local.example", "10.0.0", "10.0.0.1.example"),
    ],
)
def test_not_local(dest):
    assert not is_local(dest)
