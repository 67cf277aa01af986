"""A small share of `make fuzz`, the same inputs every time; and what the whole of it has found."""

import gzip
import subprocess
import sys

import pytest
from fuzz.run import fuzz
from fuzz.targets import targets
from peak import KILOBYTES

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import DECLARATIONS, _lines

INPUTS = 100
NAMES = [
    *("leases", "suricata", "nfdump", "argus", "table", "zeek", "powerlog", *DECLARATIONS),
    *("knowledgec", "biome", "unified_log", "app_privacy_report", "zeek names"),
    *(f"inventory {kind}" for kind in ("mdm", "lists", "info", "ipa", "intune", "hand")),
    *("devices", "app map", "table map", "telemetry", "bundle", "output", "history", "labels", "exceptions"),
    *("settings", "decisions", "verdicts", "evidence", "spool"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("samples"))


def test_all_targets_are_fuzzed(found):
    assert sorted(found) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_read(found, name, tmp_path):
    tally, content = fuzz(found[name], tmp_path, 0, INPUTS)
    assert not tally.failures, f"{content!r}\n{tally.failures[0]}"
    assert tally.refused and tally.clean
    assert tally.inputs == tally.refused + tally.with_rejected + tally.clean


def test_the_samples_themselves_are_clean(found, tmp_path):
    for name, target in found.items():
        for seed in target.seeds:
            path = tmp_path / f"input{target.suffix}"
            path.write_bytes(seed)
            assert target.read(path) == 0, (name, seed)


def test_a_message_is_one_short_line():
    text = str(TelemetryError("/logs/a.csv: found " + "\x1b[2J\n\u2028" * 1000 + "; expected a log"))
    assert len(text) < 1000 and text.isprintable()
    assert text.startswith("/logs/a.csv: found ") and text.endswith("; expected a log")


def test_blocks_of_short_lines_have_few(tmp_path, monkeypatch):
    monkeypatch.setattr(_lines, "MAX_LINES", 3)
    path = tmp_path / "log"
    for content in (
        b"\n" * 20,
        b"a\nb\nc\nd\ne",
        b"x" * 50 + b"\n\n\n\n\n",
        b"\n\n\n\n" + b"x" * 50,
        b"a\n" * 4,
    ):
        path.write_bytes(content)
        blocks = list(_lines.blocks(path, "a log"))
        data = b"".join(block.data for block in blocks)
        skipped = content.removesuffix(data)
        assert content == skipped + data and skipped.strip() == b""
        begin = 1 + skipped.count(b"\n")
        assert all(block.data and block.ends == block.data.count(b"\n") <= 3 for block in blocks)
        assert [b.line for b in blocks] == [
            begin + sum(a.ends for a in blocks[:i]) for i in range(len(blocks))
        ]
        assert sum(block.size for block in blocks) == len(content)


_CONVERT = f"""
{KILOBYTES}
import sys
from appcadence.telemetry.ingest.convert import convert
report = convert([sys.argv[1]], sys.argv[2])
print(report.rejected, peak() // 1000)
"""


def test_a_gzip_bomb_of_bad_lines_fills_no_memory(found, tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(found["zeek"].seeds[-1] + b"x\n" * (5 << 20), 1))
    words = subprocess.check_output(
        [sys.executable, "-c", _CONVERT, path, tmp_path / "out"], text=True
    ).split()
    rejected, megabytes = map(int, words)
    assert rejected == 5 << 20
    assert megabytes < 1000
