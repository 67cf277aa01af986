"""Biome streams: both versions of the file, each stream by its folders, damage record by record."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ios_files import in_focus, message, notified, read, segb

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _segb, detect
from appcadence.telemetry.readers._protobuf import BYTES, DOUBLE, VARINT, fields

ZERO = datetime(2023, 3, 8, 20, 26, 40, tzinfo=UTC)
T = 7e8
"""ZERO in seconds since 2001."""
LIT = [(T, message((1, T), (2, 1))), (T, message((1, T + 9), (2, 0)))]
A, B = "com.example.a", "com.example.b"


def at(second: float) -> datetime:
    return ZERO + timedelta(seconds=second)


def spans(rows: dict[str, list[dict]]) -> list[tuple]:
    return sorted((row["app_id"], row["start"], row["end"]) for row in rows["activity"])


@pytest.mark.parametrize("version", [1, 2])
def test_apps_in_front(tmp_path, version):
    records = [
        *(in_focus(T + second, app, shown) for second, app, shown in ((0, A, 1), (60, A, 0), (60, B, 1))),
        in_focus(T + 90, "com.apple.springboard.home-screen", 1),  # B's end is missing
        in_focus(T + 100, "com.apple.springboard.home-screen", 0),
        in_focus(T + 110, A, 1),
        in_focus(T + 111, A, 1),
        in_focus(T + 130, A, 0),
        in_focus(T + 140, B, 1),  # still in front
    ]
    path = segb(tmp_path / "781234567890", records, version, deleted=(5,))
    assert detect(path).NAME == "biome"
    found = read("biome", path)
    assert found.keys() == {"activity"} and {row["kind"] for row in found["activity"]} == {"app_foreground"}
    assert spans(found) == [
        (A, at(0), at(60)),
        (A, at(111), at(130)),
        (B, at(60), at(90)),
        (B, at(140), at(140)),
    ]


@given(order=st.permutations(range(8)), cut=st.integers(0, 8), version=st.sampled_from([1, 2]))
def test_the_order_of_records_and_files_changes_nothing(tmp_path_factory, order, cut, version):
    whole = [
        in_focus(T + 10 * k + (4 * on == 0) * 5, app, on)
        for k, app in enumerate((A, B, A, B))
        for on in (1, 0)
    ]
    records = [whole[place] for place in order]
    folder = tmp_path_factory.mktemp("biome") / "App.InFocus" / "local"
    files = [segb(folder / "1", records[:cut], version), segb(folder / "2", records[cut // 2 :], version)]
    found = spans(read("biome", *files))
    assert found == sorted((app, at(10 * k), at(10 * k + 5)) for k, app in enumerate((A, B, A, B)))


@pytest.mark.parametrize(
    ("stream", "kind", "records"),
    [
        ("Device.ScreenLocked", "device_unlocked", [(T, message((1, 0))), (T + 9, message((1, 1)))]),
        ("Device.Display.Backlight", "screen_on", LIT),
        ("Backlight", "screen_on", LIT),
        ("Device.Display.Backlight", "screen_on", [*LIT[:1], (T + 9, message((1, T + 9), (2, 2))), *LIT[1:]]),
    ],
)
def test_states_of_the_device(tmp_path, stream, kind, records):
    path = segb(tmp_path / "streams" / "restricted" / stream / "local" / "7", [*records, (T + 20, b"")])
    found = read("biome", path)
    assert spans(found) == [(None, at(0), at(9))] and found["activity"][0]["kind"] == kind
    assert [row["line"] for row in found["rejected"]] == [len(records) + 1]


def whole(start: float, end: float, *said) -> tuple[float, bytes]:
    """A record of a _DKEvent stream: an interval, and a message with what it is about."""
    about = message((1, message((1, 1), (2, 2))), *said)
    return end, message((1, message((1, "/a/stream"))), (2, start), (3, end), (4, about))


def test_streams_of_whole_intervals(tmp_path):
    place = tmp_path / "streams" / "restricted"
    shown = [whole(T, T + 9, (3, A)), whole(T + 20, T + 10, (3, A)), whole(T, T + 9, (3, "no app")), (T, b"")]
    locks = [whole(T, T + 30, (4, 1)), whole(T + 30, T + 40, (4, 0)), whole(T + 60, T + 61)]
    apps = read("biome", segb(place / "_DKEvent.App.InFocus" / "local" / "7", shown))
    assert spans(apps) == [(A, at(0), at(9))] and apps["activity"][0]["kind"] == "app_foreground"
    assert [(row["line"], row["reason"]) for row in apps["rejected"]] == [
        (2, "the interval ends before it begins"),
        (3, "the record names no bundle id"),
        (4, "the time is not from 1970 to 2100"),
    ]
    found = read("biome", segb(place / "_DKEvent.Keybag.IsLocked" / "local" / "7", locks))
    assert spans(found) == [(None, at(30), at(40))] and found["activity"][0]["kind"] == "device_unlocked"
    assert [row["line"] for row in found["rejected"]] == [3]


@pytest.mark.parametrize("stream", ["Notification.Usage", "Notification"])
def test_notifications_without_their_texts(tmp_path, stream):
    records = [
        notified(T, A, 1, "Canary7f3a", "Canary7f3a", "Canary7f3a"),
        notified(T + 5, A, 2, "Canary7f3a"),
        notified(T + 6, A, 9),
        (T, message((2, T + 7), (3, 1), (4, B))),
    ]
    found = read("biome", segb(tmp_path / stream / "local" / "7", records))
    assert [(r["app_id"], r["time"], r["kind"]) for r in found["notifications"]] == [
        (A, at(0), "notification_shown"),
        (A, at(5), "notification_opened"),
        (B, at(7), "notification_shown"),
    ]
    assert "Canary" not in str(found)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ("Media.NowPlaying/local", "the Biome stream Media.NowPlaying"),
        ("App.InFocus/remote/0A1B", "of another device or of deleted records"),
        ("App.InFocus/local/tombstone", "of another device or of deleted records"),
        ("usr/local", "whose folders do not say"),
        ("elsewhere", "whose folders do not say"),
    ],
)
def test_other_streams_are_named(tmp_path, folders, said):
    path = segb(tmp_path / folders / "7", [(T, message((1, 1)))])
    with pytest.raises(UnusableFile, match=f"SEGB.*{said}|{said}.*SEGB"):
        read("biome", path)


def test_bad_records(tmp_path):
    good = in_focus(T, A, 1)
    records = [
        good,
        in_focus(T + 1, A, 7),
        in_focus(T + 1, "My Diary", 1),
        in_focus(-1e12, A, 1),
        (T, message((3, 1), (4, "x"), (6, A))),
        (T, message((4, T), (6, A))),
        (T, b"\xff" * 11),
        (T, message((3, 1), (6, A))),
        in_focus(T + 40 * 86_400, A, 0),
    ]
    path = segb(tmp_path / "App.InFocus" / "local" / "7", records)
    found = read("biome", path)
    assert [(row["line"], row["reason"]) for row in found["rejected"]] == [
        (2, "field 3 is neither 0 nor 1"),
        (3, "the record names no bundle id"),
        (4, "the time is not from 1970 to 2100"),
        (5, "the record is no message of this stream"),
        (6, "the record has no field 3, its state"),
        (7, "the record is no message of this stream"),
        (8, "the time is not from 1970 to 2100"),
        (1, "the interval that begins here lasts more than 31 days"),
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_damage(tmp_path, version, monkeypatch):
    path = segb(
        tmp_path / "App.InFocus" / "local" / "7", [in_focus(T + k, A, k % 2) for k in range(9)], version
    )
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.5 else whole)
        for _ in range(3 if content else 0):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            read("biome", path)
        except UnusableFile as error:
            assert "\n" not in str(error) and "7" in str(error)
    path.write_bytes(whole.replace(b"com.example.a", b"com.example.x", 1))
    (bad,) = read("biome", path)["rejected"]
    assert bad["reason"] == "the record does not match its checksum" and bad["line"] == 1
    monkeypatch.setattr(_segb, "MAX_RECORDS", 8)
    with pytest.raises(UnusableFile, match="more than 8 records"):
        read("biome", path)
    monkeypatch.setattr(_segb, "MAX_BYTES", 100)
    with pytest.raises(UnusableFile, match="larger than 0 MB"):
        read("biome", path)


@given(st.lists(st.tuples(st.integers(1, 20), st.one_of(st.integers(0, 1 << 63), st.floats(), st.text()))))
def test_fields_of_a_message(pairs):
    data = message(*pairs)
    wires = {int: VARINT, float: DOUBLE, str: BYTES}
    last = dict(pairs)
    if any(type(value) is not type(last[number]) for number, value in pairs):
        return
    found = fields(data, {number: wires[type(value)] for number, value in last.items()})
    expected = {n: v.encode() if isinstance(v, str) else v for n, v in last.items()}
    assert found is not None and repr(found) == repr({n: expected[n] for n in found})
    assert found.keys() == last.keys() and fields(data, {}) == {}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_none(data):
    found = fields(data, {1: VARINT, 2: DOUBLE, 3: BYTES})
    assert found is None or set(found) <= {1, 2, 3}
