"""Real captures as canonical flows: benign devices, real C2 channels, and how both are moved in time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features.columns import micros
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.schema import FLOWS, conform

DATA = Path(__file__).resolve().parents[2] / "shared/data"
DAY_US = 86_400_000_000
NORMALS = {"normal_a": "147.32.81.167", "normal_b": "147.32.83.234"}
PC = "192.168.2.115"
IN_SITU = {"numinon": "64.23.212.29", "zetaswitch": "172.208.51.75"}
"""Captures of one PC and the address of the C2 that lives on it."""


def normals(data: Path) -> dict[str, pa.Table]:
    """Benign flows of the two labelled PCs."""
    return {name: _converted(data / "labelled" / name, ip) for name, ip in NORMALS.items()}


def phone(data: Path) -> pa.Table:
    """A day of an Android phone."""
    return _converted(data / "mobile", "10.8.0.69")


def in_situ(data: Path) -> dict[str, pa.Table]:
    """Two days of one PC, the C2 beside its own traffic."""
    return {name: _converted(data / "insitu" / name, PC) for name in IN_SITU}


def families(data: Path) -> dict[str, pa.Table]:
    """The real C2 flows of each labelled capture."""

    def chosen(name: str, device: str, marker: str) -> pa.Table:
        folder = data / "labelled" / name
        flows = _converted(folder, device)
        lines = next(folder.glob("conn*")).read_text(errors="replace").splitlines()
        marked = [line for line in lines if marker in line and not line.startswith("#")]
        uids = {line.split("|" if "|" in line else "\t")[1] for line in marked}
        return flows.filter(pc.is_in(flows["source_uid"], pa.array(sorted(uids))))

    android = _converted(data / "labelled/androidtester", "10.8.0.61")
    return {
        "njrat": chosen("njrat", "0.0.0.0/0", "Malicious"),
        "androidtester": android.filter(pc.equal(android["dest_port"], 1337)),
        "iot_hakai": chosen("iot_hakai", "192.168.100.113", "C&C"),
        "iot_mirai": chosen("iot_mirai", "192.168.1.195", "C&C"),
        "empire": _argus(data / "labelled/empire/flows.argus.csv"),
    }


def halves(flows: pa.Table, order: str) -> tuple[pa.Table, pa.Table]:
    """The two halves of a capture by time; with the order `earlier` the second comes first."""
    start = micros(flows["start"])
    middle = int(start.min() + start.max()) // 2
    first, second = flows.filter(pa.array(start < middle)), flows.filter(pa.array(start >= middle))
    return (first, second) if order == "later" else (second, first)


def ending(flows: pa.Table, day_us: int) -> pa.Table:
    """Whole days are added, so that the last flow starts in the day before `day_us`."""
    start = micros(flows["start"])
    return at(flows, start + (day_us - 1) // DAY_US * DAY_US - int(start.max()) // DAY_US * DAY_US)


def beginning(flows: pa.Table, day_us: int) -> pa.Table:
    """Whole days are added, so that the first flow starts in the day from `day_us`."""
    start = micros(flows["start"])
    return at(flows, start + day_us - int(start.min()) // DAY_US * DAY_US)


def moved(implant: pa.Table, host: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The implant's flows as the host device's, from a seeded moment in the first quarter of its span on."""
    own, start = micros(host["start"]), micros(implant["start"])
    begin, end = int(own.min()), int(own.max())
    start = start - start.min() + begin + int(rng.uniform(0, 0.25) * (end - begin))
    return owned(at(implant, start), str(host["device_id"][0])).filter(pa.array(start <= end))


def owned(flows: pa.Table, device: str) -> pa.Table:
    """The flows as those of a device."""
    column = pa.array([device] * len(flows), pa.string()).dictionary_encode()
    return conform(FLOWS, flows.set_column(flows.schema.get_field_index("device_id"), "device_id", column))


def at(flows: pa.Table, start_us: np.ndarray) -> pa.Table:
    """The flows with other starts."""
    place = flows.schema.get_field_index("start")
    field = flows.schema.field(place)
    return flows.set_column(place, field, pa.array(start_us).cast(field.type))


def joined(*parts: pa.Table) -> pa.Table:
    """Flows of several devices in one table."""
    return pa.concat_tables([conform(FLOWS, part) for part in parts]).unify_dictionaries()


def dests(flows: pa.Table) -> list[str]:
    """Distinct destinations."""
    host, address = flows["dest_host"].cast(pa.string()), flows["dest_ip"].cast(pa.string())
    return pc.unique(pc.coalesce(host, address)).to_pylist()


def without(flows: pa.Table, address: str) -> pa.Table:
    """The flows that go elsewhere."""
    return flows.filter(pc.fill_null(pc.not_equal(flows["dest_ip"].cast(pa.string()), address), True))


def _converted(folder: Path, device: str) -> pa.Table:
    kinds = ("conn", "ssl", "http", "dns", "android_24h")
    files = sorted(path for path in folder.iterdir() if path.name.split(".")[0] in kinds)
    with tempfile.TemporaryDirectory() as scratch:
        convert(files, Path(scratch), local_nets=[device if "/" in device else f"{device}/32"])
        return TelemetryDirectory(scratch).read("flows")


def _argus(path: Path) -> pa.Table:
    rows = pd.read_csv(path)
    sent = rows["SrcBytes"]
    table = pd.DataFrame(
        {
            "start": pd.to_datetime((rows["StartTime"] * 1e6).astype("int64"), unit="us", utc=True),
            "duration_seconds": rows["Dur"],
            "device_id": "empire",
            "app_attribution": "none",
            "dest_ip": rows["DstAddr"],
            "dest_port": rows["Dport"].astype("Int32"),
            "transport": rows["Proto"],
            "outcome": "established",
            "bytes_out": sent,
            "bytes_in": rows["TotBytes"] - sent,
            "time_resolution_seconds": 1e-6,
            "source": "argus",
        }
    )
    return conform(FLOWS, pa.Table.from_pandas(table, preserve_index=False))
