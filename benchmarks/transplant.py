"""Recall of real C2 channels moved into the second half of a real benign capture.

transplant.py [--data DIR] [--window 24h] [--seeds N] [--exclude-family NAME]
              [--order later|earlier] [--woken]

Train on the first half of a normal capture (no labels), move each family's C2 channels into its second half
at a seeded offset, score; `--order earlier` swaps the halves in time. With `--woken` each transplanted start
is moved to just after the device's own next start, as an implant's that wakes with it. One threshold over all
cases lets 1, 3 or 10 benign channels a device-day through. Each channel counts once, by its strongest window.
Peers are computed on the same channels. Recall is of channels that can be judged (six flows or a session of
half an hour); "all" also counts the others, as missed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rita import timing_score

from appcadence.features.build import build
from appcadence.features.columns import micros
from appcadence.features.extraction import table_of
from appcadence.features.windows import Windows, window_seconds
from appcadence.models.eligibility import eligible
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.schema import FLOWS, conform
from appcadence.training.train import train

NORMALS = {"normal_a": "147.32.81.167", "normal_b": "147.32.83.234"}
DAY_US = 86_400_000_000
BUDGETS = (1.0, 3.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/labelled"
    )
    parser.add_argument("--window", default="24h")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--exclude-family", action="append", default=[])
    parser.add_argument("--order", choices=("later", "earlier"), default="later")
    parser.add_argument("--woken", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        normals = {name: zeek(options.data / name, ip, Path(scratch)) for name, ip in NORMALS.items()}
        families = _families(options.data, Path(scratch))
    tables = []
    for seed in range(options.seeds):
        cases = [
            case for name, flows in normals.items() for case in _cases(name, flows, families, seed, options)
        ]
        tables.append(pd.concat(cases, ignore_index=True))
    _print(tables, list(families), options)


def _cases(
    name: str,
    flows: pa.Table,
    families: dict[str, pa.Table],
    seed: int,
    options: argparse.Namespace,
) -> list[pd.DataFrame]:
    window = options.window
    if options.order == "earlier":
        flows = _swapped(flows)
    start = micros(flows["start"])
    middle = int(start.min() + start.max()) // 2
    first = flows.filter(pa.array(start < middle))
    second = flows.filter(pa.array(start >= middle))
    detector = train({"flows": first}, window, seed, exclude_families=tuple(options.exclude_family)).detector
    rng = np.random.default_rng(seed)
    out = []
    for family, implant in families.items():
        moved = _moved(implant, second, middle, int(start.max()), rng)
        if options.woken:
            moved = _woken(moved, second, rng)
        both = pa.concat_tables([second, moved]).unify_dictionaries()
        windows = build({"flows": both}, window_seconds(window), detector.history)
        table = table_of(windows)
        scores = detector.score(table).to_pandas()
        rows = pd.DataFrame(
            {
                "dest": scores["dest"],
                "eligible": eligible(table),
                "appcadence": scores["score"],
                "RITA timing": _rita(windows),
                "ratio regularity": np.fmax(table["session_ratio_share_1_3"], table["beat_ratio_share_1_3"]),
                "first seen + count": table["channel_is_new"].fillna(1) * 1e6 + table["n_flows"],
            }
        )
        rows.loc[~rows["eligible"], ["RITA timing", "ratio regularity", "first seen + count"]] = np.nan
        channels = rows.groupby("dest").max().reset_index()
        bad = set(_dests(moved))
        days = (int(start.max()) - middle) / 86_400e6
        out.append(
            channels.assign(malicious=channels["dest"].isin(bad), family=family, normal=name, days=days)
        )
    return out


def _moved(implant: pa.Table, host: pa.Table, begin: int, end: int, rng: np.random.Generator) -> pa.Table:
    """The implant's flows as the host device's, from a seeded moment in the first quarter of the span on."""
    start = micros(implant["start"])
    start = start - start.min() + begin + int(rng.uniform(0, 0.25) * (end - begin))
    device = pa.array([host["device_id"][0].as_py()] * len(start))
    moved = _at(implant, start)
    moved = moved.set_column(
        moved.schema.get_field_index("device_id"), "device_id", device.dictionary_encode()
    )
    return conform(FLOWS, moved.filter(pa.array(start <= end)))


def _swapped(flows: pa.Table) -> pa.Table:
    """The second half of a capture first: whole days are added, so that every hour stays what it was."""
    start = micros(flows["start"])
    middle = int(start.min() + start.max()) // 2
    days = -(-int(start.max() - start.min()) // DAY_US)
    start = np.where(start < middle, start + days * DAY_US, start)
    return _at(flows, start)


def _woken(moved: pa.Table, host: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Each start moved to within five seconds after the device's own next start."""
    own, start = np.sort(micros(host["start"])), micros(moved["start"])
    after = np.searchsorted(own, start)
    wake = np.where(after < len(own), own[np.minimum(after, len(own) - 1)], start)
    return _at(moved, wake + (rng.uniform(0.05, 5.0, len(start)) * 1e6).astype(np.int64))


def _at(flows: pa.Table, start: np.ndarray) -> pa.Table:
    at = flows.schema.get_field_index("start")
    field = flows.schema.field(at)
    return flows.set_column(at, field, pa.array(start).cast(field.type))


def _dests(flows: pa.Table) -> list[str]:
    host, address = flows["dest_host"].cast(pa.string()), flows["dest_ip"].cast(pa.string())
    return pc.unique(pc.coalesce(host, address)).to_pylist()


def _rita(windows: Windows) -> np.ndarray:
    offsets, times = windows.beats
    parts = (times[offsets[g] : offsets[g + 1]] for g in range(windows.n))
    return np.array([timing_score(np.diff(part)) for part in parts])


def zeek(folder: Path, device: str, scratch: Path) -> pa.Table:
    files = sorted(p for p in folder.iterdir() if p.name.split(".")[0] in ("conn", "ssl", "http", "dns"))
    out = scratch / f"{folder.name}-{device.replace('/', '_')}"
    convert(files, out, local_nets=[device if "/" in device else f"{device}/32"])
    return TelemetryDirectory(out).read("flows")


def _families(data: Path, scratch: Path) -> dict[str, pa.Table]:
    """The real C2 flows of each labelled capture."""

    def chosen(name: str, device: str, marker: str) -> pa.Table:
        flows = zeek(data / name, device, scratch)
        lines = next((data / name).glob("conn*")).read_text(errors="replace").splitlines()
        mark = [line for line in lines if marker in line and not line.startswith("#")]
        uids = {line.split("|" if "|" in line else "\t")[1] for line in mark}
        return flows.filter(pc.is_in(flows["source_uid"], pa.array(sorted(uids))))

    android = zeek(data / "androidtester", "10.8.0.61", scratch)
    return {
        "njrat": chosen("njrat", "0.0.0.0/0", "Malicious"),
        "androidtester": android.filter(pc.equal(android["dest_port"], 1337)),
        "iot_hakai": chosen("iot_hakai", "192.168.100.113", "C&C"),
        "iot_mirai": chosen("iot_mirai", "192.168.1.195", "C&C"),
        "empire": _argus(data / "empire" / "flows.argus.csv"),
    }


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


def _recalls(channels: pd.DataFrame, method: str, budget: float, judgeable: bool) -> dict[str, float]:
    score = channels[method].fillna(-np.inf)
    # Each benign channel stands once per family's case; so do the device-days.
    days = channels.groupby(["family", "normal"])["days"].first().sum()
    benign = np.sort(score[~channels["malicious"]])
    allowed = int(budget * days)
    level = benign[-allowed - 1] if allowed < len(benign) else -np.inf
    bad = channels[channels["malicious"] & (channels["eligible"].astype(bool) | (not judgeable))]
    return {f: float((score[part.index] > level).mean()) for f, part in bad.groupby("family")}


def _auc(channels: pd.DataFrame, method: str) -> float:
    part = channels[channels["eligible"].astype(bool)]
    rank = part[method].fillna(-np.inf).rank()
    bad = part["malicious"]
    n, m = int(bad.sum()), int((~bad).sum())
    return float((rank[bad].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def _print(tables: list[pd.DataFrame], families: list[str], options: argparse.Namespace) -> None:
    first = tables[0]
    bad = first[first["malicious"]]
    days = first.groupby("normal")["days"].first()
    later = options.order == "later"
    print(
        f"window {options.window}, {len(tables)} seeds, train on the {'first' if later else 'second'} half, "
        f"{'starts moved to the wake-ups of the device, ' if options.woken else ''}"
        f"excluded: {', '.join(options.exclude_family) or 'nothing'}"
    )
    for name, span in days.items():
        part = first[(first["normal"] == name) & (first["family"] == families[0]) & ~first["malicious"]]
        able = int(part["eligible"].sum())
        print(f"{name}: second half {span:.2f} device-days, {len(part)} benign channels, {able} eligible")
    counts = bad.groupby("family").agg(channels=("dest", "size"), eligible=("eligible", "sum"))
    print(
        "malicious channels (eligible):",
        ", ".join(f"{f} {counts.channels[f]} ({int(counts.eligible[f])})" for f in families),
    )
    print(
        f"\n{'method':20s} {'budget':>6s} {'macro':>12s} {'all':>5s}  "
        + " ".join(f"{f[:10]:>10s}" for f in families)
        + "   AUC"
    )
    for method in ("appcadence", "RITA timing", "ratio regularity", "first seen + count"):
        for budget in BUDGETS:
            each = pd.DataFrame([_recalls(t, method, budget, True) for t in tables])[families]
            every = pd.DataFrame([_recalls(t, method, budget, False) for t in tables])[families].mean(axis=1)
            macro = each.mean(axis=1)
            auc = np.mean([_auc(t, method) for t in tables])
            figures = " ".join(f"{each[f].mean():10.2f}" for f in families)
            print(
                f"{method:20s} {budget:6g} {macro.mean():5.2f} ± {macro.std(ddof=0):4.2f} "
                f"{every.mean():5.2f}  {figures}  {auc:.3f}"
            )


if __name__ == "__main__":
    main()
