"""What is said of devices whose traffic goes through iCloud Private Relay."""

import pyarrow as pa

from appcadence.findings import Finding
from appcadence.serving.run import relayed


def scores(*pairs):
    device, dest = zip(*pairs, strict=True)
    return pa.table({"device_id": pa.array(device), "dest": pa.array(dest).dictionary_encode()})


def test_devices_behind_the_relay_are_counted_once_each():
    seen = scores(
        ("d1", "mask.icloud.com"),
        ("d1", "mask-h2.icloud.com"),
        ("d2", "mask.apple-dns.net"),
        ("d3", "www.icloud.com"),
        ("d3", "mask.icloud.com.example"),
        ("d3", "unmask.icloud.com"),
    )
    assert relayed(seen) == [Finding("private_relay", {"devices": 2, "of": 3})]


def test_nothing_is_said_where_nobody_uses_it():
    assert relayed(scores(("d1", "a.example"))) == []
