"""Known implants, grafted as flows into telemetry: simulated, or a user's own benign baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence.telemetry.schema import FLOWS, conform
from appcadence.telemetry.simulate.behaviours import KINDS, Pattern, Scene, coupled

_COUPLED_SHARE = 0.4
_NEW_SHARE = 0.5
_CARRIER_SIZES_SHARE = 0.5
_WORDS = [
    "sync",
    "api",
    "edge",
    "cdn",
    "data",
    "metrics",
    "static",
    "cloud",
    "gate",
    "relay",
    "node",
    "mesh",
    "pixel",
    "nova",
    "orbit",
    "delta",
    "prime",
    "vertex",
    "lumen",
    "quanta",
    "harbor",
    "cobalt",
    "ember",
    "lattice",
    "signal",
    "beacon",
    "atlas",
    "kite",
    "fern",
    "onyx",
    "raven",
    "tidal",
]
_ZONES = ("com", "net", "io", "app", "org", "info", "co")
_PORTS = np.array([443, 443, 443, 443, 443, 443, 80, 8443, 8080, 5223, 4444, 1337, 8883, 6667])

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Destination:
    host: str | None
    ip: str | None
    port: int | None
    transport: str | None
    service: str | None


def inject(
    tables: Mapping[str, pa.Table],
    seed: int,
    *,
    per_device_day: float,
    kinds: Sequence[str] = tuple(KINDS),
    start: int | None = None,
    end: int | None = None,
) -> tuple[pa.Table, pd.DataFrame]:
    """Flows of implants that live inside the apps (or, without app names, on the devices) of `tables`.

    Between `start` and `end` (microseconds since the epoch; default the span of the flows) about
    `per_device_day` implants a device-day begin. Each copies its carrier's source, attribution, time grid and
    gaps in knowledge. Half of them contact nothing that was not contacted before, half use the carrier's own
    sizes, two in five start when the device does. Push-triggered kinds need pushes of the carrier, and are
    replaced by another kind where there are none.

    Returns the implants' flows (canonical) and one row an implant: device_id, app_id (None = unknown), dest,
    dests, kind, start_us, end_us, difficulty, period_seconds, jitter_ratio, missed_ratio, coupled,
    new_destination, carrier_sizes, flows. Equal input and seed give equal output.
    """
    rng = np.random.default_rng(seed)
    fleet = _Fleet(tables, start, end)
    specs: list[dict[str, Any]] = []
    parts: list[pd.DataFrame] = []
    days = (fleet.last - fleet.first) / 86_400e6
    expected = per_device_day * float(days.sum())
    count = int(expected) + int(rng.random() < expected % 1)
    for device in (
        rng.choice(len(days), count, p=days / days.sum()) if expected > 0 and days.sum() > 0 else []
    ):
        made = _one(
            rng, fleet, int(device), str(rng.choice(list(kinds))), [k for k in kinds if k != "push_burst"]
        )
        if made is not None:
            specs.append({"implant_id": len(specs)} | made[0])
            parts.append(made[1])
    columns = ["implant_id", "device_id", "app_id", "dest", "dests", "kind", "start_us", "end_us"]
    if not parts:
        return FLOWS.empty(), pd.DataFrame(columns=columns)
    rows = pd.concat(parts, ignore_index=True)
    rows["start"] = pd.to_datetime(rows["start"], unit="us", utc=True)
    rows["dest_port"] = rows["dest_port"].astype("Int32")
    for name in ("bytes_out", "bytes_in"):
        rows[name] = rows[name].round().astype("Int64")
    return conform(FLOWS, pa.Table.from_pandas(rows, preserve_index=False)), pd.DataFrame(specs)


class _Fleet:
    """The benign telemetry as arrays, ordered by device, app and time."""

    def __init__(self, tables: Mapping[str, pa.Table], start: int | None, end: int | None) -> None:
        names = [c.name for c in FLOWS.columns if c.name not in ("source_uid", "dest_host_source")]
        flows = tables["flows"].select(names).to_pandas()
        flows = flows[flows["service"].astype(object) != "dns"]
        flows["start"] = flows["start"].dt.as_unit("us").astype("int64")
        low = flows["start"].min() if start is None else start
        high = flows["start"].max() + 1 if end is None else end
        flows = flows[(flows["start"] >= low) & (flows["start"] < high)]
        for name in (
            "device_id",
            "app_id",
            "dest_host",
            "dest_ip",
            "transport",
            "service",
            "source",
            "app_attribution",
        ):
            flows[name] = flows[name].astype(object).where(flows[name].notna(), None)
        self.device, self.devices = pd.factorize(flows["device_id"], sort=True)
        app, self.apps = pd.factorize(flows["app_id"], sort=True)
        order = np.lexsort((flows["start"].to_numpy(), app, self.device))
        self.flows = flows.iloc[order].reset_index(drop=True)
        self.device, app = self.device[order], app[order]
        self.start: Int = self.flows["start"].to_numpy(np.int64)
        n = len(self.devices)
        self.first = np.full(n, np.iinfo(np.int64).max)
        self.last = np.full(n, np.iinfo(np.int64).min)
        np.minimum.at(self.first, self.device, self.start)
        np.maximum.at(self.last, self.device, self.start)
        self.bounds = np.searchsorted(self.device, np.arange(n + 1))
        pair = self.device * (len(self.apps) + 1) + app + 1
        edges = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])) if len(pair) else np.empty(0, np.int64)
        self.carrier_start = edges
        self.carrier_stop = np.append(edges[1:], len(pair))
        self.carriers = np.searchsorted(edges, self.bounds)
        by_time = np.lexsort((self.start, self.device))
        self.device_starts = self.start[by_time]
        self.pushes = _events(tables.get("notifications"), "push_received")
        self.presence = _presence(tables.get("activity"))


def _one(
    rng: np.random.Generator, fleet: _Fleet, device: int, kind: str, others: list[str]
) -> tuple[dict[str, Any], pd.DataFrame] | None:
    carrier = int(rng.integers(fleet.carriers[device], fleet.carriers[device + 1]))
    own = fleet.flows.iloc[fleet.carrier_start[carrier] : fleet.carrier_stop[carrier]]
    model = own.iloc[int(rng.integers(len(own)))]
    first, last = int(fleet.first[device]), int(fleet.last[device])
    span = (last - first) * 1e-6
    seconds = (
        span if rng.random() < 0.4 else float(np.exp(rng.uniform(np.log(min(1200, span)), np.log(span + 1))))
    )
    seconds = min(seconds, span)
    begin = first + int(rng.uniform(0, span - seconds) * 1e6)
    scene = _scene(fleet, device, model, begin, seconds)
    if kind == "push_burst" and len(scene.pushes) < 6:
        if not others:
            return None
        kind = str(rng.choice(others))
    pattern = KINDS[kind](rng, scene)
    if not len(pattern.starts):
        return None
    follows = bool(rng.random() < _COUPLED_SHARE) and kind not in ("push_burst", "userless")
    if follows:
        pattern = replace(pattern, starts=coupled(rng, pattern.starts, scene))
    new = bool(rng.random() < _NEW_SHARE)
    targets = _destinations(
        rng, fleet, device, own, new, int(rng.integers(3, 9)) if kind == "rotating_hosts" else 1
    )
    copied = bool(rng.random() < _CARRIER_SIZES_SHARE)
    rows = _rows(rng, pattern, begin, model, own, targets, copied)
    dests = sorted({t.host or t.ip or "unknown" for t in targets})
    spec = {
        "device_id": model["device_id"],
        "app_id": model["app_id"],
        "dest": dests[0],
        "dests": dests,
        "kind": kind,
        "start_us": int(rows["start"].min()),
        "end_us": int(rows["start"].max() + np.nanmax(np.append(rows["duration_seconds"], 0.0)) * 1e6),
        "difficulty": _difficulty(pattern, follows, new),
        "period_seconds": pattern.period,
        "jitter_ratio": pattern.jitter,
        "missed_ratio": pattern.missed,
        "coupled": follows,
        "new_destination": new,
        "carrier_sizes": copied,
        "flows": len(rows),
    }
    return spec, rows


def _scene(fleet: _Fleet, device: int, model: pd.Series, begin: int, seconds: float) -> Scene:
    lo, hi = fleet.bounds[device], fleet.bounds[device + 1]
    name = model["device_id"]

    def inside(times: Int) -> npt.NDArray[np.float64]:
        a, b = np.searchsorted(times, [begin, begin + int(seconds * 1e6)])
        return np.asarray((times[a:b] - begin) * 1e-6, np.float64)

    first, last = fleet.presence.get(name, (np.empty(0, np.int64),) * 2)
    return Scene(
        seconds=seconds,
        clock=begin / 1e6 % 86400,
        device_starts=inside(fleet.device_starts[lo:hi]),
        pushes=inside(fleet.pushes.get((name, model["app_id"]), np.empty(0, np.int64))),
        busy=(np.asarray((first - begin) * 1e-6), np.asarray((last - begin) * 1e-6)),
    )


def _destinations(
    rng: np.random.Generator, fleet: _Fleet, device: int, own: pd.DataFrame, new: bool, count: int
) -> list[_Destination]:
    out = []
    device_rows = fleet.flows.iloc[fleet.bounds[device] : fleet.bounds[device + 1]]
    named = own["dest_host"].notna().mean()
    addressed = own["dest_ip"].notna().mean()
    for _ in range(count):
        if not new:
            pool = (own, own, own, device_rows, fleet.flows)[int(rng.integers(5))]
            row = pool.iloc[int(rng.integers(len(pool)))]
            port = None if pd.isna(row["dest_port"]) else int(row["dest_port"])
            out.append(_Destination(row["dest_host"], row["dest_ip"], port, row["transport"], row["service"]))
            continue
        words = rng.choice(_WORDS, 3)
        host = f"{words[0]}{rng.integers(1, 99)}.{words[1]}{words[2]}.{rng.choice(_ZONES)}"
        ip = ".".join(str(x) for x in (rng.integers(20, 220), *rng.integers(1, 255, 3)))
        with_name = bool(rng.random() < named)
        port = int(rng.choice(_PORTS))
        service = "tls" if with_name or (port == 443 and own["service"].notna().any()) else None
        with_address = not with_name or bool(rng.random() < addressed)
        out.append(
            _Destination(host if with_name else None, ip if with_address else None, port, "tcp", service)
        )
    return out


def _rows(
    rng: np.random.Generator,
    pattern: Pattern,
    begin: int,
    model: pd.Series,
    own: pd.DataFrame,
    targets: list[_Destination],
    copied: bool,
) -> pd.DataFrame:
    n = len(pattern.starts)
    resolution = max(float(model["time_resolution_seconds"]), 1e-6)
    grid = round(resolution * 1e6)
    start = (begin + np.rint(pattern.starts * 1e6).astype(np.int64)) // grid * grid
    sent, received = _sizes(rng, own, n, copied)
    factor = pattern.size_factor
    durations = pattern.durations
    if own["duration_seconds"].isna().mean() > 0.5:
        durations = np.full(n, np.nan)
    which = rng.integers(0, len(targets), n)

    def column(name: str) -> list[Any]:
        values = [getattr(t, name) for t in targets]
        return [values[i] for i in which]

    failed = pattern.failed
    known_failed = rng.random() < 0.9
    return pd.DataFrame(
        {
            "start": start,
            "duration_seconds": durations,
            "device_id": model["device_id"],
            "app_id": model["app_id"],
            "app_attribution": model["app_attribution"],
            "dest_host": column("host"),
            "dest_ip": column("ip"),
            "dest_port": column("port"),
            "transport": column("transport"),
            "service": column("service"),
            "outcome": np.where(failed, "failed" if known_failed else "unknown", "established"),
            "bytes_out": np.where(failed, 0.0 * sent, sent * factor),
            "bytes_in": np.where(failed, 0.0 * received, received * factor),
            "time_resolution_seconds": float(model["time_resolution_seconds"]),
            "source": model["source"],
        }
    )


def _sizes(
    rng: np.random.Generator, own: pd.DataFrame, n: int, copied: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    known = own[own["bytes_out"].notna() & own["bytes_in"].notna()]
    if not len(known):
        return np.full(n, np.nan), np.full(n, np.nan)
    spread = rng.choice([0.0, 0.02, 0.3])
    if copied:
        # One of the carrier's exchanges again and again, or a mixture of them.
        pick = np.full(n, rng.integers(len(known))) if rng.random() < 0.5 else rng.integers(0, len(known), n)
        sent = known["bytes_out"].to_numpy(np.float64)[pick]
        received = known["bytes_in"].to_numpy(np.float64)[pick]
    else:
        sent = np.full(n, np.exp(rng.normal(np.log(900), 1.2)))
        received = np.full(n, np.exp(rng.normal(np.log(700), 1.4)))
    noise = np.exp(rng.normal(0, 1, (2, n)) * spread)
    return np.rint(sent * noise[0]), np.rint(received * noise[1])


def _difficulty(pattern: Pattern, follows: bool, new: bool) -> str:
    points = int(follows) + int(not new) + int(not pattern.jitter <= 0.3) + int(len(pattern.starts) < 20)
    return ("easy", "medium", "medium", "hard", "hard")[points]


def _events(table: pa.Table | None, kind: str) -> dict[tuple[str, str | None], Int]:
    if table is None or not len(table):
        return {}
    rows = table.select(["device_id", "app_id", "time", "kind"]).to_pandas()
    rows = rows[(rows["kind"].astype(object) == kind) & rows["app_id"].notna()]
    rows["time"] = rows["time"].dt.as_unit("us").astype("int64")
    rows = rows.astype({"device_id": object, "app_id": object})
    return {
        key: np.sort(part.to_numpy(np.int64)) for key, part in rows.groupby(["device_id", "app_id"])["time"]
    }


def _presence(table: pa.Table | None) -> dict[str, tuple[Int, Int]]:
    if table is None or not len(table):
        return {}
    rows = table.select(["device_id", "kind", "start", "end"]).to_pandas()
    rows = rows[(rows["kind"].astype(object) == "device_unlocked") & rows["end"].notna()]
    for name in ("start", "end"):
        rows[name] = rows[name].dt.as_unit("us").astype("int64")
    rows = rows.astype({"device_id": object}).sort_values(["device_id", "start", "end"])
    return {
        str(key): (part["start"].to_numpy(np.int64), np.maximum.accumulate(part["end"].to_numpy(np.int64)))
        for key, part in rows.groupby("device_id")
    }
