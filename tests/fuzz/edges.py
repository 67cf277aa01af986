"""What is fuzzed beside native logs: telemetry directories, bundles, outputs, exceptions, verdicts, evidence,
settings, histories, labels and the spool."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import make
import pyarrow.parquet as pq

from appcadence import config
from appcadence.cli.deliver import _alerts
from appcadence.features.extraction import extract
from appcadence.models import bundle
from appcadence.models.bundle import SHIPPED, reference_model
from appcadence.nightly import read_history, score_directory
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import DirectoryWriter, TelemetryDirectory, write_directory
from appcadence.telemetry.schema import DIRECTORY_TABLES, LABELS, VERDICTS
from appcadence.telemetry.sheet import read_named
from appcadence.telemetry.verdicts import decisions, from_csv, latest_decisions
from appcadence.triage import audit_report, delivery, exceptions, verdicts
from appcadence.triage.audit_log import append, verify
from appcadence.triage.output import reapply
from appcadence.triage.report.page import write_report
from fuzz.shapes import Folder, folders, packed, shaped, unpacked
from fuzz.target import Target

AT = datetime(2025, 1, 10, tzinfo=UTC)
EXCEPTIONS = b"""[groups]
lab = ["d1", "d2"]
[[exception]]
id = "e-1"
owner = "IT"
reason = "known"
business_justification = "needed"
created = 2025-01-01
expires = 2026-01-01
app_id = "com.example.*"
device_group = "lab"
destination = "*.chat.example"
behaviours = ["structured_cadence"]
min_period_seconds = 60
max_bytes_per_day = 1e6
hours = "22:00-06:00"
[[exception]]
id = "e-2"
owner = "IT"
reason = "known"
business_justification = "needed"
created = 2025-01-01
expires = 2026-01-01
destination = "203.0.113.0/24"
"""
SETTINGS = b"""[alerts]
alerts_per_device_day = 2.5
[tunables]
HTTPSCadenceAnomalyThreshold = 0.01
[ranking]
local_destinations = true
"""
DECISIONS = (
    b"device_id,app_id,dest,window_start,window_end,verdict,analyst,justification\n"
    b"d1,com.a,a.example,2025-01-01T00:00:00Z,2025-01-02T00:00:00Z,benign,ann,ours\n"
)


def edges(scratch: Path) -> dict[str, Target]:
    """All of them by name; `scratch` is a directory for their other files."""
    scratch.mkdir(parents=True, exist_ok=True)
    telemetry, model, output = _telemetry(scratch), _model(), _output(scratch)
    found = {
        "telemetry": _folder(telemetry, scratch, "tel", _read_telemetry),
        "bundle": _folder([model], scratch, "model", _read_bundle, _seal),
        "output": _folder([output], scratch, "scored", _read_output),
        "history": _file("history.parquet", output["history.parquet"], read_history),
    }
    labels = LABELS.of_rows(
        [
            dict.fromkeys(LABELS.schema.names)
            | {"device_id": "d1", "dest": "a.example", "start": AT, "end": AT, "label": "malicious"}
        ]
    )
    found["labels"] = _file("labels.parquet", _stored(labels, scratch), lambda path: read_named(path, LABELS))
    found["exceptions"] = _file("exceptions.toml", EXCEPTIONS, exceptions.read)
    found["settings"] = _file("appcadence.toml", SETTINGS, config.read)
    found["decisions"] = _file("decisions.csv", DECISIONS, lambda path: from_csv(path, ["device_id"]))
    sheet = scratch / "decisions.csv"
    sheet.write_bytes(DECISIONS)
    said = decisions(from_csv(sheet, ["device_id"])[0], AT)
    found["verdicts"] = _file(
        "verdicts.parquet",
        _stored(said, scratch),
        lambda path: latest_decisions(read_named(path, VERDICTS)),
    )
    log = scratch / "evidence.jsonl"
    verdicts.record(said, scratch / "v.parquet", log, AT)
    thresholds = {"alerts_per_device_day": 1.0, "false_discovery_rate": None}
    facts = {"days": {"2025-01-10": {"d1": [24.0, 3, 1]}}, "thresholds": thresholds, "blind_spots": []}
    facts |= {
        "model": {"name": None, "given": "m", "bundle": "b"},
        "exceptions": {"windows": {}, "in_force": []},
    }
    append(log, "run", facts, AT)
    found["evidence"] = Target(
        [log.read_bytes()], _read_evidence, suffix=".jsonl", inputs=shaped("x.jsonl", log.read_bytes())
    )
    with delivery.opened(scratch / "spool") as kept:
        kept.add("syslog", [("k", '{"a": 1}'), ("l", "{}")])
    found["spool"] = _folder(
        [{delivery.LEDGER: (scratch / "spool" / delivery.LEDGER).read_bytes()}],
        scratch,
        "spooled",
        _read_spool,
    )
    return found


def _stored(table: object, scratch: Path) -> bytes:
    pq.write_table(table, scratch / "one.parquet", compression="zstd")
    return (scratch / "one.parquet").read_bytes()


def _file(name: str, seed: bytes, read: Callable[[Path], object]) -> Target:
    def step(path: Path) -> int:
        read(path)
        return 0

    return Target([seed], step, suffix=Path(name).suffix, inputs=shaped(name, seed))


def _folder(
    seeds: list[Folder],
    scratch: Path,
    name: str,
    read: Callable[[Path, Path], object],
    seal: Callable[[dict[str, bytes]], None] | None = None,
) -> Target:
    """An input is a packed directory, which is laid out anew under `name` each time."""
    place = scratch / name

    def step(path: Path) -> int:
        shutil.rmtree(place, ignore_errors=True)
        for file, data in unpacked(path.read_bytes()).items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(data)
        place.mkdir(exist_ok=True)
        read(place, scratch)
        return 0

    return Target([packed(seed) for seed in seeds], step, named=name, inputs=folders(seeds, seal))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _telemetry(scratch: Path) -> list[Folder]:
    tables = make.fleet(devices=2, days=1)
    flows = tables["flows"].slice(0, 40)
    every = {name: table.slice(0, 8) for name, table in tables.items()} | {"flows": flows}
    every |= {"usage": make.usage([(0.0, 60.0, 5, 6)])} if "usage" not in every else {}
    write_directory(scratch / "whole", every)
    with DirectoryWriter(scratch / "parts", adding=True) as writer:
        writer.conversion, writer.sources = "a1", [{"file": "conn.log", "format": "zeek", "sha256": "0" * 64}]
        writer.write("flows", flows)
    return [_files(scratch / "whole"), _files(scratch / "parts")]


def _read_telemetry(folder: Path, scratch: Path) -> None:
    directory = TelemetryDirectory(folder)
    tables = {name: directory.read(name) for name in directory.tables()}
    for name in tables:
        for piece in directory.scan(name, 16):
            piece.validate(full=True)
        for read in directory.pieces(name, [c.name for c in DIRECTORY_TABLES[name].columns][:3]):
            read()
    extract(directory, "24h")


def _model() -> Folder:
    return _files(SHIPPED / "reference")


def _seal(files: dict[str, bytes]) -> None:
    try:
        manifest = json.loads(files[bundle.MANIFEST])
        manifest["parts"] = {
            name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != bundle.MANIFEST
        }
        files[bundle.MANIFEST] = json.dumps(manifest).encode()
    except (KeyError, ValueError, TypeError, RecursionError):
        pass


def _read_bundle(folder: Path, scratch: Path) -> None:
    bundle.load(folder)


def _output(scratch: Path) -> Folder:
    score_directory(make.fleet(devices=3, days=2), Scorer(*reference_model()), scratch / "whole-output")
    return _files(scratch / "whole-output")


def _read_output(folder: Path, scratch: Path) -> None:
    _alerts(folder)
    write_report(folder, scratch / "report.html")
    reapply(folder, None)


def _read_evidence(path: Path) -> int:
    verify(path)
    audit_report.report(path, date(2025, 1, 1), date(2025, 2, 1))
    return 0


def _read_spool(folder: Path, scratch: Path) -> None:
    with delivery.opened(folder) as kept:
        kept.add("syslog", [("m", "{}")])
        kept.turn("syslog", delivery.SENDING, delivery.UNSURE)
        for one in kept.waiting("syslog"):
            kept.set_state(one.number, delivery.SENT)
        kept.count(delivery.WAITING, ["syslog"])
