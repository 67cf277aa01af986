"""Archives that a copy or a download cut off, small and large: what came before is read."""

import io
import random
import tarfile
import zipfile

import pytest
from ios_files import contact, lines

from appcadence.errors import TelemetryError
from appcadence.telemetry.ingest.convert import convert


def packed(path, kind, filler):
    """An archive of a report and, after it, bytes that no packing makes shorter."""
    report = lines(path.parent / "report.ndjson", [contact()]).read_bytes()
    with tarfile.open(path, f"w:{kind}") as out:
        for name, data in (("report.ndjson", report), ("picture.bin", random.Random(0).randbytes(filler))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path.read_bytes()


# Of bzip2 nothing comes out before the end of a block, of 900 kB.
KINDS = [(kind, filler) for kind in ("gz", "xz", "") for filler in (20_000, 3_000_000)] + [("bz2", 3_000_000)]


@pytest.mark.parametrize(("kind", "filler"), KINDS)
def test_the_members_before_the_cut_are_read(tmp_path, kind, filler):
    path = tmp_path / "report.archive"
    whole = packed(path, kind, filler)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    report = convert([path], tmp_path / "out", device_id="p")
    assert report.tables == {"contact_summaries": 1}
    assert "cut off" in report.collections[0].summary()


@pytest.mark.parametrize("filler", [20_000, 3_000_000])
def test_bytes_after_the_end_change_nothing(tmp_path, filler):
    path = tmp_path / "report.tar.gz"
    path.write_bytes(packed(path, "gz", filler) + b"more" * 100)
    assert convert([path], tmp_path / "out", device_id="p").tables == {"contact_summaries": 1}


def test_a_zip_without_its_directory_says_what_to_do(tmp_path):
    path = tmp_path / "report.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("report.ndjson", lines(tmp_path / "report.ndjson", [contact()]).read_bytes())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TelemetryError, match=r"cut off or damaged: its directory.*zip -FF"):
        convert([path], tmp_path / "out", device_id="p")
