"""The surroundings of an implant: carriers (device and app), their flows, pushes, users and contacts.

An implant's own flows carry exchanges borrowed from real channels, so that sizes do not give it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US, Ints, Vector
from appcadence.telemetry.apns import is_courier
from appcadence.telemetry.names import choice, value_of
from appcadence.telemetry.schema import TIME

MIN_PUSHES = 6
"""A carrier with fewer pushes has no push-triggered implant."""
_QUIET_HOURS = 8
# fmt: off
_WORDS = (
    "sync", "api", "edge", "cdn", "data", "metrics", "static", "cloud", "gate", "relay", "node", "mesh",
    "pixel", "nova", "orbit", "delta", "prime", "vertex", "lumen", "quanta", "harbor", "cobalt", "ember",
    "lattice", "signal", "beacon", "atlas", "kite", "fern", "onyx", "raven", "tidal",
)
# fmt: on
_ZONES = ("com", "net", "io", "app", "org", "info", "co")
_ODD_PORTS = (8443, 8080, 5223, 4444, 1337, 8883, 6667)
_ODD_PORT_SHARE = 0.15
_HTTP_PORTS = (80, 8080)
# First octets without private or reserved networks.
_NETS = tuple(x for x in range(20, 220) if x not in (100, 127, 169, 172, 192, 198, 203))
_NAMES = (
    "app_id",
    "app_attribution",
    "dest_host",
    "dest_host_source",
    "dest_ip",
    "transport",
    "service",
    "source",
    "outcome",
)
_NUMBERS = (
    "duration_seconds",
    "dest_port",
    "device_port",
    "bytes_out",
    "bytes_in",
    "time_resolution_seconds",
)


_Who = tuple[str | None, ...]


@dataclass(frozen=True)
class Destination:
    """One contact as a log shows it; None = the log does not say."""

    host: str | None
    host_source: str | None
    ip: str | None
    port: int | None
    transport: str | None
    service: str | None


NOWHERE = Destination(None, None, None, None, None, None)


class Carriers:
    """The benign telemetry as arrays, sorted by device, app and time."""

    def __init__(self, tables: Mapping[str, pa.Table], start: int | None, end: int | None) -> None:
        flows = tables["flows"]
        times = flows["start"].cast(TIME).cast(pa.int64()).to_numpy()
        low = start if start is not None else times.min(initial=np.iinfo(np.int64).max)
        self.end: int = int(end if end is not None else times.max(initial=0) + 1)
        dns = pc.fill_null(pc.equal(flows["service"].cast(pa.string()), "dns"), False).to_numpy()
        # No implant lives at Apple's push servers.
        pushes = value_of(flows["dest_host"], is_courier, False) | value_of(
            flows["dest_ip"], is_courier, False
        )
        kept = np.flatnonzero((times >= low) & (times < self.end) & ~dns & ~pushes)
        flows, times = flows.take(pa.array(kept)), times[kept]
        coded = {name: _coded(flows[name]) for name in ("device_id", *_NAMES)}
        numbers = {name: flows[name].cast(pa.float64(), safe=False).to_numpy() for name in _NUMBERS}
        # Sizes and destinations break ties, so that the order of rows has no effect.
        ties = [coded[name][0] for name in ("service", "dest_ip", "dest_host", "source")]
        device, app = coded["device_id"][0], coded["app_id"][0]
        order = np.lexsort((*numbers.values(), *ties, times, app, device))
        self._codes = {name: codes[order] for name, (codes, _) in coded.items()}
        self._values = {name: values for name, (_, values) in coded.items()}
        self.numbers: dict[str, Vector] = {name: values[order] for name, values in numbers.items()}
        device, app, self.start = device[order], app[order], times[order]
        # Running counts of the known values: a carrier's share is then two lookups.
        known = {name: codes >= 0 for name, codes in self._codes.items()}
        known |= {name: ~np.isnan(values) for name, values in self.numbers.items()}
        self._known: dict[str, Ints] = {name: np.append(0, np.cumsum(mask)) for name, mask in known.items()}
        n = len(self._values["device_id"])
        self.bounds = np.searchsorted(device, np.arange(n + 1))
        pair = device * (len(self._values["app_id"]) + 1) + app + 1
        edges = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])) if len(pair) else np.empty(0, np.int64)
        self.carrier_start, self.carrier_stop = edges, np.append(edges[1:], len(pair))
        self.carriers = np.searchsorted(edges, self.bounds)
        self.device_starts: Ints = self.start[np.lexsort((self.start, device))]
        self.first = self.device_starts[self.bounds[:-1]]
        self.last = self.device_starts[self.bounds[1:] - 1]
        self.pushes = _events(tables.get("notifications"), "push_received")
        activity = tables.get("activity")
        self.presence = _presence(activity, "device_unlocked", ["device_id"])
        self.front = _presence(activity, "app_foreground", ["device_id", "app_id"])

    def carriers_for(self, device: int, pushed: bool) -> Ints:
        """The carriers of a device; with `pushed`, only those that get pushes, if there are any."""
        mine = np.arange(self.carriers[device], self.carriers[device + 1])
        if not pushed:
            return mine
        rows = self.carrier_start[mine]
        who = [(self.text("device_id", row), self.text("app_id", row)) for row in rows]
        heard = [len(self.pushes.get(key, ())) >= MIN_PUSHES for key in who]
        return mine[heard] if any(heard) else mine

    def own(self, carrier: int) -> slice:
        """The rows of a carrier."""
        return slice(int(self.carrier_start[carrier]), int(self.carrier_stop[carrier]))

    def of(self, row: int) -> tuple[int, int]:
        """The device and the carrier of a row."""
        device = int(np.searchsorted(self.bounds, row, "right")) - 1
        return device, int(np.searchsorted(self.carrier_start, row, "right")) - 1

    def channel(self, row: int) -> Ints:
        """All rows of a row's carrier to the same host or, if it has none, address."""
        own = self.own(self.of(row)[1])
        name = "dest_host" if self._codes["dest_host"][row] >= 0 else "dest_ip"
        codes = self._codes[name]
        return np.asarray(own.start + np.flatnonzero(codes[own] == codes[row]))

    def known(self, name: str, own: slice) -> float:
        """Share of a carrier's rows in which a column is known, 0 to 1."""
        count = self._known[name]
        return float((count[own.stop] - count[own.start]) / (own.stop - own.start))

    def nowhere(self, own: slice) -> bool:
        """Whether a carrier's log shows the app but no destination, as a phone's own log does."""
        places = self.known("dest_host", own) + self.known("dest_ip", own)
        return places == 0.0 and self.known("app_id", own) == 1.0

    def text(self, name: str, row: int) -> str | None:
        """A name in one row; None if it is not known."""
        code = int(self._codes[name][row])
        return self._values[name][code] if code >= 0 else None

    def number(self, name: str, row: int) -> int | None:
        """A whole number in one row; None if it is not known."""
        value = self.numbers[name][row]
        return None if np.isnan(value) else int(value)

    def column(self, name: str, rows: Ints) -> pa.DictionaryArray:
        """A name in several rows, for a table."""
        return choice(self._values[name], self._codes[name][rows])

    def host_source(self, own: slice) -> str | None:
        """The source of the host names in the carrier's log."""
        count = self._known["dest_host_source"]
        row = int(np.searchsorted(count, count[own.start] + 1)) - 1
        return self.text("dest_host_source", row) if row < own.stop else None


def old_destination(rng: np.random.Generator, fleet: Carriers, device: int, own: slice) -> Destination:
    """A contact of the carrier, or of another app of the device or fleet whose log shows as much."""
    pools = (own, own, own, slice(*fleet.bounds[device : device + 2]), slice(0, len(fleet.start)))
    pool = pools[int(rng.integers(len(pools)))]
    row = int(rng.integers(pool.start, pool.stop))
    fields = ("dest_host", "dest_ip", "dest_port", "transport", "service")
    known = {name: fleet.known(name, own) for name in fields}
    at = slice(row, row + 1)
    said = {name: bool(fleet.known(name, at)) for name in fields}
    if any(said[name] < (known[name] == 1.0) for name in fields) or not (
        (said["dest_host"] and known["dest_host"]) or (said["dest_ip"] and known["dest_ip"])
    ):
        row = int(rng.integers(own.start, own.stop))

    def known_text(name: str) -> str | None:
        return fleet.text(name, row) if known[name] else None

    port = fleet.number("dest_port", row) if known["dest_port"] else None
    host = known_text("dest_host")
    how = fleet.host_source(own) if host else None
    address, transport, service = map(known_text, ("dest_ip", "transport", "service"))
    return Destination(host, how, address, port, transport, service)


def new_destination(rng: np.random.Generator, fleet: Carriers, own: slice) -> Destination:
    """A plausible host or address that nobody contacted, as the carrier's log would show it.

    Half of them are neighbours of a contact of the carrier, in its domain or network. Most use the port,
    transport and service of one of its flows.
    """
    row = int(rng.integers(own.start, own.stop))
    near = rng.random() < 0.5
    words = rng.choice(_WORDS, 3)
    name = f"{words[0]}{rng.integers(1, 99)}.{words[1]}{words[2]}.{rng.choice(_ZONES)}"
    labels = (fleet.text("dest_host", row) or "").split(".")
    if near and len(labels) > 2:
        name = ".".join([f"{words[0]}-{words[1]}{rng.integers(1, 99)}", *labels[1:]])
    net = [str(rng.choice(_NETS)), *(str(x) for x in rng.integers(1, 255, 3))]
    octets = (fleet.text("dest_ip", row) or "").split(".")
    if near and len(octets) == 4:
        net[:2] = octets[:2]
    # An address that nobody contacted has no passive name.
    observed = fleet.host_source(own) != "passive"
    named = bool(rng.random() < fleet.known("dest_host", own)) and observed
    addressed = bool(rng.random() < fleet.known("dest_ip", own)) or not named
    host, how = (name, fleet.host_source(own)) if named else (None, None)
    address = ".".join(net) if addressed else None
    port = fleet.number("dest_port", row)
    transport, service = fleet.text("transport", row), fleet.text("service", row)
    if port is not None and rng.random() < _ODD_PORT_SHARE:
        port = int(rng.choice(_ODD_PORTS))
        transport = transport and "tcp"
        service = service and ("http" if port in _HTTP_PORTS else "tls")
    return Destination(host, how, address, port, transport, service)


def busy_hours(starts: Ints) -> tuple[Ints, Ints]:
    """Starts and ends of the hours outside the quietest ones of the day, over the span of `starts`."""
    hour = HOUR_US
    count = np.bincount(starts // hour % 24, minlength=24)
    quiet = np.argsort(count, kind="stable")[:_QUIET_HOURS]
    hours = np.arange(starts[0] // hour, starts[-1] // hour + 1)
    busy = hours[~np.isin(hours % 24, quiet)] * hour
    return busy, busy + hour


def _coded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """(n,) places in the sorted values, -1 = null, and those values."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = whole.cast(pa.string()).dictionary_encode()
    values = coded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    place = np.empty(len(values) + 1, np.int64)
    place[order], place[-1] = np.arange(len(values)), -1
    return place[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)], [values[i] for i in order]


def _events(table: pa.Table | None, kind: str) -> dict[tuple[str | None, str | None], Ints]:
    if table is None or not len(table):
        return {}
    rows = table.select(["device_id", "app_id", "time", "kind"]).to_pandas()
    rows = rows[(rows["kind"].astype(object) == kind) & rows["app_id"].notna()]
    rows["time"] = rows["time"].dt.as_unit("us").astype("int64")
    rows = rows.astype({"device_id": object, "app_id": object})
    return {
        key: np.sort(part.to_numpy(np.int64)) for key, part in rows.groupby(["device_id", "app_id"])["time"]
    }


def _presence(
    table: pa.Table | None, kind: str, by: list[str]
) -> dict[tuple[str | None, ...], tuple[Ints, Ints]]:
    if table is None or not len(table):
        return {}
    rows = table.filter(pc.equal(table["kind"].cast(pa.string()), kind))
    rows = rows.filter(pc.is_valid(rows["end"])).select([*by, "start", "end"]).to_pandas()
    for name in ("start", "end"):
        rows[name] = rows[name].dt.as_unit("us").astype("int64")
    rows = rows.astype(dict.fromkeys(by, object)).sort_values([*by, "start", "end"])
    return {
        key: (part["start"].to_numpy(np.int64), np.maximum.accumulate(part["end"].to_numpy(np.int64)))
        for key, part in rows.groupby(by)
    }


MAX_SECONDS = 120.0
"""Exchanges are short; only a behaviour itself makes sessions long."""
_MEASURED = ("bytes_out", "bytes_in", "duration_seconds")
_ONE_SHARE = 0.1
"""Share of implants that repeat a single exchange."""
_WHOLE_SHARE = 0.5
"""Of the others, the share that draws from all exchanges of a channel."""
_EXACT_SHARE = 0.2
"""Share of implants that repeat exchanges to the byte."""
_TRIES = 8


@dataclass(frozen=True)
class Exchanges:
    """n flows' worth of bytes, seconds and outcomes; NaN = the log does not say."""

    sent: Vector
    received: Vector
    seconds: Vector
    outcome: npt.NDArray[np.object_]


def exchanges(rng: np.random.Generator, fleet: Carriers, own: slice, n: int, copied: bool) -> Exchanges:
    """Exchanges of one channel of the carrier, if `copied`, or of another app of the fleet.

    They are drawn from all flows of the channel or from a few, or repeat a stretch of them in order, to the
    byte or with some noise; one implant in ten repeats a single exchange. Values that the carrier's log does
    not have stay unknown, even if the other app's log has them.
    """
    rows = fleet.channel(int(rng.integers(own.start, own.stop)) if copied else _foreign(rng, fleet, own))
    seconds = fleet.numbers["duration_seconds"]
    short = rows[~(seconds[rows] > MAX_SECONDS)]
    rows = short if len(short) else rows
    pick = rows[_turns(rng, len(rows), n)]
    spread = 0.0 if rng.random() < _EXACT_SHARE else np.exp(rng.uniform(np.log(0.02), np.log(0.4)))
    noise = np.exp(rng.normal(0, 1, (3, n)) * spread)
    scale = 1.0 if copied else np.exp(rng.normal(0, 0.3))
    sent, received, lasted = (
        _as_known(rng, fleet, own, name, fleet.numbers[name][pick] * noise[k] * (scale if k < 2 else 1.0))
        for k, name in enumerate(_MEASURED)
    )
    outcome = np.array([fleet.text("outcome", int(row)) for row in pick], object)
    return Exchanges(np.rint(sent), np.rint(received), np.minimum(lasted, MAX_SECONDS), outcome)


def _turns(rng: np.random.Generator, known: int, n: int) -> Ints:
    """Which of the known exchanges each of n flows repeats."""
    if rng.random() < _ONE_SHARE:
        return np.full(n, rng.integers(known))
    if rng.random() < _WHOLE_SHARE:
        return rng.integers(0, known, n)
    size = min(int(np.exp(rng.uniform(np.log(4), np.log(known + 5)))), known)
    if rng.random() < 0.5:
        return np.asarray((rng.integers(known) + np.arange(n) % size) % known)
    return np.asarray(rng.choice(rng.choice(known, size, replace=False), n))


def _foreign(rng: np.random.Generator, fleet: Carriers, own: slice) -> int:
    """A row of another carrier of the device or fleet that has every value this carrier always has."""
    device = fleet.of(own.start)[0]
    always = [name for name in _MEASURED if fleet.known(name, own) == 1.0]
    for _ in range(_TRIES):
        pool = slice(*fleet.bounds[device : device + 2]) if rng.random() < 0.5 else slice(0, len(fleet.start))
        row = int(rng.integers(pool.start, pool.stop))
        theirs = fleet.own(fleet.of(row)[1])
        if all(fleet.known(name, theirs) == 1.0 for name in always):
            return row
    return int(rng.integers(own.start, own.stop))


def _as_known(rng: np.random.Generator, fleet: Carriers, own: slice, name: str, values: Vector) -> Vector:
    """Values with as large a share of gaps as the carrier's log has."""
    lacking = rng.random(len(values)) >= fleet.known(name, own)
    return np.asarray(np.where(lacking, np.nan, values))


def known_seconds(rng: np.random.Generator, fleet: Carriers, own: slice, seconds: Vector) -> Vector:
    """Durations set by a behaviour, with as large a share of gaps as the carrier's log has."""
    return _as_known(rng, fleet, own, "duration_seconds", seconds)
