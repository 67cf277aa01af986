"""Real captures, counted independently of the reader."""

from pathlib import Path

import pytest

from appcadence.telemetry.readers import ReadOptions, zeek
from appcadence.telemetry.schema import FLOWS, conform


def read(*paths: Path) -> tuple[list[dict], list[dict]]:
    flows, bad = [], []
    for name, batch in zeek.read(paths, ReadOptions()):
        if name == "flows":
            flows += conform(FLOWS, batch).to_pylist()
        else:
            bad += batch.to_pylist()
    return flows, bad


DEVICE = "147.32.83.234"


def test_a_real_day_gives_every_flow_of_its_device(shared_data):
    folder = shared_data / "labelled" / "normal_b"
    lines = (folder / "conn.log.labeled").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    expected = [row[1] for row in rows if row[2] == DEVICE]
    flows, bad = read(*folder.iterdir())
    assert not bad
    assert [f["source_uid"] for f in flows if f["device_id"] == DEVICE] == expected
    assert sum(f["dest_host"] is not None for f in flows) > 700


@pytest.mark.parametrize(
    ("folder", "count"),
    [
        ("iot_hakai", 10_403),
        ("iot_mirai", 23_145),
        ("njrat", 331),
        ("androidtester", 361),  # four are pushes whose opening the sensor did not see
        ("normal_a", 1_462),
    ],
)
def test_real_captures_convert(shared_data, folder, count):
    flows, bad = read(*(shared_data / "labelled" / folder).iterdir())
    assert (len(flows), bad) == (count, [])


@pytest.mark.parametrize(("form", "count"), [("tsv", 32), ("json", 40)])
def test_real_samples_of_both_forms(shared_data, form, count):
    flows, bad = read(*(shared_data / "zeek").glob(f"*.{form}.*"))
    assert (len(flows), bad) == (count, [])
