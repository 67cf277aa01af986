"""What the readers of flow logs share: whose flows count, which rows are faulty, the canonical columns.

A reader turns the rows of a block into a *draft*: a table with `start` (int64 microseconds), `device` (the
address or id by which the log names the device), any canonical columns of flows, and whatever else the
reader still needs. `screen` keeps the usable rows of monitored devices, `canonical` finishes them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.arrays import Ints, one_array
from appcadence.telemetry.readers import Network, ReadOptions, rejected
from appcadence.telemetry.schema import FLOWS, TIME
from appcadence.telemetry.schema import NAME as WORD

LAST_SECOND = 4_102_444_800
"""2100-01-01: a later time is a fault of the log."""
OUTCOMES = ("established", "failed", "unknown")
TRANSPORTS = ("tcp", "udp")
Mask = npt.NDArray[np.bool_]

_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def screen(
    draft: pa.Table,
    lines: Ints,
    options: ReadOptions,
    *,
    clock: str,
    stated: pa.ChunkedArray | None = None,
    addresses: bool = True,
    also: Sequence[tuple[Mask, str]] = (),
) -> tuple[pa.Table, list[int], list[str]]:
    """The rows that are usable flows of monitored devices; the lines of the faulty ones, and why.

    Args:
        draft: n rows.
        lines: line of each row.
        options: whose flows are wanted.
        clock: what the log calls the start, for the reasons.
        stated: n booleans: what the log itself says about whether the device is local; null = nothing.
        addresses: `device` holds addresses, of which only local ones are monitored devices; else it holds
            ids, all of them monitored unless `local_nets` says otherwise.
        also: faults that the reader found itself; they come first.
    """
    codes, reasons = _faults(draft, clock, addresses or options.device_id is None, addresses, also)
    bad = np.flatnonzero(codes)
    keep = codes == 0
    if addresses or options.local_nets:
        keep &= local(draft["device"], options, stated)
    good = draft.filter(pa.array(keep)).combine_chunks()
    return good, lines[bad].tolist(), [reasons[code - 1] for code in codes[bad].tolist()]


def canonical(draft: pa.Table, options: ReadOptions, source: str, resolution: float) -> pa.Table:
    """The flows table of a screened draft; `resolution` in seconds, unless the draft has its own."""
    start = one_array(draft["start"]).cast(TIME)
    columns = {c.name: draft[c.name] for c in FLOWS.columns if c.name in draft.column_names}
    columns["start"] = start
    columns["device_id"] = _devices(draft["device"], start, options)
    if "dest_port" in columns:
        columns["dest_port"] = columns["dest_port"].cast(pa.int32())
    columns.setdefault("app_attribution", words(len(draft), "none"))
    columns.setdefault("time_resolution_seconds", pa.array(np.full(len(draft), resolution)))
    columns.setdefault("source", words(len(draft), source))
    return pa.table({c.name: columns[c.name] for c in FLOWS.columns if c.name in columns})


def bad_rows(path: Path, lines: Sequence[int], reasons: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The batch of rejected rows, in the order of the file; none if there are none."""
    if len(lines):
        order = np.argsort(lines, kind="stable")
        yield "rejected", rejected(path, lines, reasons).take(pa.array(order))


def _faults(
    draft: pa.Table, clock: str, named: bool, addresses: bool, also: Sequence[tuple[Mask, str]]
) -> tuple[Ints, list[str]]:
    """1 + the place of the reason for what is wrong with each row, 0 where nothing is; and the reasons."""

    def null(name: str) -> Mask:
        absent = name not in draft.column_names
        return np.ones(len(draft), bool) if absent else np.asarray(draft[name].is_null())

    def filled(name: str) -> npt.NDArray[Any]:
        absent = name not in draft.column_names
        return np.zeros(len(draft)) if absent else np.asarray(draft[name].fill_null(0).to_numpy())

    start, duration, port = (filled(name) for name in ("start", "duration_seconds", "dest_port"))
    nowhere = null("dest_ip") & null("dest_host")
    device = null("device") if named else np.zeros(len(draft), bool)
    found = [
        *also,
        (null("start"), f"{clock} is missing"),
        (~((start >= 0) & (start < LAST_SECOND * 1_000_000)), f"{clock} is outside 1970 to 2100"),
        (device, "an address is missing" if addresses else "the device is missing"),
        (nowhere, "an address is missing" if addresses else "the destination is missing"),
        ((port < 0) | (port > 65535), "the port is out of range"),
        (~((duration >= 0) & np.isfinite(duration)), "the duration is negative or not finite"),
        (start / 1e6 + duration >= LAST_SECOND, "the flow ends after 2100"),
        ((filled("bytes_out") < 0) | (filled("bytes_in") < 0), "a byte count is negative"),
    ]
    codes = np.select([mask for mask, _ in found], [np.int64(i + 1) for i in range(len(found))], np.int64(0))
    return codes, [reason for _, reason in found]


def local(
    addresses: pa.ChunkedArray, options: ReadOptions, stated: pa.ChunkedArray | None = None
) -> npt.NDArray[np.bool_]:
    """Whether each address is that of a monitored device.

    Those in `local_nets` are, if any are given; else what the log states; else private ones (RFC 1918,
    RFC 4193). Link-local addresses are not private in this sense: what stays on one link is service
    discovery, not an app's destination.
    """
    nets = options.local_nets or _PRIVATE
    encoded = encode(addresses)
    inside = np.array([_within(value, nets) for value in encoded.dictionary.to_pylist()] + [False])
    result: npt.NDArray[np.bool_] = inside[np.asarray(encoded.indices.fill_null(len(inside) - 1))]
    if stated is not None and not options.local_nets:
        told = one_array(stated)
        result = np.where(np.asarray(told.is_valid()), np.asarray(told.fill_null(False)), result)
    return result


def _within(address: str | None, nets: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return any(parsed in net for net in nets)


def _devices(names: pa.ChunkedArray, start: pa.Array, options: ReadOptions) -> pa.Array | pa.ChunkedArray:
    if options.device_id is not None:
        return words(len(start), options.device_id)
    return options.devices.lookup(names, start) if options.devices else names


def micros(seconds: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Seconds as whole microseconds, null where null, -1 where no such time can be."""
    values = np.asarray(seconds.to_numpy(zero_copy_only=False) if len(seconds) else [], np.float64)
    fits = (values >= 0) & (values < LAST_SECOND)
    whole = np.where(fits, np.rint(np.where(fits, values, 0) * 1e6), -1).astype(np.int64)
    return pa.array(whole, mask=np.asarray(seconds.is_null()))


def words(count: int, value: str) -> pa.DictionaryArray:
    """The same word in every row."""
    return choice((value,), np.zeros(count, np.int32))


def choice(values: Sequence[str], codes: npt.NDArray[np.integer]) -> pa.DictionaryArray:
    """A word a row: values[code], null where the code is -1."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(WORD)


def encode(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """The column as one array of words."""
    array = one_array(column)
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.string()).dictionary_encode()
    return array


def translate(
    column: pa.ChunkedArray | pa.Array, translation: Callable[[str], str | None]
) -> pa.DictionaryArray:
    """Each word replaced by its translation; the function sees each distinct word once."""
    array = encode(column)
    new = [None if value is None else translation(value) for value in array.dictionary.to_pylist()]
    values = list(dict.fromkeys(value for value in new if value is not None))
    place = {value: code for code, value in enumerate(values)}
    codes = np.array([-1 if value is None else place[value] for value in new] + [-1])
    return choice(values, codes[np.asarray(array.indices.fill_null(len(new)))])


def outside(column: pa.Array, values: Sequence[str]) -> Mask:
    """Which rows hold a word that is none of the values."""
    known = pc.is_in(column.cast(pa.string()), pa.array([*values, None], pa.string()))
    return ~np.asarray(known)


def transports(proto: pa.ChunkedArray | pa.Array) -> tuple[pa.DictionaryArray, Mask, Mask]:
    """The transport of each protocol name or number, and which rows are TCP and which UDP."""
    known = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp"}
    transport = translate(proto, lambda text: known.get(text.strip().lower()))
    tcp, udp = (np.asarray(pc.fill_null(pc.equal(transport, name), False)) for name in TRANSPORTS)
    return transport, tcp, udp


def dns_by_port(dest_port: pa.Array | pa.ChunkedArray, udp: Mask) -> pa.DictionaryArray:
    """The service of a log that knows ports only: UDP to port 53 is DNS, of the rest nothing is known."""
    asked = udp & np.asarray(pc.fill_null(pc.equal(dest_port, 53), False))
    return choice(("dns",), np.where(asked, 0, -1))


NONE = FLOWS.empty()
"""No flows: what a reader yields for a part of a file that holds none."""
