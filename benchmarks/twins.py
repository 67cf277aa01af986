"""Controls: benign twins of implants, equal in all but what gives their kind away; see controls.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Vector
from appcadence.telemetry.simulate.behaviours import Rng, Scene, coupled, inside
from appcadence.telemetry.simulate.carriers import (
    Carriers,
    Destination,
    exchanges,
    new_destination,
    old_destination,
)
from appcadence.telemetry.simulate.implants import Graft, dest_of, extent, inject, placed, scene_of

_TRIES = 30
_LOGGED = (
    "dest_host",
    "dest_ip",
    "duration_seconds",
    "bytes_out",
    "bytes_in",
    "dest_port",
    "service",
)
_POISSON_SHARE = 0.5
_UNKNOWN = dict.fromkeys(("period_seconds", "jitter_ratio", "missed_ratio"), np.nan)

Spans = tuple[Vector, Vector]
_Name = tuple[str | None, ...]


def inject_with_twins(
    tables: Mapping[str, pa.Table], seed: int, *, share: float = 1.0, **how: Any
) -> tuple[pa.Table, pd.DataFrame]:
    """As `inject`; a share of the implants has a twin, which stands behind them: of its row `control` is true
    and `mirrors` the implant_id, and its kind is its implant's. The implants do not depend on the share."""
    mirrored: list[int] = []

    def also(fleet: Carriers, implants: list[Graft]) -> list[Graft]:
        places, benign = twins(np.random.default_rng([seed, 1]), fleet, implants, share)
        mirrored.extend(places)
        return benign

    flows, specs = inject(tables, seed, also=also, **how)
    n = len(specs) - len(mirrored)
    return flows, specs.assign(control=np.arange(len(specs)) >= n, mirrors=[-1] * n + mirrored)


def twins_as_kinds(tables: Mapping[str, pa.Table], seed: int, **how: Any) -> tuple[pa.Table, pd.DataFrame]:
    """In place of `inject`: every implant with a twin, which is of the kind "control of KIND"."""
    flows, specs = inject_with_twins(tables, seed, **how)
    return flows, specs.assign(kind=np.where(specs["control"], "control of " + specs["kind"], specs["kind"]))


def twins(rng: Rng, fleet: Carriers, implants: list[Graft], share: float) -> tuple[list[int], list[Graft]]:
    """For a share of the implants a benign twin in another app (or, without names, to another destination).

    A twin has as many flows, the same bytes and outcomes, destinations as new or as old, a life as long and
    the same share of it without the user, and follows the device's starts if its implant does. Its starts are
    Poisson or human: bursts with heavy-tailed gaps. It answers no pushes. What shows its kind it lacks: the
    twin of a kind that shows by persistence has the short durations of its own app, that of a kind that shows
    by absence has the user there. No twin shares an app or destination with an implant or another twin; where
    no carrier is left or alike, there is none.

    Returns the places of the mirrored implants, and their twins.
    """
    taken = {name for implant in implants for name in _names(implant)}
    mirrored, made = [], []
    for number, implant in enumerate(implants):
        if rng.random() >= share:
            continue
        twin = _twin(rng, fleet, implant, taken)
        if twin is not None:
            taken.update(_names(twin))
            mirrored.append(number)
            made.append(twin)
    return mirrored, made


def _twin(rng: Rng, fleet: Carriers, implant: Graft, taken: set[_Name]) -> Graft | None:
    for _ in range(_TRIES):
        device = int(rng.integers(len(fleet.first)))
        own = fleet.own(int(rng.choice(fleet.carriers_for(device, pushed=False))))
        row = int(rng.integers(own.start, own.stop))
        if not _alike(fleet, implant.row, row):
            continue
        targets = [_target(rng, fleet, device, own, implant, old) for old in implant.targets]
        names = {(fleet.text("device_id", row), *_whose(fleet.text("app_id", row), t)) for t in targets}
        if names.isdisjoint(taken):
            return _made(rng, fleet, implant, device, row, targets)
    return None


def _made(
    rng: Rng, fleet: Carriers, implant: Graft, device: int, row: int, targets: list[Destination]
) -> Graft:
    first, last = int(fleet.first[device]), int(fleet.last[device])
    seconds = min(implant.seconds, (last - first) * 1e-6)
    begin = int(np.clip(implant.begin, first, last - int(seconds * 1e6)))
    scene = scene_of(fleet, device, row, begin, seconds)
    n = len(implant.start)
    theirs = scene_of(fleet, fleet.of(implant.row)[0], implant.row, implant.begin, implant.seconds)
    there = int(inside(np.asarray((implant.start - implant.begin) * 1e-6), theirs.busy).sum())
    starts = _starts(rng, n, n if implant.shows == "absence" else there, scene)
    if implant.spec["coupled"]:
        starts = np.sort(coupled(rng, starts, scene))
    order = rng.permutation(n)
    durations = implant.durations[order]
    if implant.shows == "persistence":
        own = fleet.own(fleet.of(row)[1])
        durations = exchanges(rng, fleet, own, n, copied=True).seconds
    start, durations = placed(fleet, device, row, begin, starts, durations)
    which = implant.which[order]
    spec = implant.spec | _UNKNOWN | extent(fleet, row, start, durations, targets, which)
    return replace(
        implant,
        spec=spec,
        row=row,
        begin=begin,
        seconds=seconds,
        start=start,
        durations=durations,
        outcome=implant.outcome[order],
        sent=implant.sent[order],
        received=implant.received[order],
        targets=targets,
        which=which,
    )


def _starts(rng: Rng, n: int, there: int, scene: Scene) -> Vector:
    """n irregular starts in a life, so many of them with the user there, if the user ever is."""
    edges = np.clip(np.column_stack(scene.busy).ravel(), 0.0, scene.seconds)
    busy = edges[::2], np.maximum(edges[1::2], edges[::2])
    away = np.append(0.0, busy[1]), np.append(busy[0], scene.seconds)
    whole = np.zeros(1), np.full(1, scene.seconds)
    poisson = rng.random() < _POISSON_SHARE
    parts = []
    for count, spans in ((there, busy), (n - there, away)):
        total = float(np.maximum(spans[1] - spans[0], 0.0).sum())
        place = (_poisson if poisson else _human)(rng, count, total or scene.seconds)
        parts.append(_within(place, spans if total else whole))
    return np.sort(np.concatenate(parts))


def _poisson(rng: Rng, n: int, seconds: float) -> Vector:
    return np.asarray(rng.uniform(0, seconds, n))


def _human(rng: Rng, n: int, seconds: float) -> Vector:
    """Bursts of a few starts some seconds apart, with heavy-tailed gaps between the bursts."""
    bursts = max(int(n / rng.uniform(2, 12)), 1)
    gaps = rng.lognormal(0.0, 1.5, bursts)
    heads = np.cumsum(gaps) / (gaps.sum() + rng.lognormal(0.0, 1.5)) * seconds
    later = rng.exponential(1.0, n) * np.exp(rng.normal(np.log(8), 1.0, n))
    return np.asarray((heads[rng.integers(0, bursts, n)] + later) % seconds)


def _within(place: Vector, spans: Spans) -> Vector:
    """Times at so many seconds of the spans' own time."""
    length = np.maximum(spans[1] - spans[0], 0.0)
    ends = np.cumsum(length)
    at = np.minimum(np.searchsorted(ends, place, "right"), len(ends) - 1)
    return np.asarray(spans[1][at] - np.maximum(ends[at] - place, 0.0))


def _alike(fleet: Carriers, row: int, other: int) -> bool:
    """Whether two carriers' logs know the same of their flows always, sometimes or never."""
    if fleet.text("source", row) != fleet.text("source", other):
        return False
    ours, theirs = fleet.own(fleet.of(row)[1]), fleet.own(fleet.of(other)[1])
    return all(_extent(fleet.known(c, ours)) == _extent(fleet.known(c, theirs)) for c in _LOGGED)


def _extent(share: float) -> int:
    return int(share > 0) + int(share >= 1)


def _target(
    rng: Rng, fleet: Carriers, device: int, own: slice, implant: Graft, mirrored: Destination
) -> Destination:
    """A destination as new or old as that of the implant; a new one has its port, too."""
    if not implant.spec["new_destination"]:
        return old_destination(rng, fleet, device, own)
    fresh = new_destination(rng, fleet, own)
    return replace(fresh, port=mirrored.port, transport=mirrored.transport, service=mirrored.service)


def _names(graft: Graft) -> set[_Name]:
    spec: dict[str, Any] = graft.spec
    return {(spec["device_id"], *_whose(spec["app_id"], t)) for t in graft.targets}


def _whose(app: str | None, target: Destination) -> _Name:
    """What truth is told by: the app or, where its name is not known, the destination."""
    return (app, None) if app is not None else (None, dest_of(target, app))
