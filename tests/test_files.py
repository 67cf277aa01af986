import ast
import hashlib
import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

import appcadence
from appcadence import _files
from appcadence._files import (
    check_output,
    exchange,
    lock,
    move,
    recover,
    replacing,
    replacing_directory,
    scratch,
    write_text,
)
from appcadence._inputs import open_input, read_bytes, sha256
from appcadence.errors import AppcadenceError
from appcadence.telemetry.directory import DirectoryWriter
from appcadence.triage.audit_log import append

HERE = Path(__file__).parent
ROOM = Path(appcadence.__file__).parent

# A bank account that several processes pay into at once.
DEPOSIT = """
import sys
from pathlib import Path
from appcadence._files import replacing, scratch
account = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with scratch(account, wait=True) as place, replacing(account, place) as file:
        file.write_text(str(int(account.read_text()) + 1))
"""
FULL_DISK = """
import resource, sys
from pathlib import Path
from appcadence._files import replacing_directory, scratch, write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[1])
try:
    if target.is_dir():
        with scratch(target) as place, replacing_directory(target, place) as new:
            (new / "part").write_text("new" * 1000)
    else:
        write_text(target, "new" * 1000)
except OSError as error:
    print(error.strerror)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part").write_text("old")
    return tmp_path / "folder"


@pytest.fixture(params=["in one step", "in two renames"])
def either_way(request, monkeypatch):
    if request.param == "in two renames":
        monkeypatch.setattr(_files, "exchange", lambda first, second: False)


@pytest.mark.parametrize(
    ("scenario", "steps"),
    [("a_file", 3), ("a_directory", 10), ("a_directory_in_two_renames", 12), ("a_conversion", 20)],
)
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, scenario, steps):
    (tmp_path / "place").mkdir()
    command = [sys.executable, HERE / "kill_steps.py", scenario, tmp_path / "place"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= steps


def test_what_fails_leaves_the_old_and_nothing_else(tmp_path, folder, either_way):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as written:
        written.write_text("half")
        raise KeyboardInterrupt
    with (
        pytest.raises(KeyboardInterrupt),
        scratch(folder) as place,
        replacing_directory(folder, place) as new,
    ):
        (new / "part").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path / "no" / "such" / "folder"):
        raise KeyboardInterrupt
    assert file.read_text() == (folder / "part").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_rename_that_fails_is_taken_back(folder, monkeypatch):
    monkeypatch.setattr(_files, "exchange", lambda first, second: False)
    real = os.rename

    def fails_on_the_new(source, target):
        if Path(source).name == "new" and not folder.exists():
            raise OSError("no")
        return real(source, target)

    monkeypatch.setattr(os, "rename", fails_on_the_new)
    with (
        pytest.raises(OSError, match="no"),
        scratch(folder) as place,
        replacing_directory(folder, place) as new,
    ):
        (new / "part").write_text("new")
    assert (folder / "part").read_text() == "old" and len(list(folder.parent.iterdir())) == 1


def test_a_full_disk_leaves_the_old(tmp_path, folder):
    file = tmp_path / "file"
    file.write_text("old")
    for target, part in ((file, file), (folder, folder / "part")):
        assert run(FULL_DISK, target) == "File too large\n"
        assert part.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_links_are_written_through(tmp_path, folder, either_way):
    for name, target in (("link", "file"), ("dangling", "not yet"), ("to folder", "folder")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "file").write_text("old")
    write_text(tmp_path / "link", "new")
    write_text(tmp_path / "dangling", "new")
    link = tmp_path / "to folder"
    with scratch(link) as place, replacing_directory(link, place) as new:
        (new / "part").write_text("new")
    for name, target in (("link", "file"), ("dangling", "not yet"), ("to folder", "folder")):
        assert (tmp_path / name).readlink() == Path(target)
    assert (tmp_path / "file").read_text() == (tmp_path / "not yet").read_text() == "new"
    assert (folder / "part").read_text() == "new"


def test_the_mode_stays(tmp_path, folder, either_way):
    file, fresh = tmp_path / "file", tmp_path / "fresh"
    file.write_text("old")
    file.chmod(0o640)
    folder.chmod(0o750)
    with replacing(file) as written:
        assert written.stat().st_mode & 0o077 == 0
        written.write_text("new")
    with scratch(folder) as place, replacing_directory(folder, place):
        pass
    old = os.umask(0o027)
    try:
        write_text(fresh, "new")
    finally:
        os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in (file, folder, fresh)] == [0o640, 0o750, 0o640]


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "directory"])
def test_what_is_no_regular_file_stays_what_it_is(tmp_path, kind):
    path = tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    else:
        path.mkdir()
    before = path.stat()
    for write in (check_output, lambda p: write_text(p, "new")):
        with pytest.raises(AppcadenceError, match=f"(target|null) is a {kind}; name a regular file"):
            write(path)
    for read in (open_input, read_bytes, sha256):
        # A socket cannot even be opened.
        with pytest.raises(OSError, match=f"it is a {kind}, not a regular file|No such device"):
            read(path)
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    if kind == "pipe":
        with (
            pytest.raises(AppcadenceError, match="is not a directory"),
            scratch(path) as place,
            replacing_directory(path, place),
        ):
            pass


def test_input_is_read_within_bounds(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * ((2 << 20) + 1))
    assert sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert read_bytes(file, (2 << 20) + 1) == file.read_bytes()
    with pytest.raises(OSError, match="it is larger than 2 MB"):
        read_bytes(file, 2 << 20)
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "none")


def test_a_scratch_directory_is_one_runs_alone(tmp_path):
    target = tmp_path / "sub" / "target"
    with (
        scratch(target),
        pytest.raises(
            AppcadenceError, match=rf"another run is writing .*target \(process {os.getpid()}\); start again"
        ),
        scratch(target),
    ):
        pass
    for resume in (True, False):
        with pytest.raises(KeyError), scratch(target, resume=True) as place:
            (place / "done").write_text("half of it")
            raise KeyError
        with scratch(target, resume=resume) as place:
            assert (place / "done").exists() == resume
        assert not place.exists()


def test_who_has_a_lock_is_named_though_it_says_so_a_moment_later(tmp_path):
    with scratch(tmp_path / "target") as place:
        (lock,) = place.iterdir()
        number = lock.read_bytes()
        lock.write_bytes(b"")
        later = threading.Timer(0.05, lock.write_bytes, [number])
        later.start()
        with (
            pytest.raises(AppcadenceError, match=rf"\(process {os.getpid()}\)"),
            scratch(tmp_path / "target"),
        ):
            pass
        later.join()


def test_writers_who_wait_lose_nothing(tmp_path):
    account = tmp_path / "account"
    account.write_text("0")
    command = [sys.executable, "-c", DEPOSIT, str(account), "40"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[1] for process in running]
    assert said == [""] * 4
    assert account.read_text() == "160" and list(tmp_path.iterdir()) == [account]


def test_two_writers_of_one_telemetry_directory(tmp_path):
    out = tmp_path / "telemetry"
    for adding in (False, True):
        with (
            DirectoryWriter(out, adding=adding),
            pytest.raises(AppcadenceError, match=r"another run is writing .*telemetry \(process"),
            DirectoryWriter(out, adding=True),
        ):
            pass


def test_a_directory_that_was_put_aside_comes_back(folder, tmp_path):
    place = tmp_path / ".folder.scratch"
    place.mkdir()
    folder.rename(place / "old")
    recover(folder)
    assert (folder / "part").read_text() == "old" and not (place / "old").exists()
    recover(folder)
    recover(tmp_path / "none")
    assert not (tmp_path / ".none.scratch").exists()


def test_an_exchange_is_one_step_or_nothing(tmp_path, folder, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    assert not exchange(folder, tmp_path / "none")
    if exchange(folder, other):
        assert (other / "part").read_text() == "old" and not list(folder.iterdir())
    monkeypatch.setattr(_files.ctypes, "CDLL", lambda name: object())
    assert not exchange(folder, other)


def test_without_posix_locks_only_writing_is_refused(tmp_path, monkeypatch):
    code = "import sys; sys.modules['fcntl'] = None; import appcadence.triage.audit_log, appcadence.nightly"
    assert run(code) == ""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    file = tmp_path / "file"
    file.write_text("old")
    assert read_bytes(file) == b"old"
    with pytest.raises(AppcadenceError, match="no POSIX file locks"):
        write_text(file, "new")
    assert file.read_text() == "old"
    with pytest.raises(AppcadenceError, match="no POSIX file locks"):
        append(tmp_path / "evidence.jsonl", "run", {}, datetime.now(UTC))


def test_locks_are_shared_or_not(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with file.open("rb") as one, file.open("rb") as two:
        assert lock(one.fileno(), shared=True) and lock(two.fileno(), shared=True, wait=False)
        assert not lock(one.fileno(), wait=False)


def test_moving_needs_no_target(tmp_path):
    (tmp_path / "a").write_text("new")
    move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new" and not (tmp_path / "a").exists()


BY_HAND = {"rename", "replace", "fsync", "flock", "lockf", "file_digest", "mkstemp", "link", "symlink"}


def test_no_other_module_replaces_locks_or_hashes_files_by_hand():
    found = set()
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, arguments = node.func.attr, len(node.args)
            text = name in ("replace", "rename") and (arguments != 1 or node.keywords)
            if name in BY_HAND and not text:
                found.add((path.relative_to(ROOM).as_posix(), name))
    assert {file for file, _ in found} == {"_files.py", "_inputs.py"}, found
