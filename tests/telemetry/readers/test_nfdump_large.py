"""Logs of nfdump that are set aside on disk, matched in pieces, or made to fill memory or time."""

import random
import resource
from time import process_time

import numpy as np
import pytest
from flow_samples import load, nf, nf_array
from hypothesis import given
from hypothesis import strategies as st

from appcadence.errors import TelemetryError
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import _pairs, _spill, nfdump

SERVER = "192.0.2.1:443"
BOTH_ENDS = "10.0.0.5:50000", SERVER


def read(tmp_path, *records):
    path = tmp_path / "flows.json"
    path.write_bytes(nf_array(*records))
    return load("nfdump", path)


def many(count, seed=1):
    """Records of few five-tuples, both ways, in no order."""
    draw = random.Random(seed)
    for _ in range(count):
        ends = [f"10.0.0.{draw.randint(1, 9)}:{50_000 + draw.randint(0, 9)}", SERVER]
        draw.shuffle(ends)
        start = draw.random() * 2000
        yield nf(*ends, start, start + draw.random() * 9, draw.randint(1, 999))


def test_the_pieces_make_no_difference(tmp_path, monkeypatch):
    records = list(many(800))
    whole, _ = read(tmp_path, *records)
    # A share holds some nine records, or a few times that.
    monkeypatch.setattr(_spill, "PIECE_ROWS", 100)
    monkeypatch.setattr(_spill, "HELD_ROWS", 100)
    monkeypatch.setattr(nfdump, "_AT_ONCE", 30)
    pieces, _ = read(tmp_path, *records)
    assert whole != pieces
    assert sorted(whole, key=str) == sorted(pieces, key=str)


def test_a_five_tuple_of_more_than_a_piece_is_cut(tmp_path, monkeypatch):
    records = [nf(*(BOTH_ENDS[:: 1 - 2 * (i % 2)]), i // 2 * 60, i // 2 * 60 + 1, i + 1) for i in range(40)]
    monkeypatch.setattr(_spill, "PIECE_ROWS", 10)
    monkeypatch.setattr(_spill, "HELD_ROWS", 10)
    monkeypatch.setattr(_spill, "_BATCH_ROWS", 5)
    flows, _ = read(tmp_path, *records)
    assert [(flow["bytes_out"], flow["bytes_in"]) for flow in flows] == [(i, i + 1) for i in range(1, 40, 2)]


def test_a_million_records_of_one_five_tuple_take_seconds():
    count = 1_000_000
    start = np.sort(np.random.default_rng(1).integers(0, 1 << 40, count))
    records = _pairs.Records(
        key=np.zeros(count, np.uint64),
        greater=np.arange(count) < count // 2,
        source_port=np.full(count, 443),
        dest_port=np.full(count, 50_000),
        start=start,
        end=start + (1 << 41),
        size=np.arange(count),
        flags=np.full(count, 2, np.uint8),
    )
    begin = process_time()
    matches = _pairs.match(records)
    # The kernel is compiled first, where it was not before.
    assert process_time() - begin < 20
    assert matches.paired.all()
    assert (matches.size == np.roll(np.arange(count), count // 2)).all()


@given(records=st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 60), st.integers(0, 30))))
def test_each_takes_the_first_free_one_of_the_other_direction(records):
    key, greater, start, length = (
        (np.array(column) for column in zip(*records, strict=True))
        if records
        else (np.empty(0, int) for _ in range(4))
    )
    start, end = start * 1_000_000, (start + length) * 1_000_000
    blank, ports = np.zeros(len(key), np.uint8), np.zeros(len(key), int)
    matches = _pairs.match(
        _pairs.Records(
            key.astype(np.uint64), greater.astype(bool), ports, ports, start, end, np.arange(len(key)), blank
        )
    )
    free, partner = [], {}
    for at in sorted(range(len(key)), key=lambda i: (key[i], start[i])):
        others = [i for i in free if key[i] == key[at] and greater[i] != greater[at]]
        near = [i for i in others if end[i] + 10_000_000 >= start[at]]
        # Those before it in the queue have had their time.
        free = [i for i in free if i not in (others[: others.index(near[0]) + 1] if near else others)]
        if near:
            partner[at], partner[near[0]] = near[0], at
        else:
            free.append(at)
    assert matches.size.tolist() == [partner.get(i, -1) for i in range(len(key))]


def test_progress_goes_on_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_spill, "PIECE_ROWS", 50)
    monkeypatch.setattr(_spill, "HELD_ROWS", 50)
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_bytes(nf_array(*many(200, number)))
    told = []
    convert(paths, tmp_path / "out", progress=lambda what, share: told.append(share))
    assert told == sorted(told) and told[-1] == 1
    assert len({share for share in told if 0.5 < share < 1}) > 3
    (tmp_path / "empty.json").write_bytes(b"[\n]\n")
    convert([tmp_path / "empty.json"], tmp_path / "none", progress=lambda what, share: told.append(share))
    assert told[-1] == 1


def test_equal_logs_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(_spill, "PIECE_ROWS", 50)
    monkeypatch.setattr(_spill, "HELD_ROWS", 50)
    path = tmp_path / "flows.json"
    path.write_bytes(nf_array(*many(200)))
    for out in ("one", "two"):
        convert([path], tmp_path / out)
    one, two = (next((tmp_path / out / "flows").iterdir()).read_bytes() for out in ("one", "two"))
    assert one == two


def test_no_room_to_set_records_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(_spill, "PIECE_ROWS", 10_000)
    monkeypatch.setattr(_spill, "HELD_ROWS", 10_000)
    path = tmp_path / "flows.json"
    path.write_bytes(nf_array(*many(20_000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TelemetryError, match=r"cannot write temporary files in .* set TMPDIR"):
            convert([path], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]
