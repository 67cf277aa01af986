"""Damage to what stands in a file, which is then written out well formed: values, types, nesting, columns.

Edits of bytes seldom get past a checksum or a footer; these do. An edit is numbers, as in `fuzz.damage`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import reject
from hypothesis import strategies as st

from fuzz.damage import Content, damaged

Edit = tuple[int, int, int]
"""What is done, at what place, with which value."""
Folder = Mapping[str, bytes]
"""The files of a directory, by path."""
Damage = Callable[[bytes, list[Edit]], bytes]
Seal = Callable[[dict[str, bytes]], None]

EDITS = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 65_535), st.integers(0, 255)), min_size=1, max_size=3
)

_DEEP: list[Any] = []
for _ in range(200):  # of which three in each other still leave Python's parser room
    _DEEP = [_DEEP]
_ODD = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63 - 1, 2**63, 10**30, float("nan"), float("inf"), -1e308),
    *("", "x", "\ud800", "\x1b[2J\u202e", "a" * 70_000, "../../x", "nan", "9999-12-31T23:59:59+00:00", "*"),
    *([], {}, [[]], [None], {"a": None}, _DEEP, [1] * 5000, {str(i): i for i in range(2000)}),
)
_ODD_JSON = [json.dumps(value) for value in _ODD]
_MAX_DEPTH = 50


def document(content: bytes, edits: list[Edit]) -> bytes:
    """JSON, or JSON by lines, with nodes replaced, taken out, doubled, renamed or wrapped."""
    lines = len(content.splitlines()) > 1 and content.lstrip()[:1] == b"{" and content.count(b"\n{") > 0
    whole = [json.loads(line) for line in content.splitlines()] if lines else [json.loads(content)]
    for kind, place, value in edits:
        nodes = list(_nodes(whole))
        holder, key = nodes[place % len(nodes)]
        if kind % 6 == 0 and holder is not whole:
            del holder[key]
        elif kind % 6 == 1:
            holder[key] = [holder[key]]
        elif kind % 6 == 2 and isinstance(holder, list) and holder is not whole:
            holder.extend([holder[key]] * (1 + value))
        elif kind % 6 == 3 and isinstance(holder, dict):
            holder[str(_ODD[value % len(_ODD)])[:99]] = holder.pop(key)
        else:
            # A copy: a later edit changes what was put in, and must not change it for later inputs.
            holder[key] = json.loads(_ODD_JSON[value % len(_ODD)])
    return b"".join(json.dumps(one).encode() + b"\n" for one in whole)


def _nodes(whole: Any, depth: int = 0) -> Any:
    for key, value in list(whole.items() if isinstance(whole, dict) else enumerate(whole)):
        yield whole, key
        if isinstance(value, dict | list) and depth < _MAX_DEPTH:
            yield from _nodes(value, depth + 1)


_TYPES = (
    *(pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary(), pa.int8(), pa.uint64(), pa.date32()),
    *(pa.timestamp("ns"), pa.timestamp("s", tz="UTC"), pa.duration("us"), pa.decimal128(38, 2), pa.null()),
    *(pa.list_(pa.string()), pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.time64("us")),
)


def parquet(content: bytes, edits: list[Edit]) -> bytes:
    """A Parquet file with columns dropped, doubled, renamed, retyped, nested, emptied or given odd values."""
    table = pq.read_table(pa.BufferReader(content))
    for kind, place, value in edits:
        if not table.num_columns:
            break
        at = place % table.num_columns
        name, column = table.schema.names[at], table.column(at)
        step = kind % 9
        if step == 0:
            table = table.remove_column(at)
        elif step == 1:
            table = table.append_column(table.schema.names[value % table.num_columns], column)
        elif step == 2:
            table = table.rename_columns(
                [
                    *table.schema.names[:at],
                    str(_ODD[value % 22])[:50].replace("\ud800", "?"),
                    *table.schema.names[at + 1 :],
                ]
            )
        elif step == 3:
            table = _set(table, at, name, pa.nulls(len(table), column.type))
        elif step == 4:
            table = pa.concat_tables([table] * (2 + value % 4)) if value % 2 else table.slice(0, 0)
        elif step == 5:
            try:
                table = _set(table, at, name, column.cast(_TYPES[value % len(_TYPES)]))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                table = _set(table, at, name, pa.nulls(len(table), _TYPES[value % len(_TYPES)]))
        elif step == 6 and not pa.types.is_dictionary(column.type):
            one = column.combine_chunks()
            table = _set(table, at, name, pa.StructArray.from_arrays([one], ["a"]))
        else:
            table = _odd_value(table, at, name, column, place, value)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=max(1, len(table) // 2))
    return bytes(sink.getvalue())


def _odd_value(table: pa.Table, at: int, name: str, column: Any, place: int, value: int) -> pa.Table:
    if not len(table):
        return table
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    values = column.to_pylist() if not pa.types.is_timestamp(kind) else column.cast(pa.int64()).to_pylist()
    values[place % len(values)] = _ODD[value % len(_ODD)]
    target = pa.int64() if pa.types.is_timestamp(kind) else kind
    try:
        return _set(table, at, name, pa.array(values, target).cast(kind))
    except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
        return _set(table, at, name, pa.array([str(v)[:70_000].encode("utf-8", "replace") for v in values]))


def _set(table: pa.Table, at: int, name: str, column: Any) -> pa.Table:
    return table.set_column(at, name, column)


_DTYPES = ("f8", "f4", "i8", "i1", "u8", "?", "c16", "S3", "U3", "M8[us]", "f2", ">f8")
_NUMBERS = (np.nan, np.inf, -np.inf, -1, 0, 1e308, -1e308, 2**31, 2**62, -(2**62), 65_536, 3)


def arrays(content: bytes, edits: list[Edit]) -> bytes:
    """An .npz file with arrays dropped, retyped, reshaped, emptied, or given odd numbers."""
    with np.load(io.BytesIO(content)) as archive:
        found = {name: archive[name].copy() for name in archive.files}
    heads: dict[str, bytes] = {}
    for kind, place, value in edits:
        name = sorted(found)[place % len(found)]
        array, step = found[name], kind % 7
        with np.errstate(all="ignore"):
            if step == 0 and len(found) > 1:
                del found[name]
            elif step == 1:
                found[name] = array.astype(_DTYPES[value % len(_DTYPES)])
            elif step == 2:
                found[name] = array.reshape(-1)[: value % (array.size + 1)]
            elif step == 3:
                found[name] = array.T if value % 2 else array[None]
            elif step == 4:
                heads[name] = repr(
                    {"descr": "<f8", "fortran_order": False, "shape": (10 ** (value % 14), 1 + value)}
                ).encode()
            elif array.size:
                flat = array.reshape(-1).copy()
                number = np.array(_NUMBERS[value % len(_NUMBERS)]).astype(flat.dtype)
                flat[place % flat.size if step == 5 else slice(None)] = number
                found[name] = flat.reshape(array.shape)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive_out:
        for name, array in found.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            data = one.getvalue()
            if name in heads:
                text = heads[name].ljust(117) + b"\n"
                data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data[128:]
            archive_out.writestr(f"{name}.npy", data)
    return out.getvalue()


def packed(files: Folder) -> bytes:
    """A directory as one input."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _of(name: str) -> Damage | None:
    kinds: dict[str, Damage] = {"json": document, "jsonl": document, "parquet": parquet, "npz": arrays}
    return kinds.get(name.rpartition(".")[2])


class _Copies:
    """What makes an input of a drawn edit; it keeps the seeds out of the reports of failures."""

    def __init__(self, seed: Folder, name: str, change: Damage | None, seal: Seal | None) -> None:
        self._seed, self._name, self._change, self._seal = seed, name, change, seal

    def __call__(self, drawn: tuple[Any, int]) -> Content:
        edits, chance = drawn
        files = dict(self._seed)
        try:
            files[self._name] = self._change(files[self._name], edits) if self._change else edits
        except (pa.ArrowException, ValueError, RecursionError):
            reject()  # what nobody can write is no input
        if chance == 1:
            del files[self._name]
        if self._seal and chance:
            self._seal(files)
        return Content(packed(files))


def shaped(name: str, seed: bytes) -> st.SearchStrategy[Content]:
    """Copies of a file: in three of four, what stands in it is changed, by the kind of its name; in one, its
    bytes."""
    return folders([{name: seed}]).map(lambda content: Content(unpacked(content).get(name, b"")))


def folders(seeds: list[Folder], seal: Seal | None = None) -> st.SearchStrategy[Content]:
    """Copies of directories in which one file is changed; now and then it is gone. `seal` mends checksums."""
    chance = st.integers(0, 20)
    every = []
    for seed in seeds:
        for name, content in seed.items():
            as_bytes = st.tuples(damaged([content]), chance).map(_Copies(seed, name, None, seal))
            if change := _of(name):
                every += [st.tuples(EDITS, chance).map(_Copies(seed, name, change, seal))] * 3
            every.append(as_bytes)
    return st.one_of(every)
