"""Host names of connections: stated by TLS, QUIC and HTTP records, or implied by DNS answers.

The names are held in sorted arrays: 13 bytes per named connection, up to 44 per DNS answer, and each
distinct host name once. A 64-bit hash of its uid identifies a connection: among a hundred million, two
share a hash with a probability below one in a thousand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints
from appcadence.telemetry.arrays import AsOf, one_array
from appcadence.telemetry.names import Codes, by_name, choice, encode, translate, value_of
from appcadence.telemetry.readers._hosts import MAX_HOST, host_name

SERVICES = {"quic": "quic", "ssl": "tls", "http": "http"}
"""Service that a row of each kind of log proves; of several, the first: QUIC's handshake is in two logs."""
NAME_FIELDS = {"ssl": "server_name", "quic": "server_name", "http": "host", "dns": "query"}
"""Field of each kind of log that holds host names."""

Hashes = npt.NDArray[np.uint64]
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_ADDRESS = r"^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$|^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$"


def hash_text(texts: pa.Array) -> Hashes:
    """A 64-bit hash of each string, the same on every machine; a null counts as the empty string."""
    texts = pc.fill_null(texts, "").cast(pa.large_string())
    if not len(texts):
        return np.empty(0, np.uint64)
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    start, length = offsets[:-1], np.diff(offsets)
    # Eight bytes at any place as one integer, through a view with a stride of one byte.
    padded = (data.to_pybytes() if data else b"") + bytes(8)
    words: Hashes = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    hashes = length.astype(np.uint64)
    rows = np.arange(len(texts))
    for at in range(0, int(length.max()), 8):
        rows = rows[length[rows] > at]
        bits = (8 * np.maximum(8 - (length[rows] - at), 0)).astype(np.uint64)
        # Shifting out the bytes behind the end leaves those of the string.
        word = words[start[rows] + at] << bits
        mixed = (hashes[rows] ^ word) * _MULTIPLIER
        hashes[rows] = mixed ^ (mixed >> np.uint64(29))
    mixed = hashes * _MULTIPLIER
    return mixed ^ (mixed >> np.uint64(32))


class Names:
    """Collects names from the logs that hold them, then looks them up for connections.

    Add everything, call `finish` once, then look up.
    """

    def __init__(self) -> None:
        self._host = Codes()
        """Every host name; the answers below are its codes, -1 = no name."""
        self._uids: list[tuple[Hashes, npt.NDArray[np.int32], npt.NDArray[np.int8]]] = []
        self._answers: list[tuple[Hashes, Ints, Ints, Any]] = []

    def add(self, kind: str, table: pa.Table) -> None:
        """Add rows of a log of a kind in `NAME_FIELDS`: with uid; dns with ts, id.orig_h, answers, TTLs."""
        if kind == "dns":
            self._add_answers(table)
            return
        table = table.filter(table["uid"].is_valid())
        kinds = np.full(len(table), list(SERVICES).index(kind), np.int8)
        self._uids.append((hash_text(one_array(table["uid"])), self._encode(table[NAME_FIELDS[kind]]), kinds))

    def _add_answers(self, table: pa.Table) -> None:
        same = pc.equal(pc.list_value_length(table["answers"]), pc.list_value_length(table["TTLs"]))
        finite = pc.and_(pc.is_finite(table["ts"]), pc.less(pc.abs(table["ts"]), 1e11))
        table = table.filter(pc.and_(pc.and_(same, finite), table["id.orig_h"].is_valid()))
        codes = self._encode(table["query"])
        parent = pc.list_parent_indices(one_array(table["answers"])).to_numpy()
        answers = one_array(table["answers"]).flatten()
        seconds = one_array(table["TTLs"]).flatten().to_numpy(zero_copy_only=False)
        keep = np.array(pc.fill_null(pc.match_substring_regex(answers, _ADDRESS), False))
        # Out of range or null means that the lifetime of the answer is unknown.
        keep &= (seconds >= 0) & (seconds <= 2**31)
        keep &= codes[parent] >= 0
        parent = parent[keep]
        start = np.rint(table["ts"].to_numpy()[parent] * 1e6).astype(np.int64)
        end = start + (seconds[keep] * 1e6).astype(np.int64)
        device = hash_names(table["id.orig_h"])[parent]
        keys = _pair(device, hash_text(answers.filter(pa.array(keep))))
        self._answers.append((keys, start, end, codes[parent]))

    def finish(self) -> None:
        """Sort everything added; nothing may be added afterwards."""
        keys, codes, kinds = _joined(self._uids, (np.uint64, np.int32, np.int8))
        # Of several rows of a connection, a named one wins, then by the order of SERVICES, then the first.
        order = np.lexsort((kinds + np.where(codes < 0, 8, 0).astype(np.int8), keys))
        keys = keys[order]
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        self._keys, order = keys[first], order[first]
        self._uid_codes, self._uid_kinds = codes[order], kinds[order]
        pairs, start, self._end, self._answer_codes = _joined(
            self._answers, (np.uint64, np.int64, np.int64, np.int32)
        )
        self._as_of = AsOf(pairs, start)
        self._uids, self._answers = [], []

    def of_connections(self, uids: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
        """Host code and place in SERVICES of each uid, -1 where unknown."""
        codes, kinds = np.full(len(uids), -1, np.int32), np.full(len(uids), -1, np.int8)
        if len(self._keys):
            hashes = hash_text(uids)
            at = np.minimum(np.searchsorted(self._keys, hashes), len(self._keys) - 1)
            hit = (self._keys[at] == hashes) & np.asarray(uids.is_valid())
            codes[hit], kinds[hit] = self._uid_codes[at[hit]], self._uid_kinds[at[hit]]
        return codes, kinds

    def of_addresses(
        self, devices: pa.ChunkedArray, addresses: pa.ChunkedArray, micros: Ints
    ) -> npt.NDArray[np.int32]:
        """Host code of the latest valid DNS answer to the device that gave the address, else -1."""
        codes = np.full(len(micros), -1, np.int32)
        if len(self._end):
            found = self._as_of.find(_pair(hash_names(devices), hash_names(addresses)), micros)
            hit = found >= 0
            hit[hit] = micros[hit] <= self._end[found[hit]]
            codes[hit] = self._answer_codes[found[hit]]
        return codes

    def named(self, draft: pa.Table, uid: str = "source_uid") -> pa.Table:
        """A draft (see _flows) with the columns dest_host, dest_host_source and service that the names give.

        The column `uid` holds the uids that were added with the names. A service that a name log proves takes
        precedence over the draft's own column.
        """
        codes, kinds = self.of_connections(one_array(draft[uid]))
        observed = codes >= 0
        micros = draft["start"].to_numpy()
        codes = np.where(observed, codes, self.of_addresses(draft["device"], draft["dest_ip"], micros))
        used, hosts = np.unique(codes[codes >= 0]), self._host.names
        places = np.where(codes < 0, -1, np.searchsorted(used, codes))
        source = np.where(codes < 0, -1, np.where(observed, 0, 1))
        columns = {
            "dest_host": choice([hosts[code] for code in used], places),
            "dest_host_source": choice(("observed", "passive"), source),
            "service": _service(one_array(draft["service"]), kinds),
        }
        kept = {name: draft[name] for name in draft.column_names if name not in columns}
        return pa.table(kept | columns)

    def _encode(self, names: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        def known(text: str) -> str | None:
            name = host_name(text)
            return name if name is not None and len(name) <= MAX_HOST else None

        return self._host.of(translate(names, known)).astype(np.int32)


def _service(stated: pa.DictionaryArray, kinds: npt.NDArray[np.int8]) -> pa.DictionaryArray:
    values = list(dict.fromkeys([*SERVICES.values(), *stated.dictionary.to_pylist()]))
    codes = value_of(stated, values.index, -1)
    # A proxied connection is in the http log, too, but is TLS if its own row says so; likewise QUIC and TLS.
    http = kinds == list(SERVICES).index("http")
    proven = (kinds >= 0) & ~(http & (codes >= 0)) & (codes != values.index("quic"))
    return choice(values, np.where(proven, kinds, codes))


def hash_names(column: pa.ChunkedArray) -> Hashes:
    """(n,) the hash of each row's name, 0 where there is none."""
    names = encode(column)
    result: Hashes = by_name(names, hash_text(names.dictionary), 0)
    return result


def _pair(first: Hashes, second: Hashes) -> Hashes:
    mixed = (first ^ (first >> np.uint64(31))) * _MULTIPLIER + second
    return mixed ^ (mixed >> np.uint64(32))


def _joined(parts: list[Any], types: tuple[Any, ...]) -> tuple[npt.NDArray[Any], ...]:
    columns = zip(*parts, strict=True) if parts else [[] for _ in types]
    return tuple(np.concatenate([np.empty(0, t), *c]) for t, c in zip(types, columns, strict=True))
