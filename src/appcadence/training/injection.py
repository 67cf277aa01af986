"""Labelled windows: known implants are injected as flows into benign telemetry, then features are
computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, Codes, Mask, Vector
from appcadence.features.columns import micros
from appcadence.features.domains import registrable_domain
from appcadence.features.history import History
from appcadence.features.vetting import decided
from appcadence.models.calibration import device_days
from appcadence.models.eligibility import eligible, unattributable
from appcadence.models.pipeline import Assembled, assemble
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.implants import inject
from appcadence.telemetry.simulate.phone_log import joined
from appcadence.training.truth import verdict_of

_MOVED_SHARE = 0.03
_LATE_SHARE = 0.02
_OWN_SHARE = 0.05


def vary(flows: pa.Table, cut_us: int, rng: np.random.Generator) -> pa.Table:
    """A plausible other day of the same devices.

    Half of the channels keep only a random share of their flows, half have sizes and durations scaled, a
    third have their rhythm stretched or squeezed about the cut, and three in ten lose all flows before the
    cut, so that benign channels are often new. Starts are never jittered: benign clockwork stays clockwork.
    """
    channel = _channels(flows)
    n = int(channel.max()) + 1 if len(channel) else 0
    keep_share = np.where(rng.random(n) < 0.5, rng.uniform(0.4, 1.0, n), 1.0)
    size = np.where(rng.random(n) < 0.5, np.exp(rng.normal(0, 0.5, n)), 1.0)
    stretch = np.where(rng.random(n) < 1 / 3, np.exp(rng.uniform(-0.7, 0.7, n)), 1.0)
    forgotten = rng.random(n) < 0.3
    start = micros(flows["start"])
    first, last = (int(start.min()), int(start.max())) if len(start) else (0, 0)
    moved = cut_us + np.rint((start - cut_us) * stretch[channel]).astype(np.int64)
    keep = rng.random(len(channel)) < keep_share[channel]
    keep &= ~(forgotten[channel] & (moved < cut_us)) & (moved >= first) & (moved <= last)

    def scaled(name: str, factor: np.ndarray) -> pa.ChunkedArray:
        column = flows[name]
        values = np.nan_to_num(column.cast(pa.float64(), safe=False).to_numpy()) * factor
        mask = pc.is_null(column).to_numpy()
        return pa.chunked_array(
            [pa.array(np.rint(values) if column.type == pa.int64() else values, mask=mask).cast(column.type)]
        )

    changes = {
        "start": pa.chunked_array([pa.array(moved).cast(flows["start"].type)]),
        "duration_seconds": scaled("duration_seconds", size[channel]),
        "bytes_out": scaled("bytes_out", size[channel]),
        "bytes_in": scaled("bytes_in", size[channel]),
    }
    for name, column in changes.items():
        flows = flows.set_column(flows.schema.get_field_index(name), flows.schema.field(name), column)
    return flows.filter(pa.array(keep))


def change(past: pa.Table, future: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Benign changes: services that moved to other hosts, and apps that were installed late.

    In the future, 3% of the fleet's (app, host) pairs have another host, half of them in the same domain, and
    5% of each device's pairs have a host that no other device contacts. 2% of the (device, app) pairs lose
    their past.
    """
    installed = _codes(past["device_id"], past["app_id"])
    late = rng.random(int(installed.max(initial=-1)) + 1) < _LATE_SHARE
    host = future["dest_host"].cast(pa.string())
    for name, by, share in (
        ("moved", (future["app_id"], host), _MOVED_SHARE),
        ("own", (future["device_id"], future["app_id"], host), _OWN_SHARE),
    ):
        host = _renamed(host, _codes(*by), share, name, rng)
    at = future.schema.get_field_index("dest_host")
    moved = future.set_column(at, future.schema.field(at), host.cast(future.schema.field(at).type))
    return past.filter(pa.array(~late[installed])), moved


def _renamed(
    host: pa.ChunkedArray, service: np.ndarray, share: float, prefix: str, rng: np.random.Generator
) -> pa.ChunkedArray:
    """Host names after a share of the services (codes) moved to new ones, half of them in the same domain."""
    first = np.unique(service, return_index=True)[1]
    moves = rng.random(len(first)) < share
    names = [
        f"{prefix}-{i}.{registrable_domain(name) if rng.random() < 0.5 else f'elsewhere-{i}.invalid'}"
        for i, name in enumerate(pc.fill_null(host.take(pa.array(first[moves])), "").to_pylist())
    ]
    new = pa.array(names, pa.string()).take(pa.array(np.cumsum(moves)[service] - 1, mask=~moves[service]))
    return pc.if_else(pc.is_null(host), host, pc.coalesce(new, host))


def _channels(flows: pa.Table) -> np.ndarray:
    """Codes of (device, app, destination)."""
    host = pc.coalesce(flows["dest_host"].cast(pa.string()), flows["dest_ip"].cast(pa.string()))
    return _codes(flows["device_id"], flows["app_id"], host)


def _codes(*columns: pa.ChunkedArray) -> np.ndarray:
    """Codes 0, 1, ... of the rows' values; null is a value."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        text = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
        code = code * max(len(text.dictionary), 1) + text.indices.to_numpy()
        code = np.unique(code, return_inverse=True)[1]
    return code


_KEY = ["device_id", "app_id", "dest", "window_start"]
_MIN_IMPLANT_SHARE = 0.3
"""A window is an implant's if at least this share of its flows is; windows with a smaller share are left
out."""

Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class LabelledWindows:
    """Eligible windows with their truth."""

    frame: pd.DataFrame
    """The feature table with `implant_kind` (None = benign) and `verdict` (None = no decision)."""
    implant: Codes
    """(n,) code of the carrier of an implant, -1 = benign."""

    @property
    def malicious(self) -> Mask:
        return self.implant >= 0

    def take(self, mask: Mask) -> LabelledWindows:
        return LabelledWindows(self.frame[mask].reset_index(drop=True), self.implant[mask])


def past_and_future(tables: Tables, cut_us: int) -> tuple[Tables, Tables]:
    """The tables with the flows that start before a moment, and with the others; context tables stay
    whole."""
    before = pa.array(micros(tables["flows"]["start"]) < cut_us)
    return (
        tables | {"flows": tables["flows"].filter(before)},
        tables | {"flows": tables["flows"].filter(pc.invert(before))},
    )


def of_devices(flows: pa.Table, devices: Sequence[str] | None) -> pa.Table:
    """The flows of some devices; None = all."""
    if devices is None:
        return flows
    return flows.filter(pc.is_in(flows["device_id"].cast(pa.string()), pa.array(devices)))


def history_of(windows: Assembled, verdicts: pa.Table | None = None) -> History:
    """The history after some windows of a baseline: vetted, except for what verdicts exclude. Later contacts
    are not vetted."""
    history = windows.history if verdicts is None else decided(windows.history, verdicts)
    return replace(history, vetting=False)


def labelled(
    tables: Tables,
    cut_us: int,
    window: str,
    seed: int,
    per_device_day: float,
    *,
    devices: list[str] | None = None,
    varied: bool = False,
    changed: bool = False,
    kinds: Sequence[str] = tuple(KINDS),
    verdicts: pa.Table | None = None,
    known: History | None = None,
) -> tuple[LabelledWindows, pd.DataFrame]:
    """Eligible windows from the cut on, with implants injected into some devices, and the table of the
    injection.

    The table has one row per implant. To the columns of `inject` it adds `missed_days` (dates on which the
    carrier had an implant and none of its windows is returned; of several implants of a carrier, the first
    has them) and `observed_device_days` of the devices, whether or not any window can be judged.

    `devices` (default all) limits both the carriers and the rows returned; the whole fleet is context.
    `known` is the history before the tables (default none). With `varied`, the benign telemetry is first
    turned into a variant of itself; with `changed`, some services move to other hosts and some apps are
    installed late. Windows that `verdicts` call malicious are implants of kind "verdict"; unexplained ones
    are left out.
    """
    if varied:
        tables = tables | {"flows": vary(tables["flows"], cut_us, np.random.default_rng(seed))}
    past, future = past_and_future(tables, cut_us)
    if changed:
        old, new = change(past["flows"], future["flows"], np.random.default_rng(seed))
        past, future = past | {"flows": old}, future | {"flows": new}
    flows = future["flows"]
    mine = of_devices(flows, devices)
    rate = per_device_day if len(mine) else 0.0
    grafted, specs = inject(future | {"flows": mine}, seed, per_device_day=rate, kinds=kinds)
    both = future | {"flows": joined(flows, grafted)}
    later = assemble(both, window, history_of(assemble(past, window, known), verdicts))
    table = later.features
    injected = assemble({"flows": grafted}, window).features if len(grafted) else table.iloc[:0]
    implant, share = _truth(table, injected)
    alone = ~later.fleet_events(cut_us).windows
    real = np.where(implant < 0, alone, share >= _MIN_IMPLANT_SHARE)
    keep = eligible(table) & ~unattributable(table) & real
    table["implant_kind"] = _kinds(table, implant, specs)
    table["verdict"] = None if verdicts is None else verdict_of(table, verdicts)
    found = (table["verdict"] == "malicious").to_numpy() & (implant < 0)
    implant[found] = implant.max(initial=-1) + 1 + pd.factorize(carriers(table[found]))[0]
    table.loc[found, "implant_kind"] = "verdict"
    keep &= (table["verdict"] != "unexplained").to_numpy()
    wanted = np.ones(len(table), np.bool_)
    if devices is not None:
        wanted = table["device_id"].astype(object).isin(devices).to_numpy()
    specs = specs.assign(
        missed_days=_missed_days(specs, injected, table[wanted & keep & (implant >= 0)]),
        observed_device_days=device_days(table[wanted]),
    )
    return LabelledWindows(table, implant).take(wanted & keep), specs


def _missed_days(specs: pd.DataFrame, injected: pd.DataFrame, judged: pd.DataFrame) -> pd.Series:
    """By implant, the days of its carrier that have injected windows but no judged one."""
    days = [
        set(zip(carriers(rows), rows["window_start"].dt.strftime("%Y-%m-%d"), strict=True))
        for rows in (injected, judged)
    ]
    every = specs[["device_id", "app_id", "dests"]].explode("dests") if len(specs) else specs
    first = dict(zip(carriers(every, "dests")[::-1], every.index[::-1], strict=True)) if len(specs) else {}
    missed: dict[int, list[str]] = {row: [] for row in specs.index}
    for carrier, day in sorted(days[0] - days[1]):
        missed[first[carrier]].append(day)
    return pd.Series(missed, dtype=object)


def _kinds(table: pd.DataFrame, implant: Codes, specs: pd.DataFrame) -> np.ndarray:
    """(n,) kind of the first implant of each window's carrier; None if it is benign."""
    kinds = np.full(len(table), None, dtype=object)
    if (implant >= 0).any():
        every = specs[["device_id", "app_id", "dests", "kind"]].explode("dests")
        of = dict(zip(carriers(every, "dests")[::-1], every["kind"][::-1], strict=True))
        kinds[implant >= 0] = carriers(table[implant >= 0]).map(of).to_numpy()
    return kinds


def carriers(rows: pd.DataFrame, dest: str = "dest") -> pd.Series:
    """The carrier of each row's implant: the app on its device or, where no app is known, the destination."""
    rows = rows[["device_id", "app_id", dest]].astype(object)
    return rows["device_id"] + "\x1f" + rows["app_id"].where(rows["app_id"].notna(), rows[dest])


def _truth(table: pd.DataFrame, injected: pd.DataFrame) -> tuple[Codes, Vector]:
    """(n,) code of the carrier whose implant is in the window (-1 = none), and the implant's share of the
    flows."""
    if not len(injected):
        return np.full(len(table), -1), np.zeros(len(table))
    rows = table[_KEY].astype({"device_id": object, "app_id": object, "dest": object})
    injected = injected[[*_KEY, "n_flows"]].astype({"device_id": object, "app_id": object, "dest": object})
    count = rows.merge(injected, on=_KEY, how="left")["n_flows"]
    # A session that only continues in this window starts no flow in it, but it is still the implant's.
    touched, total = count.notna(), table["n_flows"].to_numpy()
    who = carriers(rows)
    code = pd.factorize(who.where(touched), use_na_sentinel=True)[0]
    share = np.where(
        total > 0, count.fillna(0).to_numpy() / np.maximum(total, 1), touched.to_numpy(np.float64)
    )
    return code, np.minimum(share, 1.0)


_INNER = (1 / 3, 2 / 3)


def aligned_spans(tables: Tables) -> Tables:
    """The tables with some devices moved by whole days, which keeps the hour of the day.

    One cut for the fleet fails for devices that enrolled later or were captured at another time: they have no
    past, or nothing to learn from. A device is not moved if the middle of the median device lies in the inner
    third of its own span, as it does if all were observed together.
    """
    flows = tables["flows"]
    device = flows["device_id"].cast(pa.string()).to_pandas()
    span = pd.Series(micros(flows["start"])).groupby(device.to_numpy()).agg(["min", "max"])
    middle = (span["min"] + span["max"]) / 2
    share = (middle.median() - span["min"]) / (span["max"] - span["min"]).clip(lower=1)
    apart = ~share.between(*_INNER)
    days = ((middle.median() - middle) / DAY_US).round().where(apart, 0).astype(np.int64)
    moved = {str(name): offset * DAY_US for name, offset in days[days != 0].items()}
    if not moved:
        return tables
    return tables | {name: _shifted(table, moved) for name, table in tables.items() if name != "inventory"}


def _shifted(table: pa.Table, offset_us: dict[str, int]) -> pa.Table:
    who = table["device_id"].cast(pa.string()).to_pandas().map(offset_us).fillna(0).to_numpy(np.int64)
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            later = pc.add(table[field.name].cast(pa.int64()), pa.array(who))
            table = table.set_column(place, field, later.cast(field.type))
    return table
