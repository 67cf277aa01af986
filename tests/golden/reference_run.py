"""A reference run of the whole product on one simulated fleet, and what it must go on computing.

    python tests/golden/reference_run.py check            # against reference.json beside this file
    python tests/golden/reference_run.py check --out DIR  # and keep the run
    python tests/golden/reference_run.py write            # take today's outcome as the reference

The run: simulate, train, score two nights under exceptions and thresholds (the second from the history of
the first), put the second under no exceptions, record verdicts, train again with them, score as a stream,
explain, sum up the evidence. Of each column of what it wrote the reference holds a digest to the bit, and of
columns of numbers also their sum, which other processors and libraries may move by a last digit. Sentences
are no part of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("reference.json")
DEVICES, DAYS, SEED = 14, 6, 11
KEY = ["device_id", "app_id", "dest", "window_start"]
TABLES = (
    *("scores", "measures", "fleet_events", "history", "cases", "window_facts", "sessions", "context"),
    "exceptions",
)
WORDS = {"summary", "reasons", "unchecked", "explained_by", "findings", "codes", "model_version"}
"""Columns that hold sentences, or what words them."""
PLACES = {"rank"}
"""What a stream, which sees one window after the other, cannot know."""
NOT_COMPUTED = {
    *("digest", "scores_sha256", "file_sha256", "bundle", "version", "given", "decided_at"),
    *("blind_spots", "fleet_events"),
}
"""Facts that change with paths, versions, times or words."""
LIBRARIES = ("numpy", "pandas", "pyarrow", "numba", "scikit-learn", "lightgbm")
EXCEPTIONS = """
[[exception]]
id = "mail-sync"
owner = "Mail team"
reason = "Polls"
business_justification = "Mail"
created = 2026-01-01
expires = 2027-01-01
app_id = "com.{vendor}.*"

[[exception]]
id = "slow-only"
owner = "Network team"
reason = "Known heartbeat"
business_justification = "Monitoring"
created = 2026-01-01
expires = 2027-01-01
app_id = "{app}"
min_period_seconds = 40000
max_bytes_per_day = 1000
hours = "22:00-06:00"

[[exception]]
id = "over-and-done"
owner = "Nobody"
reason = "Expired"
business_justification = "None"
created = 2026-01-01
expires = 2026-01-02
app_id = "{app}"
"""
CONFIG = """
[alerts]
alerts_per_device_day = 2.0

[tunables]
HTTPSCadenceAnomalyThreshold = 0.2
"""


def run(place: Path) -> dict[str, Any]:
    """Everything that is compared: of each column a digest and, of numbers, a sum."""
    telemetry = place / "telemetry"
    _command("simulate", "--out", telemetry, "--devices", DEVICES, "--days", DAYS, "--seed", SEED)
    starts = pq.read_table(telemetry / "flows.parquet", columns=["start"])["start"]
    first = pd.Timestamp(pc.min(starts).as_py()).floor("D")
    cut, night = (str((first + pd.Timedelta(days=d)).date()) for d in (DAYS // 2, DAYS - 1))
    _part(telemetry, place / "past", before=pd.Timestamp(cut, tz="UTC"))
    _part(telemetry, place / "later", since=pd.Timestamp(cut, tz="UTC"))
    _command("train", place / "past", "--out", place / "model", "--seed", 3)
    later, model = place / "later", place / "model"
    _command("score", later, "--model", model, "--out", place / "plain", "--until", night)
    (place / "exceptions.toml").write_text(_exceptions(place / "plain"))
    (place / "config.toml").write_text(CONFIG)
    settings = ("--exceptions", place / "exceptions.toml", "--config", place / "config.toml")
    evidence = ("--evidence", place / "evidence.jsonl")
    common = (later, "--model", model, *settings, *evidence)
    _command("score", *common, "--out", place / "night1", "--until", night)
    history = place / "night1" / "history.parquet"
    _command("score", *common, "--out", place / "night2", "--since", night, "--history", history)
    _command(
        "verdict",
        "add",
        place / "plain",
        "--rank",
        1,
        *_verdict("malicious"),
        "--into",
        place / "verdicts.parquet",
        *evidence,
    )
    _command(
        "verdict",
        "add",
        place / "plain",
        "--rank",
        9,
        *_verdict("benign"),
        "--into",
        place / "verdicts.parquet",
        *evidence,
    )
    _command("score", "--reapply", "--out", place / "night2", *evidence)
    _command("train", later, "--verdicts", place / "verdicts.parquet", "--out", place / "taught", "--seed", 3)
    _command("features", later, "--out", place / "features.parquet", "--window", "6h")
    _command(
        "report", place / "night1", "--html", place / "report.html", "--verdicts", place / "verdicts.parquet"
    )
    found: dict[str, Any] = {}
    for name in ("plain", "night1", "night2"):
        for table in TABLES:
            found |= _columns(f"{name}/{table}", pq.read_table(place / name / f"{table}.parquet"))
    found |= _columns("features", pq.read_table(place / "features.parquet"))
    found |= _columns("stream", _stream(place))
    for name in ("model", "taught"):
        manifest = json.loads((place / name / "manifest.json").read_text())
        for part in (
            "parts",
            "card",
            "features",
        ):  # not the id of the schema, which hashes what features mean
            found[f"{name}/bundle/{part}"] = _of([manifest[part]])
    for number, line in enumerate((place / "evidence.jsonl").read_text().splitlines()):
        found |= _facts(f"evidence/{number}", json.loads(line)["facts"])
    week = _command(
        "evidence", "report", place / "evidence.jsonl", "--from", cut, "--to", "2027-01-01", "--json"
    )
    weeks = [
        w | {"blind_spots": len(w["blind_spots"]), "models": len(w["models"])}
        for w in json.loads(week)["weeks"]
        if w["runs"]
    ]
    found |= _facts("audit", {"weeks": weeks})
    explained = json.loads(_command("explain", place / "night1", "--rank", 2, "--json"))
    return found | _facts("explained", {k: v for k, v in explained.items() if k not in WORDS | {"ask"}})


def _command(*arguments: Any) -> str:
    code = "from appcadence.cli import main; main()"
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"appcadence {' '.join(map(str, arguments))} failed: {done.stderr[-2000:]}")
    return done.stdout


def _verdict(verdict: str) -> tuple[str, ...]:
    return ("--verdict", verdict, "--analyst", "ana", "--justification", "reference run")


def _part(
    source: Path, out: Path, *, before: pd.Timestamp | None = None, since: pd.Timestamp | None = None
) -> None:
    out.mkdir()
    for file in source.glob("*.parquet"):
        table = pq.read_table(file)
        if file.name == "flows.parquet":
            if before is not None:
                table = table.filter(pc.less(table["start"], pa.scalar(before, table["start"].type)))
            if since is not None:
                table = table.filter(pc.greater_equal(table["start"], pa.scalar(since, table["start"].type)))
        pq.write_table(table, out / file.name)


def _exceptions(scored: Path) -> str:
    """Exceptions that cover some of the first windows, and some that do not hold."""
    rows = pq.read_table(scored / "scores.parquet", columns=["rank", "app_id"]).to_pandas()
    apps = rows[rows["rank"].notna() & rows["app_id"].notna()].sort_values("rank")["app_id"].unique()
    return EXCEPTIONS.format(
        vendor=apps[0].split(".")[1], app=next(a for a in apps if a.split(".")[1] != apps[0].split(".")[1])
    )


def _stream(place: Path) -> pa.Table:
    """The first night's windows once more, from flows that come six hours at a time."""
    from appcadence.serving import Scorer

    scorer = Scorer.load(place / "model")
    tables = {f.stem: pq.read_table(f) for f in (place / "later").glob("*.parquet")}
    flows, out = tables.pop("flows").sort_by("start"), []
    around = {name: tables[name] for name in ("activity", "notifications", "inventory") if name in tables}
    first = pd.Timestamp(flows["start"][0].as_py()).floor("D")
    last = pd.Timestamp(flows["start"][-1].as_py())
    for k in range(int((last - first) / pd.Timedelta(hours=6)) + 1):
        begin, end = (first + pd.Timedelta(hours=6 * (k + i)) for i in (0, 1))
        limits = [pa.scalar(t, flows["start"].type) for t in (begin, end)]
        mine = pc.and_(pc.greater_equal(flows["start"], limits[0]), pc.less(flows["start"], limits[1]))
        out.append(scorer.update(flows.filter(mine), until=end, **(around if k == 0 else {})))
    out = [part for part in out if len(part)]
    rows = pd.concat([part.astype(dict.fromkeys(KEY[:3], object)) for part in out], ignore_index=True)
    return pa.Table.from_pandas(
        rows.drop(columns=list(PLACES | WORDS), errors="ignore"), preserve_index=False
    )


def _columns(name: str, table: pa.Table) -> dict[str, Any]:
    keys = [k for k in KEY if k in table.column_names]
    out: dict[str, Any] = {}
    if name == "features" or name == "stream":
        order = (
            table.select(keys)
            .to_pandas()
            .astype(dict.fromkeys(keys, str))
            .sort_values(keys, kind="stable")
            .index
        )
        table = table.take(pa.array(order))
    for column in table.column_names:
        if column in WORDS:
            continue
        values = table[column]
        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        out[f"{name}/{column}"] = _of(plain.to_pylist())
    return out


def _facts(name: str, facts: Any) -> dict[str, Any]:
    """The numbers and names among facts, by their path."""
    if name.rsplit("/", 1)[-1] in NOT_COMPUTED or (isinstance(facts, str) and " " in facts):
        return {}
    if isinstance(facts, dict):
        return {k: v for key in sorted(facts) for k, v in _facts(f"{name}/{key}", facts[key]).items()}
    return {name: _of(facts if isinstance(facts, list) else [facts])}


def _of(values: list[Any]) -> dict[str, Any]:
    """A digest to the bit and, of numbers, their count and sum."""
    text = json.dumps(values, default=str, sort_keys=True)
    found: dict[str, Any] = {"digest": hashlib.sha256(text.encode()).hexdigest()[:16], "rows": len(values)}
    numbers = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return found | ({"sum": math.fsum(numbers)} if numbers else {})


def setting() -> dict[str, str]:
    """What may move a last digit: the libraries and the processor."""
    kind = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    return {name: version(name) for name in LIBRARIES} | {
        "python": platform.python_version(),
        "processor": kind,
    }


def differences(found: dict[str, Any], reference: dict[str, Any], bits: bool) -> list[str]:
    """Columns that differ; without `bits` sums may by a millionth, and what has no sum must be equal."""
    out = [f"{name}: gone" for name in reference if name not in found]
    for name, new in found.items():
        old = reference.get(name)
        if old is None:
            out.append(f"{name}: new")
        elif bits or "sum" not in old:
            if new["digest"] != old["digest"] and (
                bits or not name.endswith(("/bundle/parts", "/contributions"))
            ):
                out.append(f"{name}: differs ({old.get('sum')} before, {new.get('sum')} now)")
        elif not math.isclose(new.get("sum", math.nan), old["sum"], rel_tol=1e-6, abs_tol=1e-6):
            out.append(f"{name}: {old['sum']} before, {new.get('sum')} now")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["check", "write"])
    parser.add_argument("--out", type=Path, help="keep the run here; must not exist")
    parser.add_argument("--reference", type=Path, default=FILE)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = asked.out or Path(scratch)
        place.mkdir(exist_ok=asked.out is None)
        found = run(place)
    if asked.what == "write":
        asked.reference.write_text(
            json.dumps({"setting": setting(), "columns": found}, indent=0, sort_keys=True) + "\n"
        )
        print(f"{len(found)} columns and facts written to {asked.reference}")
        return 0
    kept = json.loads(asked.reference.read_text())
    bits = kept["setting"] == setting()
    wrong = differences(found, kept["columns"], bits)
    print(
        "\n".join(wrong)
        if wrong
        else f"{len(found)} columns and facts are equal"
        + (" to the bit" if bits else " (sums to 1e-6: another machine)")
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
