"""Times without a UTC offset are read as UTC, which the user is told unless it is certain."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers._flows import AS_UTC

MAP = '[columns]\nstart = "t"\ndevice_id = "d"\ndest_host = "h"\n'
NFDUMP = "firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,packets,bytes,flows\n"
ARGUS = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes\n"
SRX = (
    "<14>1 {} srx RT_FLOW - RT_FLOW_SESSION_CLOSE [junos@2636.1.1.1.2.129 "
    'source-address="192.168.1.2" source-port="5000" destination-address="192.0.2.1" '
    'destination-port="443" protocol-id="6" elapsed-time="3" bytes-from-client="7" bytes-from-server="9"]\n'
)


def notes(path, place, **options):
    report = convert([path], place / "out", **options)
    assert report.tables["flows"] == 1
    return [note for note in report.notes if AS_UTC in note]


@pytest.mark.parametrize(
    ("time", "stated", "told"),
    [
        ("2026-03-02 10:00:00", "", True),
        ("2026-03-02 10:00:00", '[time]\noffset = "+00:00"\n', False),
        ("Mar 02 2026 10:00:00", '[time]\nformat = "%b %d %Y %H:%M:%S"\n', True),
        ("2026-03-02T10:00:00Z", "", False),
        ("2026-03-02T10:00:00.5+0100", "", False),
        ("1772445600", "", False),
    ],
)
def test_a_mapped_table(time, stated, told, tmp_path):
    table, mapping = tmp_path / "log.csv", tmp_path / "map.toml"
    table.write_text(f"t,d,h\n,phone,a.example\n{time},phone,a.example\n")
    mapping.write_text(MAP + stated)
    assert notes(table, tmp_path, format="table", mapping=mapping) == (
        [f"log.csv: {AS_UTC}."] if told else []
    )


@pytest.mark.parametrize("zone", ["UTC", None])
def test_a_parquet_table(zone, tmp_path):
    start = pa.array([datetime(2026, 3, 2, 10, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    rows = {"t": start.cast(pa.timestamp("us", zone)), "d": ["phone"], "h": ["a.example"]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    (tmp_path / "map.toml").write_text(MAP)
    found = notes(tmp_path / "log.parquet", tmp_path, format="table", mapping=tmp_path / "map.toml")
    assert bool(found) is (zone is None)


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (ARGUS + "2026-03-02 10:00:00.5,1.0,tcp,192.168.1.2,5000,->,192.0.2.1,443,CON,9,900,500\n", True),
        (ARGUS + "1772445600.5,1.0,tcp,192.168.1.2,5000,->,192.0.2.1,443,CON,9,900,500\n", False),
        (NFDUMP + "2026-03-02 10:00:00.500,1.0,TCP,192.168.1.2,5000,192.0.2.1,443,9,900,1\n", True),
        (SRX.format("2026-03-02T10:00:00.5Z"), False),
    ],
    ids=["argus", "argus, counted", "nfdump", "juniper"],
)
def test_other_formats(log, told, tmp_path):
    (tmp_path / "log").write_text(log)
    assert bool(notes(tmp_path / "log", tmp_path)) is told
