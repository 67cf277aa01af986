"""Packed logs, and logs in UTF-16, give what the plain ones give; what is damaged or too much is said."""

import bz2
import gzip
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pytest

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import _packed

ROWS = 3000
LOG = b"#separator \\x09\n#path\tconn\n"
LOG += b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tconn_state\n"
LOG += b"".join(
    b"%d.5\tC%d\t10.0.0.5\t%d\t192.0.2.1\t443\ttcp\tSF\n" % (i, i, 1 + i % 60_000) for i in range(ROWS)
)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}


@pytest.mark.parametrize("kind", PACK)
def test_packed_logs_of_one_or_several_streams(tmp_path, kind):
    path = tmp_path / "conn.log"
    cut = LOG.index(b"\n", len(LOG) // 2) + 5  # inside a line
    path.write_bytes(PACK[kind](LOG[:cut]) + PACK[kind](LOG[cut:]))
    report = convert([path], tmp_path / "out")
    assert report.fates == {"kept": ROWS}
    assert len(TelemetryDirectory(tmp_path / "out").read("flows")) == ROWS


@pytest.mark.parametrize("kind", PACK)
def test_what_is_cut_off_or_damaged_is_passed_over_whole(tmp_path, kind):
    good, cut, damaged = (tmp_path / name for name in ("good", "cut", "damaged"))
    whole = PACK[kind](LOG)
    good.write_bytes(PACK[kind](LOG[: len(LOG) // 2].rsplit(b"\n", 1)[0]))
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    middle = len(whole) // 2
    damaged.write_bytes(
        whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :]
    )
    report = convert([cut, good, damaged], tmp_path / "out")
    assert [bool(file.unusable) for file in report.files] == [True, False, True]
    assert all(kind in file.unusable for file in report.files if file.unusable)
    assert report.tables["flows"] == report.files[1].rows


@pytest.mark.parametrize("name", ["logs.tar", "logs.tar.gz", "logs.tar.bz2", "logs.tar.xz", "logs.zip"])
def test_archives(tmp_path, name):
    log = tmp_path / "conn.log"
    log.write_bytes(LOG)
    path = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(log, "conn.log")
    else:
        with tarfile.open(path, "w:" + name.removeprefix("logs.tar").removeprefix(".")) as archive:
            archive.add(log, "conn.log")
    assert convert([path], tmp_path / "out").fates == {"kept": ROWS}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_other_encodings(tmp_path, encoding):
    path = tmp_path / "conn.log"
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path.write_bytes(mark + LOG.decode().replace("\n", "\r\n").encode(encoding))
    assert convert([path], tmp_path / "out").fates == {"kept": ROWS}


@pytest.mark.parametrize("kind", PACK)
def test_what_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(_packed, "MIN_RATIO_BYTES", 1 << 20)
    monkeypatch.setattr(_packed, "MAX_RATIO", 30)
    path = tmp_path / "conn.log"
    path.write_bytes(PACK[kind](LOG + LOG[-1000:].split(b"\n", 1)[1] * 20_000))
    with pytest.raises(TelemetryError, match="unpacks to more than"):
        convert([path], tmp_path / "out")


def test_an_xz_file_that_wants_much_memory_is_refused(tmp_path):
    path = tmp_path / "conn.log"
    path.write_bytes(lzma.compress(LOG, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]))
    with pytest.raises(TelemetryError, match=r"damaged xz .*[Mm]emory"):
        convert([path], tmp_path / "out")
