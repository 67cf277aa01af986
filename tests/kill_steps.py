"""Kill work on disk after its first, second, ... step; whatever is left must be whole.

Run as `python kill_steps.py SCENARIO DIRECTORY`: prints after how many kills the work completed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from appcadence import _files
from appcadence._files import recover, replacing_directory, scratch, write_text
from appcadence.telemetry.directory import DirectoryWriter, TelemetryDirectory, existing

STEPS = ("mkdir", "open", "rename", "replace", "rmdir", "unlink")
OLD, NEW = "old " * 1000, "new " * 1000


def in_child(work: Callable[[], None], steps: int = 0) -> bool:
    """Do it in a child that is killed at its given step (0 = none); whether it was."""
    child = os.fork()
    if child == 0:
        os.fsync = lambda handle: None  # a killed process loses nothing that the system has
        if steps:
            _kill_at(steps)
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit(1)
    return False


def _kill_at(steps: int) -> None:
    left = iter(range(steps - 1, -1, -1))

    def step(real: Callable) -> Callable:
        def followed(*args, **more):
            done = real(*args, **more)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return followed

    for name in STEPS:
        setattr(os, name, step(getattr(os, name)))
    _files.exchange = step(_files.exchange)


def kills(begin: Callable[[], None], work: Callable[[], None], whole: Callable[[], None]) -> int:
    for steps in itertools.count(1):
        begin()
        if not in_child(work, steps):
            return steps - 1
        in_child(whole)
    raise AssertionError


def write_folder(target: Path, text: str) -> None:
    with scratch(target) as place, replacing_directory(target, place) as new:
        for name in ("one", "two"):
            (new / name).write_text(text)


def is_whole(target: Path, *texts: str) -> None:
    recover(target)
    found = {(target / name).read_text() for name in ("one", "two")}
    assert len(found) == 1 and found <= set(texts), found


def a_file(place: Path) -> int:
    target = place / "file"

    def whole() -> None:
        assert target.read_text() in (OLD, NEW)
        write_text(target, NEW)
        assert target.read_text() == NEW

    return kills(lambda: target.write_text(OLD), lambda: write_text(target, NEW), whole)


def a_directory(place: Path) -> int:
    target = place / "folder"

    def whole() -> None:
        is_whole(target, OLD, NEW)
        write_folder(target, "next")
        is_whole(target, "next")
        assert [file.name for file in place.iterdir()] == ["folder"]

    return kills(lambda: write_folder(target, OLD), lambda: write_folder(target, NEW), whole)


def a_directory_in_two_renames(place: Path) -> int:
    _files.exchange = lambda first, second: False
    return a_directory(place)


def a_conversion(place: Path) -> int:
    target, first = place / "telemetry", place.with_name("first")

    def add(number: int) -> None:
        with DirectoryWriter(target, adding=True) as writer:
            existing(target)  # is not refused
            writer.conversion, writer.sources = str(number), [{"sha256": str(number)}]
            columns = {
                "app_id": [f"app{number}"],
                "snapshot_time": pa.array([number], pa.timestamp("us", "UTC")),
            }
            writer.write("inventory", pa.table(columns))
            columns = {"file": ["x"], "line": [number], "reason": ["y"]}
            writer.write("rejected", pa.table(columns))

    def whole() -> None:
        if existing(target) is None:
            add(1)
        found = TelemetryDirectory(target)
        known = sorted(entry["sha256"] for entry in found.sources)
        assert known in (["1"], ["1", "2"])
        assert sorted(found.read("inventory")["app_id"].to_pylist()) == [f"app{n}" for n in known]
        assert sorted(found.read("rejected")["line"].to_pylist()) == [int(n) for n in known]
        add(3)
        assert len(TelemetryDirectory(target).read("inventory")) == len(known) + 1
        assert [file.name for file in place.iterdir()] == ["telemetry"]

    def begin() -> None:
        for left in place.iterdir():
            shutil.rmtree(left)
        shutil.copytree(first, target)

    first.mkdir()
    into_nothing = kills(begin, lambda: add(1), whole)
    target.rename(first)
    return into_nothing + kills(begin, lambda: add(2), whole)


if __name__ == "__main__":
    scenario = {f.__name__: f for f in (a_file, a_directory, a_directory_in_two_renames, a_conversion)}
    print(scenario[sys.argv[1]](Path(sys.argv[2])))
