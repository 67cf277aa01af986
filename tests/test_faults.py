"""What a machine may lack or get wrong: no cache, no home, devices as outputs, odd names, threads."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from failure_points import conn_log, stored
from make import fleet, summaries

import appcadence
from appcadence.cli import main
from appcadence.features.partition import write_features
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.schema import CONTACT_SUMMARIES

PACKAGE = Path(appcadence.__file__).parent
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
KERNEL = """
import numpy as np
from appcadence.features import _kernels
from appcadence.telemetry.readers import _iso_times
assert _kernels.bisect_left(np.array([1.0, 2.0]), 0, 2, 1.5) == 1
print(sum(_kernels.bisect_left.stats.cache_hits.values()))
"""


def bound_by_modes():
    """Root no more than others writes to what may not be written to."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types a command; returns (exit code, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["appcadence", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


def with_kernel(package, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", KERNEL],
        env=kept | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        preexec_fn=bound_by_modes,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


@pytest.mark.slow
def test_where_no_cache_can_be_written_it_compiles_anew_and_says_so_once(tmp_path):
    site, home = tmp_path / "site", tmp_path / "home"
    shutil.copytree(PACKAGE, site / "appcadence", ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    folders = [home, *(folder for folder in (site, *site.rglob("*")) if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        reused, said = with_kernel(site, HOME=str(home))
        assert reused == 0 and said.count("\n") == 1
        assert (
            said.startswith("appcadence: warning: compiled code cannot be cached")
            and "NUMBA_CACHE_DIR" in said
        )
        assert with_kernel(site, HOME=str(home), NUMBA_CACHE_DIR=str(tmp_path / "cache")) == (0, "")
        assert with_kernel(site, NUMBA_CACHE_DIR=str(tmp_path / "cache"))[0] == 1
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.slow
def test_a_cache_that_was_cut_off_is_made_again(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert [with_kernel(PACKAGE.parent, **cache) for _ in range(2)] == [(0, ""), (1, "")]
    for suffix in ("nbi", "nbc"):
        for file in (tmp_path / "cache").rglob(f"*.{suffix}"):
            os.truncate(file, file.stat().st_size // 2)
        assert [with_kernel(PACKAGE.parent, **cache) for _ in range(2)] == [(0, ""), (1, "")]


OUTPUTS = (
    ("convert first.log --out {}", "is not a directory"),
    ("inventory merge first.log --into {}", "is not a directory"),
    ("inventory template fleet --out {}", "is a {kind}"),
    ("simulate --devices 1 --days 1 --out {}", "is not a directory"),
    ("features fleet --out {}", "is a {kind}"),
    ("train fleet --out {}", "is not a directory"),
    ("score fleet --out {}", "is not a directory"),
    ("score fleet --out scored --evidence {}", "is a {kind}"),
    ("score fleet --out scored --log {}", "is a {kind}"),
    ("score fleet --out scored --syslog 127.0.0.1:9 --spool {}", "is not a directory"),
    ("report scored --html {}", "is a {kind}"),
    ("readiness fleet --html {}", "is a {kind}"),
    ("phone first.log --html {}", "is a {kind}"),
    ("phone first.log --keep {}", "is not a directory"),
    ("weekly reports --out {}", "is a {kind}"),
    (
        "verdict add --device d1 --dest a --start 2026-03-02 --end 2026-03-03 --verdict benign --analyst a "
        "--justification b --into {}",
        "is a {kind}",
    ),
)


@pytest.mark.parametrize(("words", "said"), OUTPUTS, ids=[words[:40] for words, _ in OUTPUTS])
def test_what_is_no_regular_file_is_never_replaced(tmp_path, monkeypatch, typed, words, said):
    monkeypatch.chdir(tmp_path)
    conn_log("first.log", 0)
    write_directory("fleet", fleet(devices=1, days=1))
    rows = summaries({"a.example": 9})
    write_directory("reports", {"contact_summaries": CONTACT_SUMMARIES.of_rows(rows)})
    os.mkfifo("pipe")
    before = stored(".")
    for path, kind in (("/dev/null", "device"), ("/dev/full", "device"), ("pipe", "pipe")):
        code, error = typed(*words.format(path).split())
        assert code == 2 and error.count("\n") == 1 and said.format(kind=kind) in error, error
        assert not Path(path).is_file() and Path(path).exists()
    assert stored(".") == before


def test_a_full_standard_output_is_one_sentence(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "appcadence", "formats"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (2, "appcadence: No space left on device\n")


@pytest.mark.parametrize(("words", "code"), [("--version", 0), ("score nowhere --out o", 2)])
def test_a_command_ends_without_taking_python_down(words, code, tmp_path):
    """Threads of Arrow that still hold Python's memory would abort it there."""
    script = (
        "import atexit, sys; from appcadence.__main__ import main\n"
        "class Held:\n  def __del__(self): print('taken down')\n"
        f"held = Held(); atexit.register(print, 'handled'); sys.argv[1:] = {words.split()}; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code and done.stdout.endswith("handled\n") and "taken" not in done.stdout


def test_names_that_are_not_utf_8(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"odd \xff\xfe")
    Path(odd).mkdir()
    log, page, evidence = (f"{odd}/{name}\udcff" for name in ("log", "page", "evidence"))
    conn_log(log, 0)
    assert typed("convert", log, "--out", "telemetry") == (0, "")
    assert typed("score", "telemetry", "--out", "scored", "--evidence", evidence) == (0, "")
    assert typed("report", "scored", "--html", page) == (0, "")
    assert Path(page).stat().st_size > 1000 and typed("evidence", "verify", evidence) == (0, "")
    before = sorted(Path().iterdir())
    code, error = typed("convert", log, "--out", f"{odd}t")
    assert code == 2 and "flows.parquet is not valid UTF-8" in error and error.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_threads_have_their_own_scratch(tmp_path):
    write_directory(tmp_path / "fleet", fleet(devices=2, days=2))
    for number in range(4):
        conn_log(str(tmp_path / f"{number}.log"), number)

    def work(place, number):
        place.mkdir()
        convert([tmp_path / f"{number}.log"], place / "telemetry", local_nets=["10.0.0.0/8"])
        write_features(tmp_path / "fleet", place / "f.parquet", ("6h", "24h")[number % 2])
        return stored(place)

    calm = [work(tmp_path / f"calm-{number}", number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        places = [tmp_path / f"at-once-{number}" for number in range(4)]
        assert list(pool.map(work, places, range(4))) == calm


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "appcadence", "formats", "list"),
        ("-c", "from appcadence.features._kernels import sort; import numpy as np; sort(np.ones(3))"),
    ],
    ids=["a command", "a kernel"],
)
def test_too_little_address_space_is_said_before_a_library_ends_the_process(words):
    done = subprocess.run(
        [sys.executable, *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (2 if words[0] == "-m" else 1)
    said = done.stderr.splitlines()[-1]
    assert "may use 2.0 GiB of address space and needs 3" in said and "ulimit -v" in said
