"""Archives from anybody's hand: what they hold is told member by member, within bounds."""

import gzip
import io
import os
import random
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from appcadence.telemetry.ingest import archive
from appcadence.telemetry.ingest.archive import FAULTS, Stopped, entries
from appcadence.telemetry.readers import _packed


def told(path: Path) -> tuple[list[tuple[str, bytes | str]], str]:
    """Each member's name with its data or why it is passed over, and what stopped the archive."""
    found: list[tuple[str, bytes | str]] = []
    try:
        for entry in entries(path):
            data = entry.reason.encode() and entry.reason
            if entry.stream is not None:
                data = b""
                while piece := entry.stream.read(1 << 16):
                    data += piece
            found.append((entry.name, data))
    except Stopped as stopped:
        return found, str(stopped)
    except FAULTS as error:
        return found, type(error).__name__
    return found, ""


def member(name: str, size: int = 0, **changes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=form) as out:
        for info, data in members:
            out.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_members_of_tar_in_all_its_forms(tmp_path, form, name):
    long = "/".join(["folder" * 4] * (5 if form == tarfile.USTAR_FORMAT else 30))
    names = ["x.log", "empty", long, "grüße.log", "odd"]
    data = [b"1" * 700, b"", b"2" * 512, b"3", b"4" * 100_000]
    members = [(member(n, len(d)), d) for n, d in zip(names, data, strict=True)]
    path = tar(tmp_path / name, (member("folder", type=tarfile.DIRTYPE), b""), *members, form=form)
    assert told(path) == (list(zip(names, data, strict=True)), "")
    # Members that are not read are skipped.
    assert [entry.name for entry in entries(path)] == names


def test_members_of_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("folder/", b"")
        out.writestr("folder/x.log", b"1" * 5000)
        out.writestr("stored", b"2", zipfile.ZIP_STORED)
        out.writestr("packed", b"3", zipfile.ZIP_BZIP2)
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    assert told(path) == (
        [
            ("folder/x.log", b"1" * 5000),
            ("stored", b"2"),
            ("packed", "compressed in a way that is not read"),
            ("link", "a link"),
        ],
        "",
    )


def test_an_encrypted_member_is_named_and_the_others_are_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("locked.log", b"1")
        out.writestr("open.log", b"2")
    packed = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(header) + flags] |= 1  # of the first member
    path.write_bytes(packed)
    assert told(path) == (
        [("locked.log", "encrypted: unpack it first with its password"), ("open.log", b"2")],
        "",
    )


def test_links_devices_sparse_files_and_paths_that_lead_out(tmp_path):
    path = tar(
        tmp_path / "a.tar",
        (member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member("hard", type=tarfile.LNKTYPE, linkname="link"), b""),
        (member("device", type=tarfile.CHRTYPE), b""),
        (member("pipe", type=tarfile.FIFOTYPE), b""),
        (member("sparse", 3, pax_headers={"GNU.sparse.major": "1"}), b"abc"),
        (member("../../up", 1), b"1"),
        (member("/etc/cron.d/x", 1), b"2"),
        (member("good", 4), b"good"),
    )
    out = "a path that leads out of the archive"
    assert told(path) == (
        [
            ("link", "a link"),
            ("hard", "a link"),
            ("device", "a device"),
            ("pipe", "a pipe"),
            ("sparse", "a sparse file"),
            ("../../up", out),
            ("/etc/cron.d/x", out),
            ("good", b"good"),
        ],
        "",
    )
    old = bytearray(member("old", 512, type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    old[482] = 1
    more = bytes(504) + b"\1" + bytes(7)
    old = bytearray(checked(old))
    whole = bytes(old) + more + bytes(512) + b"x" * 512 + member("good", 0).tobuf() + bytes(1024)
    path.write_bytes(whole)
    assert told(path) == ([("old", "a sparse file"), ("good", b"")], "")


def checked(header: bytearray) -> bytes:
    """The header with its checksum mended."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_sizes_that_lie(tmp_path):
    path = tmp_path / "a.tar"
    good = member("good", 4).tobuf() + b"good".ljust(512, b"\0")
    path.write_bytes(good + member("huge", 1 << 60).tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    found, why = told(path)
    assert found == [("good", b"good")] and "claims 1,152,921,504,606,846,976 bytes" in why
    path.write_bytes(good + member("long", 1 << 30, type=tarfile.GNUTYPE_LONGNAME).tobuf() + bytes(2048))
    assert told(path) == ([("good", b"good")], "the archive has a header of 1,073,741,824 bytes")
    path.write_bytes(good + member("more", 5000).tobuf() + bytes(100))
    assert told(path)[0] == [("good", b"good")] and told(path)[1] == "EOFError"
    assert [entry.name for entry in entries(tar(path, (member("x", 1), b"1")))] == ["x"]
    broken = member("x", 6, type=tarfile.XHDTYPE).tobuf() + b"99 a=b".ljust(512, b"\0")
    path.write_bytes(good + broken + good)
    assert "damaged" in told(path)[1]


def test_what_unpacks_to_terabytes_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(_packed, "MIN_RATIO_BYTES", 1 << 20)
    zeros = gzip.compress(member("zeros", 1 << 35).tobuf(tarfile.GNU_FORMAT) + bytes(40 << 20))
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(member("x", 1).tobuf() + b"1".ljust(512, b"\0")) + zeros)
    began = time.process_time()
    found, why = told(path)
    assert found == [("x", b"1")] and "unpacks to more than" in why
    # Passed over, it is not waited for either.
    with pytest.raises(Stopped, match="unpacks to more than"):
        list(entries(path))
    assert time.process_time() - began < 5
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x", b"1")
        out.writestr("zeros", bytes(5 << 20))
    found, why = told(packed)
    assert found == [("x", b"1")] and "unpacks to more than" in why


def test_too_many_members_and_a_directory_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    monkeypatch.setattr(archive, "_MAX_DIRECTORY_BYTES", 1000)
    path = tar(tmp_path / "a.tar", *((member(f"{k}"), b"") for k in range(9)))
    found, why = told(path)
    assert len(found) == 5 and why == "the archive has more than 5 members"
    packed = tmp_path / "a.zip"
    for count, said in ((9, "more than 5 members"), (50, "has a directory of")):
        with zipfile.ZipFile(packed, "w") as out:
            for k in range(count):
                out.writestr(f"{k}", b"")
        assert said in told(packed)[1]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_damaged_archives_end_in_a_word(tmp_path, name):
    data = random.Random(0).randbytes(3000)
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as out:
            for k in range(5):
                out.writestr(f"folder/{k}.log", data + b"x" * 3000)
    else:
        tar(tmp_path / name, *((member(f"folder/{k}.log", 3000), data) for k in range(5)))
    whole = (tmp_path / name).read_bytes()
    path = tmp_path / "damaged"
    draw = random.Random(1)
    for _ in range(150):
        altered = bytearray(whole[: draw.randint(len(whole) // 2, len(whole))])
        for _ in range(draw.randint(0, 3)):
            altered[draw.randrange(len(altered))] = draw.randrange(256)
        path.write_bytes(altered)
        found, _ = told(path)
        assert len(found) <= 6


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Stopped, match="damaged"):
        list(entries(tmp_path / "pipe"))
