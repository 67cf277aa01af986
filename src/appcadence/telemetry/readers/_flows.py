"""Shared by the readers of flow logs: whose flows count, which rows are faulty, and the canonical columns.

A reader turns the rows of a block into a *draft*: a table with `start` (int64 microseconds), `device` (the
address or id by which the log names the device), any canonical columns of flows, and whatever else the
reader still needs. `screen` keeps the usable rows of monitored devices, `canonical` finishes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints, Mask
from appcadence.errors import UnusableFile
from appcadence.telemetry.addresses import is_address, is_local, is_within, within
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import Column, choice, constant, value_of
from appcadence.telemetry.readers import Batches, ReadOptions, rejected, tagged
from appcadence.telemetry.readers._hosts import TOO_LONG, too_long
from appcadence.telemetry.readers._lines import Fault, Rows
from appcadence.telemetry.schema import FLOWS, MAX_NAME, TIME
from appcadence.telemetry.times import to_iso

LAST_SECOND = 4_102_444_800
"""2100-01-01: a later time is a fault of the log."""
FIRST_IPHONE = 1_167_609_600
"""2007-01-01: earlier times in a log that only phones write must count from another epoch."""
MAX_DAYS = 31
"""Longest connection; a wrong duration must not fill memory, or a month with alerts."""
OUTCOMES = ("established", "failed", "unknown")
TRANSPORTS = ("tcp", "udp")
_PROTOCOL = re.compile(r"0*(tcp|udp|6|17)(?:(?<=p)[46]|\.0+)?\s*(?:$|[(/:])")
AS_UTC = (
    "its times carry no UTC offset and were read as UTC; if its clock shows another time, have it write UTC "
    "or an offset"
)
NONE = FLOWS.empty()
"""No flows: what a reader yields for a part of a file that holds none."""


class Finished(NamedTuple):
    """Some rows after screening."""

    flows: pa.Table
    """The rows that count: canonical, or still a draft."""
    bad: list[Fault]
    """Lines that could not be used."""
    left_out: Mapping[str, int] = {}
    """How many are not flows of a monitored device, by reason (see `LEFT_OUT`)."""
    unnamed: int = 0
    """How many of the bad lines still count, but without the name they gave."""
    local_times: bool = False
    """Whether the times carry no UTC offset, and were read as UTC."""


Aside = Sequence[tuple[Mask, str]]
"""Rows that are left out, and the reason from `LEFT_OUT`; the first match counts."""

_NAMES = ("device", "app_id", "dest_ip", "service", "source")
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def flows_of(
    path: Path,
    parsed: Iterable[Rows],
    finish: Callable[[Rows], Finished],
    options: ReadOptions,
    *,
    first: int = 0,
) -> Batches:
    """The flows that a reader makes of the rows of a file, and the rejected rows.

    Raises:
        UnusableFile: all flows of a block begin before the second `first`, so times count from another epoch.
    """
    for rows in parsed:
        found = finish(rows)
        latest = pc.max(found.flows["start"].cast(pa.int64())).as_py() if first else None
        if latest is not None and latest < first * 1_000_000:
            raise UnusableFile(
                f"{path}: all times are too early, up to {to_iso(latest)}, when there was no iPhone; times "
                'that count from 2001 (Core Data) need format = "cocoa" in a mapping\'s [time], or ISO 8601',
                path,
            )
        if found.local_times:
            options.said[path, AS_UTC] = None
        yield from rejected(path, [*rows.bad, *found.bad], found.unnamed)
        yield "flows", tagged(found.flows, path, rows.read, rows.size, found.left_out)


def finished(
    columns: dict[str, Any],
    lines: Ints,
    options: ReadOptions,
    source: str,
    resolution: float,
    *,
    complete: Callable[[pa.Table], pa.Table] = lambda draft: draft,
    **screening: Any,
) -> Finished:
    """`screen` followed by `canonical`; `complete` may add columns to the usable rows in between."""
    found = screen(pa.table(columns), lines, options, **screening)
    return found._replace(flows=canonical(complete(found.flows), options, source, resolution))


def screen(
    draft: pa.Table,
    lines: Ints,
    options: ReadOptions,
    *,
    clock: str,
    stated: pa.ChunkedArray | None = None,
    addresses: bool = True,
    also: Sequence[tuple[Mask, str]] = (),
    aside: Aside = (),
) -> Finished:
    """The rows that are usable flows of monitored devices, as a draft, and the fate of the others.

    A host name that is too long is removed and reported; the flow counts by its address if it has one.

    Args:
        draft: n rows.
        lines: line of each row.
        options: whose flows are wanted.
        clock: what the log calls the start, for the reasons.
        stated: n booleans: whether the log itself calls the device local; null = it does not say.
        addresses: `device` holds addresses, of which only local ones are monitored devices. Otherwise it
            holds ids, which are all monitored except addresses outside `local_nets`, if those are given.
        also: faults that the reader itself found; they come first.
        aside: rows that the reader wants to be left out.
    """
    unnamed = np.zeros(len(draft), bool)
    if "dest_host" in draft.column_names:
        unnamed = too_long(draft["dest_host"])
    if unnamed.any():
        for name in {"dest_host", "dest_host_source"} & set(draft.column_names):
            kept = pc.if_else(pa.array(unnamed), None, draft[name].cast(pa.string()))
            draft = draft.set_column(draft.column_names.index(name), name, kept)
    if "source_uid" in draft.column_names and (endless := _long(draft["source_uid"])).any():
        kept = pc.if_else(pa.array(endless), None, draft["source_uid"].cast(pa.string()))
        draft = draft.set_column(draft.column_names.index("source_uid"), "source_uid", kept)
    codes, reasons = _faults(draft, clock, addresses or options.device_id is None, addresses, unnamed, also)
    keep = codes == 0
    left_out: dict[str, int] = {}
    strangers: Aside = ()
    if addresses or options.local_nets:
        # Networks say nothing about ids.
        judged = addresses or value_of(draft["device"], is_address, False)
        strangers = _other_devices(draft, options, stated, judged)
    for mask, reason in (*aside, *strangers):
        if count := int((keep & mask).sum()):
            left_out[reason] = count
            if reason == "elsewhere":
                options.strangers.add(draft["device"], keep & mask)
        keep &= ~mask
    faulty, by_address = codes > 0, lines[keep & unnamed].tolist()
    found = zip(lines[faulty].tolist(), codes[faulty].tolist(), strict=True)
    bad = [(line, reasons[code - 1]) for line, code in found] + [(line, TOO_LONG) for line in by_address]
    kept = draft if keep.all() else draft.filter(pa.array(keep))
    return Finished(kept.combine_chunks(), bad, left_out, len(by_address))


def _other_devices(
    draft: pa.Table, options: ReadOptions, stated: pa.ChunkedArray | None, judged: Mask | bool
) -> Aside:
    """The `judged` rows of devices other than the monitored ones."""
    other = ~local(draft["device"], options, stated) & judged
    if not other.any():
        return ()
    inbound = np.zeros(len(draft), bool)
    if "dest_ip" in draft.column_names:
        inbound = local(draft["dest_ip"], options)
    one_link: Mask = value_of(
        draft["device"], lambda text: is_local(text) and not is_within(text, _PRIVATE), False
    )
    return (other & inbound, "inbound"), (other & one_link, "one_link"), (other, "elsewhere")


def canonical(draft: pa.Table, options: ReadOptions, source: str, resolution: float) -> pa.Table:
    """The flows table of a screened draft; `resolution` in seconds, unless the draft has its own."""
    start = one_array(draft["start"]).cast(TIME)
    columns = {c.name: draft[c.name] for c in FLOWS.columns if c.name in draft.column_names}
    columns["start"] = start
    columns["device_id"] = _devices(draft["device"], start, options)
    if "dest_port" in columns:
        columns["dest_port"] = columns["dest_port"].cast(pa.int32())
    if "device_port" in columns:
        port = one_array(columns["device_port"])
        fits = pc.and_(pc.greater(port, 0), pc.less(port, 65536))
        columns["device_port"] = pc.if_else(fits, port, None).cast(pa.int32())
    columns.setdefault("app_attribution", constant(len(draft), "none"))
    columns.setdefault("time_resolution_seconds", pa.array(np.full(len(draft), resolution)))
    columns.setdefault("source", constant(len(draft), source))
    return pa.table({c.name: columns[c.name] for c in FLOWS.columns if c.name in columns})


def _faults(
    draft: pa.Table,
    clock: str,
    named: bool,
    addresses: bool,
    unnamed: Mask,
    also: Sequence[tuple[Mask, str]],
) -> tuple[Ints, list[str]]:
    """For each row, 1 + the index of the reason why it is faulty, or 0 if it is not; and the reasons."""

    def null(name: str) -> Mask:
        absent = name not in draft.column_names
        return np.ones(len(draft), bool) if absent else np.asarray(draft[name].is_null())

    def filled(name: str) -> npt.NDArray[Any]:
        absent = name not in draft.column_names
        return np.zeros(len(draft)) if absent else np.asarray(draft[name].fill_null(0).to_numpy())

    start, duration, port = (filled(name) for name in ("start", "duration_seconds", "dest_port"))
    nowhere = null("dest_ip") & null("dest_host")
    device = null("device") if named else np.zeros(len(draft), bool)
    ends = ("device", "dest_ip") if addresses else ()
    found = [
        *also,
        (null("start"), f"{clock} is missing"),
        (~((start >= 0) & (start < LAST_SECOND * 1_000_000)), f"{clock} is outside 1970 to 2100"),
        (device, "an address is missing" if addresses else "the device is missing"),
        *((_no_address(draft, name), "an address is cut off or invalid") for name in ends),
        (nowhere & unnamed, TOO_LONG),
        (nowhere, "an address is missing" if addresses else "the destination is missing"),
        ((port < 0) | (port > 65535), "the port is out of range"),
        (~((duration >= 0) & np.isfinite(duration)), "the duration is negative or not finite"),
        (duration > MAX_DAYS * 86_400, f"the flow lasts longer than {MAX_DAYS} days"),
        (start / 1e6 + duration >= LAST_SECOND, "the flow ends after 2100"),
        ((filled("bytes_out") < 0) | (filled("bytes_in") < 0), "a byte count is negative"),
    ]
    found += [
        (_long(draft[name]), f"{name} is longer than {MAX_NAME} characters")
        for name in _NAMES
        if name in draft.column_names
    ]
    codes = np.zeros(len(draft), np.int64)
    # The first fault counts, so it is written last.
    for place in reversed(range(len(found))):
        mask = found[place][0]
        if mask.any():
            codes[mask] = place + 1
    return codes, [reason for _, reason in found]


def _no_address(draft: pa.Table, name: str) -> Mask:
    if name not in draft.column_names:
        return np.zeros(len(draft), bool)
    return np.asarray(value_of(draft[name], lambda text: not is_address(text.partition("%")[0]), False))


def _long(column: pa.ChunkedArray) -> Mask:
    if pa.types.is_dictionary(column.type):
        return np.asarray(value_of(column, lambda name: len(name) > MAX_NAME, False))
    return np.asarray(pc.fill_null(pc.greater(pc.utf8_length(column), MAX_NAME), False))


def local(addresses: Column, options: ReadOptions, stated: pa.ChunkedArray | None = None) -> Mask:
    """(n,) which addresses belong to monitored devices.

    These are the ones in `local_nets` if any are given, otherwise those that the log calls local, otherwise
    private ones (RFC 1918, RFC 4193). Link-local addresses are not private in this sense: traffic that stays
    on one link is service discovery, not an app's destination.
    """
    nets = options.local_nets or _PRIVATE
    result: Mask = value_of(addresses, within(nets), False)
    if stated is not None and not options.local_nets:
        by_log = one_array(stated)
        result = np.where(np.asarray(by_log.is_valid()), np.asarray(by_log.fill_null(False)), result)
    return result


def _devices(names: pa.ChunkedArray, start: pa.Array, options: ReadOptions) -> Column:
    if options.device_id is not None:
        return constant(len(start), options.device_id)
    return options.devices.lookup(names, start) if options.devices else names


def micros(seconds: Column) -> pa.Array:
    """Seconds as whole microseconds; null where null, -1 where the time is impossible."""
    values = np.asarray(seconds.to_numpy(zero_copy_only=False) if len(seconds) else [], np.float64)
    fits = (values >= 0) & (values < LAST_SECOND)
    whole = np.where(fits, np.rint(np.where(fits, values, 0) * 1e6), -1).astype(np.int64)
    return pa.array(whole, mask=np.asarray(seconds.is_null()))


def transports(proto: Column) -> tuple[pa.DictionaryArray, Mask, Mask]:
    """The transport of each protocol name or number ("TCP (6)", "tcp/https"), which rows are TCP, and which
    are UDP."""
    codes = value_of(proto, _transport, -1)
    return choice(TRANSPORTS, codes), codes == 0, codes == 1


def _transport(text: str) -> int:
    found = _PROTOCOL.match(text.strip().lower())
    return -1 if found is None else 0 if found[1] in ("tcp", "6") else 1


def dns_by_port(dest_port: Column, udp: Mask) -> pa.DictionaryArray:
    """The service in a log that only knows ports: UDP to port 53 is DNS, the rest is unknown."""
    asked = udp & np.asarray(pc.fill_null(pc.equal(dest_port, 53), False))
    return choice(("dns",), np.where(asked, 0, -1))
