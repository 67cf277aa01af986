"""A hand-kept inventory to start from: what the telemetry shows of each app, for a human to decide on.

Everything observed stands in comments, approval included. To approve what nobody read, or to declare the
hosts and the rhythm that were seen, would teach the detector that whatever is there is as it should be; to
write `approved = false` would raise alarms on every app. Read back unchanged, the file so changes no fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import write_text
from appcadence._quantity import quantity
from appcadence._types import Ints, Progress, silent
from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.app_archive import Facts, hosts
from appcadence.telemetry.inventory.snapshot import latest
from appcadence.telemetry.names import Codes

RHYTHM_FLOWS = 2_000_000
"""A period is looked for in at most this many flows: those of the first devices."""
MIN_GAPS = 12
NEAR = 0.2
"""A gap is near the median if it differs from it by at most this share."""
MIN_NEAR_SHARE = 0.6
_FAN_OUT_US = 2_000_000
_SHOWN = 12

HEAD = """\
# Hand-kept inventory, made by 'appcadence inventory template' from {directory}.
# Nothing here is approved: all that was observed is a comment, and merging this file unchanged approves
# nothing and declares nothing. For each app, check what is said, then remove '# ' where you agree.
# A host that is listed because it was seen may be the one to worry about.
# Then: appcadence inventory merge inventory.toml --into {directory}
"""


def write_template(directory: str | Path, out: str | Path, progress: Progress = silent) -> int:
    """Write the template of a telemetry directory to `out`; returns how many apps it has.

    Raises:
        TelemetryError: the directory cannot be read, or `out` exists: it may hold decisions.
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
        parts.append(f"# Blind spot: {unknown:,} flows ({share}) name no app, and stand nowhere below.\n")
    for app in apps:
        lines = [f"[apps.{_quoted(app)}]", *(f"# {line}" for line in _comments(app, seen, declared.get(app)))]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts), len(apps)


class _Rhythm(NamedTuple):
    host: str
    seconds: float
    devices: int
    near_share: float
    """Share of the gaps near the median: how steady it is."""


class _Seen:
    """Flows, devices, destinations and rhythms of every app."""

    def __init__(self, source: TelemetryDirectory, progress: Progress) -> None:
        self.flows = 0
        self.apps: dict[str, int] = {}
        self.devices: dict[str, int] = {}
        self.hosts: dict[str, dict[str, int]] = {}
        self.unnamed: dict[str, int] = {}
        device, app, dest = Codes(), Codes(), Codes()
        pairs: dict[tuple[int, int], int] = {}
        owners: list[Ints] = []
        counts = np.zeros(0, np.int64)
        reads = source.pieces("flows", ["device_id", "app_id", "dest_host"])
        for done, read in enumerate(reads):
            progress("Reading flows", done / len(reads))
            piece = read()
            d, a, h = device.of(piece["device_id"]), app.of(piece["app_id"]), dest.of(piece["dest_host"])
            self.flows += len(d)
            counts = _added(counts, np.bincount(d, minlength=len(device)))
            known = a >= 0
            keys, n = np.unique(a[known] << 32 | h[known] + 1, return_counts=True)
            for key, count in zip(keys.tolist(), n.tolist(), strict=True):
                pair = key >> 32, (key & 0xFFFFFFFF) - 1
                pairs[pair] = pairs.get(pair, 0) + count
            owners = [np.unique(np.concatenate([*owners, a[known] << 32 | d[known]]))]
        names, destinations = app.names, dest.names
        for (a_code, h_code), count in pairs.items():
            name = names[a_code]
            self.apps[name] = self.apps.get(name, 0) + count
            if h_code < 0:
                self.unnamed[name] = self.unnamed.get(name, 0) + count
            else:
                self.hosts.setdefault(name, {})[destinations[h_code]] = count
        if owners:
            codes, n = np.unique(owners[0] >> 32, return_counts=True)
            self.devices = {names[c]: k for c, k in zip(codes.tolist(), n.tolist(), strict=True)}
        sample = np.array(device.names, object)[np.cumsum(counts) <= max(RHYTHM_FLOWS, counts[:1].sum())]
        self.rhythms = _rhythms(source, sample.tolist())


def _added(total: Ints, more: Ints) -> Ints:
    return np.pad(total, (0, len(more) - len(total))) + more


def _rhythms(source: TelemetryDirectory, devices: list[str]) -> dict[str, list[_Rhythm]]:
    """Rhythms by app, those on most devices first: where most gaps of a channel are near their median."""
    device, app, dest = Codes(), Codes(), Codes()
    parts: list[tuple[Ints, Ints, Ints, Ints]] = []
    wanted = pa.array(devices, pa.string())
    for read in source.pieces("flows", ["start", "device_id", "app_id", "dest_host"]):
        piece = read()
        known = pc.and_(pc.is_valid(piece["app_id"]), pc.is_valid(piece["dest_host"]))
        mine = pc.is_in(piece["device_id"].cast(pa.string()), value_set=wanted)
        piece = piece.filter(pc.and_(known, mine))
        start = piece["start"].cast(pa.int64()).to_numpy()
        parts.append(
            (
                start,
                *(c.of(piece[n]) for c, n in ((device, "device_id"), (app, "app_id"), (dest, "dest_host"))),
            )
        )
    if not parts:
        return {}
    start, d, a, h = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((start, h, a, d))
    start, d, a, h = start[order], d[order], a[order], h[order]
    new = np.r_[True, (np.diff(d) != 0) | (np.diff(a) != 0) | (np.diff(h) != 0)][: len(d)]
    group = np.cumsum(new) - 1
    gap = np.diff(start)
    inside = ~new[1:] & (gap >= _FAN_OUT_US)
    gap, owner = gap[inside], group[1:][inside]
    order = np.lexsort((gap, owner))
    gap, owner = gap[order], owner[order]
    n_groups = int(group[-1]) + 1 if len(group) else 0
    count = np.bincount(owner, minlength=n_groups)
    first = np.cumsum(count) - count
    enough = count >= MIN_GAPS
    middle = np.ones(n_groups)
    middle[enough] = gap[(first + count // 2)[enough]]
    near = np.bincount(owner, np.abs(gap - middle[owner]) <= NEAR * middle[owner], minlength=n_groups)
    steady = np.flatnonzero(enough & (near >= MIN_NEAR_SHARE * count))
    at = np.flatnonzero(new)[steady]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    channels = zip(a[at].tolist(), h[at].tolist(), strict=True)
    steadiness = zip((middle[steady] / 1e6).tolist(), (near[steady] / count[steady]).tolist(), strict=True)
    for pair, values in zip(channels, steadiness, strict=True):
        found.setdefault(pair, []).append(values)
    apps, destinations = app.names, dest.names
    out: dict[str, list[_Rhythm]] = {}
    for (a_code, h_code), channel in sorted(found.items(), key=lambda item: -len(item[1])):
        seconds, share = np.median(channel, axis=0).tolist()
        out.setdefault(apps[a_code], []).append(_Rhythm(destinations[h_code], seconds, len(channel), share))
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
    yield f"approved = {approved or 'true'}" + (
        "  # declared so now" if approved else "  # nobody has decided"
    )
    expected = facts.get("expected_hosts")
    listed = expected if expected else hosts(host for host, _ in ranked[:_SHOWN])[0]
    if listed:
        yield f"expected_hosts = [{', '.join(map(_quoted, listed))}]" + (
            "  # declared so now" if expected else "  # seen, not declared"
        )
    period = facts.get("expected_period_seconds")
    if period is not None:
        yield f"expected_period_seconds = {period!r}  # declared so now"
    elif rhythms:
        steadiest = max(rhythms, key=lambda rhythm: rhythm.near_share)
        yield f"expected_period_seconds = {round(steadiest.seconds)}  # seen, not declared"
    modes = facts.get("background_modes")
    if modes is None:
        yield "background modes: unknown; merge the app's IPA or Info.plist"
    else:
        yield f"background_modes = [{', '.join(map(_quoted, modes))}]  # declared so now"
    if facts.get("push_entitled") is not None:
        yield f"push_entitled = {str(facts['push_entitled']).lower()}  # declared so now"


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.0f}%" if part >= 0.005 * total else "<1%"


def _plain(text: str) -> str:
    """For comments: a name must not end its line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _quoted(text: str) -> str:
    """A TOML string; control and invisible characters are spelled out."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
