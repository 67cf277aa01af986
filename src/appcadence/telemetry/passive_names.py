"""Names for flows that have none, if the fleet's own records tie their address to one host.

The rule: a flow to an address gets the host name that all flows of the fleet to that address had in the 24
hours up to and including its start, if there was exactly one. An address that two hosts share gives no name.
Names from a reader count, whether observed or from DNS answers (see `readers.zeek_names`, whose rule differs:
one connection, or one device's answer). Names given here never count. DNS lookups neither give nor get a
name, because their address is the resolver's. Later flows change nothing, so that a stream and a batch agree
once the 24 hours before are known.

Addresses are compared as written, which readers do in canonical form. A private, shared or link-local address
is a different machine in every network, so it neither gives nor gets a name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._cpus import usable_cpus
from appcadence._types import Ints
from appcadence.telemetry.arrays import AsOf, one_array, places

COLUMNS = ("start", "dest_host", "dest_ip", "service")
"""The columns that the rule reads."""
FILLED = ("dest_host", "dest_host_source")
"""The columns that it fills in."""
HORIZON_SECONDS = 86_400
_HORIZON_US = HORIZON_SECONDS * 1_000_000
_LAST_US = np.iinfo(np.int64).max - _HORIZON_US - 1
_PENDING = 1_000_000
_MARK = b"appcadence.passive_names"
_LOCAL = (
    r"^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|169\.254\.|127\."
    r"|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|[fF][cdCD]|[fF][eE][89abAB]|::1$)"
)
_FACTS = pa.schema(
    [("address", pa.string()), ("host", pa.string()), *((n, pa.int64()) for n in ("day", "first", "last"))]
)

Read = Callable[[], pa.Table]


class PassiveNames:
    """The names that flows tie to addresses, gathered once when the first flow lacks one; safe for threads.

    `reads` gives reads of all flows (columns `COLUMNS` at least). Memory grows with the distinct
    (address, host, day) among them, not with the flows.
    """

    def __init__(self, reads: Callable[[], Iterable[Read]]) -> None:
        self._reads = reads
        self._lock = threading.Lock()
        self._ties: _Ties | None = None

    def fill(self, flows: pa.Table) -> pa.Table:
        """The flows (columns `COLUMNS` at least) with missing names filled in where the rule gives one."""
        rows = _rows(flows, named=False)
        if not len(rows):
            return flows
        with self._lock:
            if self._ties is None:
                self._ties = _Ties(_gathered(self._reads()))
        host = self._ties.of(one_array(flows["dest_ip"]).take(rows), _micros(flows)[rows])
        rows, host = rows[host >= 0], host[host >= 0]
        if not len(rows):
            return flows
        passive = pa.array(["passive"]), np.zeros(len(rows), np.int64)
        for name, (values, codes) in zip(FILLED, ((self._ties.hosts, host), passive), strict=True):
            if name in flows.column_names:
                column = _put(one_array(flows[name]), rows, values, codes)
                flows = flows.set_column(flows.column_names.index(name), flows.schema.field(name), column)
        return flows.replace_schema_metadata({_MARK: b"filled"})


def complete(flows: pa.Table) -> pa.Table:
    """A whole flow table with the names that its own flows give; unchanged if it was filled before."""
    return flows if completed(flows) else PassiveNames(lambda: [lambda: flows]).fill(flows)


def completed(flows: pa.Table) -> bool:
    """Whether names were filled in; these must not count as records when the rule is applied again."""
    return _MARK in (flows.schema.metadata or {})


def records(flows: pa.Table) -> pa.Table:
    """A few flows (columns `COLUMNS`) that tie the same names as all of these: the first and last for each
    address, host and UTC day."""
    facts = _facts(flows)
    ends = [facts["first"], facts["last"]]
    parts = [
        pa.table(
            [
                start.cast(pa.timestamp("us", tz="UTC")),
                facts["host"].dictionary_encode(),
                facts["address"].dictionary_encode(),
                pa.nulls(len(facts), pa.string()).dictionary_encode(),
            ],
            names=COLUMNS,
        )
        for start in ends
    ]
    return pa.concat_tables(parts).unify_dictionaries()


class _Ties:
    """The one host that each address belongs to, from each moment on; -1 = none, or several."""

    def __init__(self, facts: pa.Table) -> None:
        address, host = (one_array(facts[name].dictionary_encode()) for name in ("address", "host"))
        self._addresses, self.hosts = address.dictionary, host.dictionary
        a, h = (np.asarray(column.indices, np.int64) for column in (address, host))
        first, last = facts["first"].to_numpy(), np.minimum(facts["last"].to_numpy(), _LAST_US)
        order = np.lexsort((first, h, a))
        a, h, first, last = a[order], h[order], first[order], last[order]
        # Records no further apart than the horizon form one span, which ends one horizon after the last.
        new = np.ones(len(a), np.bool_)
        new[1:] = (np.diff(a) != 0) | (np.diff(h) != 0) | (first[1:] > last[:-1] + _HORIZON_US)
        begin = np.flatnonzero(new)
        end = np.append(begin[1:], len(a))[: len(begin)] - 1
        time = np.concatenate([first[begin], last[end] + _HORIZON_US + 1])
        who = np.tile(a[begin], 2)
        step = np.repeat([1, -1], len(begin))
        order = np.lexsort((time, who))
        count = np.cumsum(step[order])
        # While a single host holds, the sum of the codes of holding hosts is its code.
        total = np.cumsum((step * np.tile(h[begin], 2))[order])
        self._host = np.append(np.where(count == 1, total, -1), -1)
        self._as_of = AsOf(who[order], time[order])

    def of(self, addresses: pa.DictionaryArray, micros: Ints) -> Ints:
        """(n,) place in `hosts` of the host of each address at each time."""
        known = pc.fill_null(pc.index_in(addresses.dictionary, value_set=self._addresses), -1).to_numpy()
        address = known[addresses.indices.to_numpy()]
        host, tied = np.full(len(micros), -1, np.int64), np.flatnonzero(address >= 0)
        host[tied] = self._host[self._as_of.find(address[tied], micros[tied])]
        return host


def _gathered(reads: Iterable[Read]) -> pa.Table:
    """Facts of all flows: the first and last start for each address, host and day."""
    parts, pending = [_FACTS.empty_table()], 0
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for facts in pool.map(lambda read: _facts(read()), reads):
            parts.append(facts)
            pending += len(facts)
            if pending > _PENDING:
                parts, pending = [_merged(pa.concat_tables(parts))], 0
    return _merged(pa.concat_tables(parts))


def _facts(flows: pa.Table) -> pa.Table:
    rows = _rows(flows, named=True)
    start = _micros(flows)[rows]
    address, host = (one_array(flows[name]).take(rows) for name in ("dest_ip", "dest_host"))
    columns = [address, host, start // _HORIZON_US, start, start]
    return _merged(pa.table(columns, names=_FACTS.names)).cast(_FACTS)


def _merged(facts: pa.Table) -> pa.Table:
    """One row for each address, host and day: within a day no record's span ends before the next begins."""
    keys = _FACTS.names[:3]
    found = facts.group_by(keys, use_threads=False).aggregate([("first", "min"), ("last", "max")])
    return found.select([*keys, "first_min", "last_max"]).rename_columns(_FACTS.names)


def _rows(flows: pa.Table, named: bool) -> Ints:
    """Rows with a public address that have a host name (`named`) or lack one; without DNS lookups."""
    host, address = flows["dest_host"], flows["dest_ip"]
    none = len(flows) if named else 0
    if host.null_count == none or address.null_count == len(flows):
        return np.empty(0, np.int64)
    service, address = one_array(flows["service"]), one_array(address)
    lookup = np.append(pc.fill_null(pc.equal(service.dictionary, "dns"), False), False)
    local = np.append(pc.fill_null(pc.match_substring_regex(address.dictionary, _LOCAL), True), True)
    wanted = (places(one_array(host)) >= 0) == named
    return np.flatnonzero(wanted & ~local[places(address)] & ~lookup[places(service)])


def _micros(flows: pa.Table) -> Ints:
    return np.asarray(flows["start"].cast(pa.int64()).to_numpy())


def _put(column: pa.DictionaryArray, rows: Ints, values: pa.Array, codes: Ints) -> pa.DictionaryArray:
    """The column with `values[codes]` in some rows; missing values are added to its dictionary."""
    new = np.zeros(len(values), np.bool_)
    new[codes] = True
    new &= ~np.asarray(pc.is_in(values, value_set=column.dictionary))
    words = pa.concat_arrays([column.dictionary, values.filter(pa.array(new))])
    indices = np.array(places(column))
    indices[rows] = pc.fill_null(pc.index_in(values, value_set=words), -1).to_numpy()[codes]
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), words)
