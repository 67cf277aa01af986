import shutil
import socket
import struct
import subprocess

import pytest
from flow_samples import lines, load, nf, nf_array
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _lines

NAMES = ("start", "duration_seconds", "dest_ip", "dest_port", "outcome", "bytes_out", "bytes_in", "service")
DEVICE, SERVER = "10.0.0.5:50000", "192.0.2.1:443"


def read(tmp_path, *records, form=nf_array, **options):
    path = tmp_path / "flows.json"
    path.write_bytes(form(*records))
    return load("nfdump", path, **options)


def brief(flow):
    start = flow["start"].isoformat()[11:23]
    return (start, *(flow[name] for name in NAMES[1:]))


BOTH = (
    nf(DEVICE, SERVER, 0.25, 1.25, 260),
    nf(SERVER, DEVICE, 0.269, 1.269, 620),
)


@pytest.mark.parametrize("form", [nf_array, lines])
def test_two_directions_become_one_flow_in_either_order(tmp_path, form):
    for records in (BOTH, BOTH[::-1]):
        flows, bad = read(tmp_path, *records, form=form)
        assert not bad and len(flows) == 1
        assert brief(flows[0]) == ("22:13:20.250", 1.019, "192.0.2.1", 443, "established", 260, 620, None)
        assert (flows[0]["device_id"], flows[0]["transport"]) == ("10.0.0.5", "tcp")
        assert flows[0]["time_resolution_seconds"] == 1e-3


def test_the_fields_of_version_1_6(tmp_path):
    old = [{{"first": "t_first", "last": "t_last"}.get(k, k): v for k, v in r.items()} for r in BOTH]
    assert read(tmp_path, *old) == read(tmp_path, *BOTH)


def test_the_two_directions_may_stand_in_two_files(tmp_path):
    paths = [tmp_path / f"{i}.json" for i in range(2)]
    for path, record in zip(paths, BOTH, strict=True):
        path.write_bytes(nf_array(record))
    for order in (paths, paths[::-1]):
        flows, _ = load("nfdump", *order)
        assert [flow["bytes_in"] for flow in flows] == [620]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # One direction only: nothing is known of the other.
        ([nf(DEVICE, SERVER, 0, 1, 260)], [(260, None, "established")]),
        ([nf(DEVICE, SERVER, 0, 3, 120, flags="......S.")], [(120, None, "failed")]),
        ([nf(SERVER, DEVICE, 0, 1, 620)], []),
        # A refused connection.
        (
            [
                nf(DEVICE, SERVER, 0, 0, 40, flags="......S."),
                nf(SERVER, DEVICE, 0.02, 0.02, 40, flags="...A.R.."),
            ],
            [(40, 40, "failed")],
        ),
        # Opened from outside, also where both begin in the same tick.
        (
            [
                nf("198.51.100.9:6000", "10.0.0.5:22", 0, 0, 40),
                nf("10.0.0.5:22", "198.51.100.9:6000", 0, 0, 40),
            ],
            [],
        ),
        ([nf("10.0.0.5:22", "198.51.100.9:6000", 0, 0, 40, flags="...A..S.")], []),
        # UDP: the answer begins after the question has ended.
        (
            [nf(DEVICE, "192.0.2.3:53", 0, 0, 58, 17), nf("192.0.2.3:53", DEVICE, 0.009, 0.009, 118, 17)],
            [(58, 118, "established")],
        ),
        ([nf(DEVICE, "192.0.2.3:53", 0, 0, 58, 17)], [(58, None, "unknown")]),
        # The same five-tuple again, too late to belong together.
        (
            [nf(DEVICE, SERVER, 0, 1, 260), nf(SERVER, DEVICE, 60, 61, 620)],
            [(260, None, "established")],
        ),
        # NTP keeps its port: each question has its own answer.
        (
            [
                nf(a, b, t + d, t + d, size, 17)
                for t in (0, 64, 128)
                for a, b, d, size in (
                    ("10.0.0.5:123", "192.0.2.9:123", 0, 76),
                    ("192.0.2.9:123", "10.0.0.5:123", 0.02, 77),
                )
            ],
            [(76, 77, "established")] * 3,
        ),
        # Pieces cut by the active timeout; in the second the server's packets come first.
        (
            [
                nf(DEVICE, SERVER, 0, 60, 1),
                nf(SERVER, DEVICE, 0.02, 60, 2),
                nf(SERVER, DEVICE, 60.1, 120, 4, flags="...AP..."),
                nf(DEVICE, SERVER, 60.2, 120, 3, flags="...AP..."),
            ],
            [(1, 2, "established"), (3, 4, "established")],
        ),
        # The export begins in the middle of a connection.
        (
            [
                nf(SERVER, DEVICE, 0, 60, 4, flags="...AP..."),
                nf(DEVICE, SERVER, 0.1, 60, 3, flags="...AP..."),
            ],
            [(3, 4, "established")],
        ),
        # Two connections at once from two ports, and another protocol on the same ports.
        (
            [
                nf(DEVICE, SERVER, 0, 1, 1),
                nf("10.0.0.5:50001", SERVER, 0, 1, 2),
                nf(SERVER, "10.0.0.5:50001", 0.1, 1, 3),
                nf(SERVER, DEVICE, 0.1, 1, 4, 17),
            ],
            [(1, None, "established"), (2, 3, "established")],
        ),
        # A record of both directions.
        ([nf(DEVICE, SERVER, 0, 1, 260) | {"out_bytes": 620}], [(260, 620, "established")]),
        # Events are no flows.
        ([nf(DEVICE, SERVER, 0, 1, 260) | {"type": "EVENT"}], []),
    ],
)
def test_pairing(tmp_path, records, expected):
    flows, bad = read(tmp_path, *records)
    assert not bad
    assert [(flow["bytes_out"], flow["bytes_in"], flow["outcome"]) for flow in flows] == expected


@given(seed=st.randoms(use_true_random=False), pieces=st.lists(st.integers(1, 3), max_size=8))
def test_random_connections_are_put_together(tmp_path_factory, seed, pieces):
    records, truth, begin = [], [], 0.0
    for number, count in enumerate(pieces):
        device = f"10.0.0.{seed.randint(1, 3)}:{50_000 + number}"
        server = f"192.0.2.{seed.randint(1, 3)}:{seed.choice([443, 5223, 80])}"
        begin += seed.random() * 3
        start = begin
        for piece in range(count):
            end = start + 0.01 + 60 * seed.random()
            flags = "...AP..." if piece else "...AP.SF"
            sizes = seed.randint(1, 999), seed.choice([None, seed.randint(1, 999)])
            records.append(nf(device, server, start, end, sizes[0], flags=flags))
            if sizes[1]:
                late = seed.uniform(-0.5, 0.5) if piece else 0.02
                records.append(nf(server, device, start + late, end, sizes[1], flags=flags))
            truth.append(sizes)
            # Far enough that no piece can take the other half of its neighbour.
            start = end + (1.2 if sizes[1] else 30)
    seed.shuffle(records)
    flows, bad = read(tmp_path_factory.mktemp("nf"), *records)
    assert not bad
    key = str
    assert sorted([(f["bytes_out"], f["bytes_in"]) for f in flows], key=key) == sorted(truth, key=key)


def test_ipv6_and_icmp(tmp_path):
    six = nf("fd00:0:0:0:0:0:0:5:50000", "2001:db8:0:0:0:0:0:1:443", 0, 1, 9)
    (flow,), _ = read(tmp_path, six)
    assert (flow["device_id"], flow["dest_ip"]) == ("fd00::5", "2001:db8::1")
    (flow,), _ = read(tmp_path, nf("10.0.0.5:0", "192.0.2.1:2048", 0, 1, 9, 1, "........"))
    assert (flow["transport"], flow["dest_port"], flow["outcome"]) == (None, None, "unknown")


@pytest.mark.parametrize("size", [1, 200, 700, 1 << 20])
def test_the_line_of_a_bad_record_is_its_first(tmp_path, monkeypatch, size):
    monkeypatch.setattr(_lines, "BLOCK_BYTES", size)
    records = [nf(f"10.0.0.5:{50000 + i}", SERVER, i, i, i) for i in range(6)]
    records[2]["in_bytes"] = "many"
    records[4]["first"] = "noon"
    flows, bad = read(tmp_path, *records)
    text = (tmp_path / "flows.json").read_text().splitlines()
    begins = [number for number, line in enumerate(text, 1) if line == "{"]
    assert [flow["bytes_out"] for flow in flows] == [0, 1, 3, 5]
    assert bad == [
        ("flows.json", begins[2], "in_bytes is not a whole number"),
        ("flows.json", begins[4], "first is not a time"),
    ]


def test_a_torn_array_keeps_the_good_records(tmp_path):
    path = tmp_path / "flows.json"
    path.write_bytes(nf_array(*BOTH, nf("10.0.0.5:1", SERVER, 0, 0, 1))[:-90])
    flows, bad = load("nfdump", path)
    assert len(flows) == 1
    assert [reason for _, _, reason in bad] == ["not a JSON object"]


def test_an_empty_array_is_valid(tmp_path):
    assert read(tmp_path) == ([], [])


NEWER = """firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,packets,bytes,flows
2023-11-14 22:13:20.250,1.000,6,10.0.0.5,50000,192.0.2.1,443,4,260,1
2023-11-14 22:13:20.269,1.000,6,192.0.2.1,443,10.0.0.5,50000,3,620,1
2023-11-14 22:13:21.000,long,TCP,10.0.0.5,50001,192.0.2.1,443,3,620,1
"""


def test_the_newer_csv_as_its_source_code_prints_it(tmp_path):
    path = tmp_path / "flows.csv"
    path.write_text(NEWER)
    flows, bad = load("nfdump", path)
    # Without flags an answer may be a refusal.
    assert [brief(flow)[:2] + brief(flow)[4:7] for flow in flows] == [
        ("22:13:20.250", 1.019, "unknown", 260, 620)
    ]
    assert bad == [("flows.csv", 4, "duration is not a number")]


def test_the_fast_csv_counts_milliseconds(tmp_path):
    path = tmp_path / "flows.csv"
    path.write_text(
        "cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,output,flags,srcTos,"
        "packets,bytes\n"
        "1,2,1700000000250,1700000001250,6,10.0.0.5,50000,192.0.2.1,443,0,0,0,0,...AP.SF,0,4,260\n"
        "2,2,1700000000269,1700000001269,6,192.0.2.1,443,10.0.0.5,50000,0,0,0,0,...AP.SF,0,4,620\n"
    )
    ((flow,), bad) = load("nfdump", path)
    assert not bad and flow["start"].isoformat() == "2023-11-14T22:13:20.250000+00:00"
    known = ("duration_seconds", "outcome", "bytes_out", "bytes_in", "time_resolution_seconds")
    assert [flow[name] for name in known] == [1.019, "established", 260, 620, 1e-3]


def packet(src, dst, sp, dp, flags=None, data=b""):
    if flags is None:
        proto, head = 17, struct.pack(">HHHH", sp, dp, 8 + len(data), 0)
    else:
        proto, head = 6, struct.pack(">HHIIBBHHH", sp, dp, 1, 1, 0x50, flags, 1000, 0, 0)
    length = 20 + len(head) + len(data)
    ends = socket.inet_aton(src) + socket.inet_aton(dst)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 1, 0, 64, proto, 0) + ends
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + ip[12:]
    return bytes(12) + b"\x08\0" + ip + head + data


@pytest.fixture(params=["json", "csv"])
def real(tmp_path, request):
    """A print of the real nfdump, from a capture written here."""
    if not shutil.which("nfpcapd") or not shutil.which("nfdump"):
        pytest.skip("nfpcapd and nfdump are not installed")
    a, b = "10.0.0.5", "192.0.2.1"
    packets = [
        (0.25, packet(a, b, 5000, 443, 2)),
        (0.27, packet(b, a, 443, 5000, 18)),
        (0.35, packet(a, b, 5000, 443, 24, b"x" * 100)),
        (0.45, packet(b, a, 443, 5000, 24, b"y" * 500)),
        (1.25, packet(a, b, 5000, 443, 17)),
        (1.27, packet(b, a, 443, 5000, 17)),
        (10.0, packet(a, "192.0.2.2", 5001, 443, 2)),
        (12.0, packet(a, "192.0.2.2", 5001, 443, 2)),
        (20.0, packet(a, "192.0.2.3", 5002, 53, data=b"q" * 30)),
        (20.1, packet("192.0.2.3", a, 53, 5002, data=b"r" * 90)),
        (30.0, packet("198.51.100.9", a, 6000, 22, 2)),
        (30.1, packet(a, "198.51.100.9", 22, 6000, 20)),
    ]
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for time, data in packets:
        stamp = 1_700_000_000 + int(time), round(time % 1 * 1e6)
        capture += struct.pack("<IIII", *stamp, len(data), len(data)) + data
    (tmp_path / "capture.pcap").write_bytes(capture)
    (tmp_path / "nf").mkdir()
    command = ["nfpcapd", "-r", "capture.pcap", "-w", "nf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    (binary,) = (tmp_path / "nf").iterdir()
    command = ["nfdump", "-r", str(binary), "-o", request.param]
    printed = subprocess.run(command, env={"TZ": "UTC"}, check=True, capture_output=True, timeout=30)
    path = tmp_path / "flows"
    path.write_bytes(printed.stdout)
    return request.param, path


def test_what_the_real_tool_prints(real):
    form, path = real
    flows, bad = load("nfdump", path)
    found = {flow["dest_ip"]: brief(flow) for flow in flows}
    assert not bad and set(found) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    ms = form == "json"
    # The legacy CSV has whole seconds; nfpcapd itself is off by up to a millisecond.
    (start, duration, *rest) = found["192.0.2.1"]
    assert start.startswith("22:13:20.250" if ms else "22:13:20+")
    assert abs(duration - (1.02 if ms else 1.0)) < 0.002
    # 100 and 500 bytes of payload, and 40 of headers a packet.
    assert rest == ["192.0.2.1", 443, "established", 220, 620, None]
    assert found["192.0.2.2"][4:] == ("failed", 80, None, None)
    assert found["192.0.2.3"][4:] == ("established", 58, 118, "dns")
    assert {flow["time_resolution_seconds"] for flow in flows} == {1e-3 if ms else 1.0}
