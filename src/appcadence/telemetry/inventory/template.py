"""A starting point for a hand-kept inventory: what the telemetry shows of each app, for a person to decide.

Everything observed is written as comments, including approval. Approving entries that nobody has read, or
declaring the hosts and rhythm that were seen, would teach the detector that everything present is as it
should be. Writing `approved = false` would raise alarms on every app. Merging the file unchanged therefore
changes no fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import write_text
from appcadence._quantity import quantity
from appcadence._types import Progress, silent
from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory, unify
from appcadence.telemetry.inventory.app_archive import Facts, hosts
from appcadence.telemetry.inventory.snapshot import latest
from appcadence.telemetry.schema import FLOWS

RHYTHM_FLOWS = 2_000_000
"""Periods are sought in at most this many flows, those of the first devices."""
MIN_GAPS = 12
NEAR = 0.2
"""A gap is near the median if it differs from it by at most this share."""
MIN_NEAR_SHARE = 0.6
_FAN_OUT_SECONDS = 2.0
_SHOWN = 12
_CHANNEL = ["device_id", "app_id", "dest_host"]

HEAD = """\
# Hand-kept inventory, made by 'appcadence inventory template' from {directory}.
# Nothing here is approved: everything observed is a comment, and merging this file unchanged approves
# nothing and declares nothing. For each app, check the comments, then remove '# ' where you agree.
# A host that is listed because it was seen may be the one to worry about.
# Then: appcadence inventory merge inventory.toml --into {directory}
"""


def write_template(directory: str | Path, out: str | Path, progress: Progress = silent) -> int:
    """Write the template of a telemetry directory to `out`; returns how many apps it has.

    Raises:
        TelemetryError: the directory cannot be read, or `out` exists and may hold decisions.
    """
    out = Path(out)
    if out.exists():
        raise TelemetryError(f"{out} exists and may hold decisions; choose another file", "out")
    text, apps = template(directory, progress)
    write_text(out, text)
    return apps


def template(directory: str | Path, progress: Progress = silent) -> tuple[str, int]:
    """The text of the template, and how many apps it has."""
    source = TelemetryDirectory(directory)
    seen = _Seen(source, progress)
    declared = latest(source)
    apps = sorted(app for app in set(seen.apps) | set(declared) if app.strip())
    parts = [HEAD.format(directory=_plain(str(directory)))]
    unknown = seen.flows - sum(seen.apps.values())
    if unknown:
        share = f"{100 * unknown / seen.flows:.0f}%"
        parts.append(f"# Blind spot: {unknown:,} flows ({share}) name no app and are not listed below.\n")
    for app in apps:
        lines = [f"[apps.{_quoted(app)}]", *(f"# {line}" for line in _comments(app, seen, declared.get(app)))]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts), len(apps)


class _Rhythm(NamedTuple):
    host: str
    seconds: float
    devices: int
    near_share: float
    """Share of the gaps near the median, a measure of steadiness."""


class _Seen:
    """Flows, devices, destinations and rhythms of every app."""

    def __init__(self, source: TelemetryDirectory, progress: Progress) -> None:
        by_host, by_device = _counted(source, (["app_id", "dest_host"], ["app_id", "device_id"]), progress)
        self.flows = int(by_host["n"].sum())
        known = by_host.dropna(subset="app_id")
        self.apps: dict[Any, int] = known.groupby("app_id")["n"].sum().to_dict()
        self.devices: dict[Any, int] = by_device.groupby("app_id").size().to_dict()
        named = known["dest_host"].notna()
        self.unnamed: dict[Any, int] = known[~named].set_index("app_id")["n"].to_dict()
        self.hosts: dict[Any, dict[Any, int]] = {
            app: some.set_index("dest_host")["n"].to_dict() for app, some in known[named].groupby("app_id")
        }
        counts = by_device.groupby("device_id", sort=False)["n"].sum()
        sample = counts.index[counts.cumsum() <= max(RHYTHM_FLOWS, counts[:1].sum())]
        self.rhythms = _rhythms(source, pa.array(sample, pa.string()))


def _counted(source: TelemetryDirectory, keys: Sequence[list[str]], progress: Progress) -> list[pd.DataFrame]:
    """Flows counted by each of some keys, in column `n`; an unknown name is a key value, too."""
    totals = [
        pa.schema([*((name, pa.string()) for name in names), ("n", pa.int64())]).empty_table()
        for names in keys
    ]
    reads = source.pieces("flows", sorted({name for names in keys for name in names}))
    for done, read in enumerate(reads):
        progress("Reading flows", done / len(reads))
        piece = read()
        for place, names in enumerate(keys):
            rows = {name: piece[name].cast(pa.string()) for name in names}
            whole = pa.concat_tables([totals[place], pa.table(rows | {"n": np.ones(len(piece), np.int64)})])
            summed = whole.group_by(names, use_threads=False).aggregate([("n", "sum")])
            totals[place] = summed.rename_columns([*names, "n"])
    return [total.to_pandas() for total in totals]


def _rhythms(source: TelemetryDirectory, devices: pa.Array) -> dict[str, list[_Rhythm]]:
    """Rhythms by app, those on most devices first: channels whose gaps are mostly near their median."""
    columns = ["start", *_CHANNEL]
    parts = [FLOWS.empty().select(columns)]
    for read in source.pieces("flows", columns):
        piece = read().select(columns)
        known = pc.and_(pc.is_valid(piece["app_id"]), pc.is_valid(piece["dest_host"]))
        parts.append(piece.filter(pc.and_(known, pc.is_in(piece["device_id"].cast(pa.string()), devices))))
    flows = unify(parts).to_pandas().sort_values(columns[::-1])
    flows["gap"] = flows.groupby(_CHANNEL, observed=True)["start"].diff().dt.total_seconds()
    flows = flows[flows["gap"] >= _FAN_OUT_SECONDS]
    middle = flows.groupby(_CHANNEL, observed=True)["gap"].quantile(interpolation="higher")
    flows = flows.join(middle.to_frame("seconds"), on=_CHANNEL)
    flows["near"] = (flows["gap"] - flows["seconds"]).abs() <= NEAR * flows["seconds"]
    channels = (
        flows.groupby([*_CHANNEL, "seconds"], observed=True)["near"].agg(["size", "mean"]).reset_index()
    )
    steady = channels[(channels["size"] >= MIN_GAPS) & (channels["mean"] >= MIN_NEAR_SHARE)]
    hosts = steady.groupby(["app_id", "dest_host"], observed=True).agg(
        seconds=("seconds", "median"), devices=("seconds", "size"), share=("mean", "median")
    )
    out: dict[str, list[_Rhythm]] = {}
    for (app, host), *facts in hosts.sort_values("devices", ascending=False, kind="stable").itertuples():
        out.setdefault(app, []).append(_Rhythm(host, *facts))
    return out


def _comments(app: str, seen: _Seen, declared: Facts | None) -> Iterator[str]:
    facts = declared or {}
    flows = seen.apps.get(app, 0)
    if flows:
        yield f"seen: {flows:,} flows on {seen.devices.get(app, 0):,} device(s)"
    else:
        yield "seen: no flows; known from the inventory alone"
    ranked = sorted(seen.hosts.get(app, {}).items(), key=lambda item: (-item[1], item[0]))
    shares = [f"{_plain(host)} {_share(n, flows)}" for host, n in ranked[:_SHOWN]]
    if len(ranked) > _SHOWN:
        shares.append(f"{len(ranked) - _SHOWN:,} more {_share(sum(n for _, n in ranked[_SHOWN:]), flows)}")
    if app in seen.unnamed:
        shares.append(f"addresses without a name {_share(seen.unnamed[app], flows)}")
    if shares:
        yield f"contacts: {', '.join(shares)}"
    rhythms = seen.rhythms.get(app, [])
    for rhythm in rhythms[:3]:
        yield (
            f"rhythm: about every {quantity(rhythm.seconds, 's')} to {_plain(rhythm.host)} "
            f"on {rhythm.devices:,} device(s)"
        )
    for key, column in (("name", "app_name"), ("purpose", "declared_purpose"), ("category", "category")):
        yield f"{key} = {_quoted(facts.get(column) or '')}"
    approved = {True: "true", False: "false"}.get(facts.get("approved"))  # type: ignore[arg-type]
    yield f"approved = {approved or 'true'}" + ("  # declared now" if approved else "  # nobody has decided")
    expected = facts.get("expected_hosts")
    listed = expected if expected else hosts(host for host, _ in ranked[:_SHOWN])[0]
    if listed:
        yield f"expected_hosts = [{', '.join(map(_quoted, listed))}]" + (
            "  # declared now" if expected else "  # seen, not declared"
        )
    period = facts.get("expected_period_seconds")
    if period is not None:
        yield f"expected_period_seconds = {period!r}  # declared now"
    elif rhythms:
        steadiest = max(rhythms, key=lambda rhythm: rhythm.near_share)
        yield f"expected_period_seconds = {round(steadiest.seconds)}  # seen, not declared"
    modes = facts.get("background_modes")
    if modes is None:
        yield "background modes: unknown; merge the app's IPA or Info.plist"
    else:
        yield f"background_modes = [{', '.join(map(_quoted, modes))}]  # declared now"
    if facts.get("push_entitled") is not None:
        yield f"push_entitled = {str(facts['push_entitled']).lower()}  # declared now"


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.0f}%" if part >= 0.005 * total else "<1%"


def _plain(text: str) -> str:
    """For comments: a name must not end its line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _quoted(text: str) -> str:
    """A TOML string; control and invisible characters are spelled out."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
