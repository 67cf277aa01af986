"""Feeds damaged files to everything that reads one: `python -m fuzz.run [INPUTS] [TARGET...]`.

An input must be read into tables as declared, with bad rows in `rejected`, or be refused by an
AppcadenceError of one line that names the file; of every tenth the whole command is run as well, and must
leave nothing behind if it fails. Anything else is a failure: another exception, more than LIMIT_SECONDS of
CPU, more than MEMORY_BYTES on top of what the imports take. A failing input, shrunk, is left in build/fuzz.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import HypothesisWarning

from appcadence.errors import AppcadenceError
from fuzz.damage import damaged
from fuzz.target import Target
from fuzz.targets import check_directory, targets

LIMIT_SECONDS = 10.0
MEMORY_BYTES = 1 << 30
_CHUNK = 2_500
_WHOLE_EVERY = 10
_LEFT = Path("build/fuzz")


@dataclass
class Tally:
    """What became of some inputs."""

    inputs: int = 0
    refused: int = 0
    with_rejected: int = 0
    clean: int = 0
    slowest: float = 0.0
    """Seconds."""
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.refused += other.refused
        self.with_rejected += other.with_rejected
        self.clean += other.clean
        self.slowest = max(self.slowest, other.slowest)
        self.failures += other.failures


class Inputs:
    """Gives single inputs to a target, in a directory of its own, and looks at what happens."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.tally = Tally()
        self.path = folder / f"input{target.suffix}"
        self._target = target
        self._folder = folder

    def take(self, content: bytes) -> None:
        self.path.write_bytes(content)
        self.tally.inputs += 1
        begin = time.process_time()
        rejected = self._try(lambda: self._target.read(self.path))
        seconds = time.process_time() - begin
        self.tally.slowest = max(self.tally.slowest, seconds)
        assert seconds < LIMIT_SECONDS, f"took {seconds:.1f} s"
        if rejected is None:
            self.tally.refused += 1
        elif rejected:
            self.tally.with_rejected += 1
        else:
            self.tally.clean += 1
        whole, out = self._target.whole, self._folder / "out"
        if whole and self.tally.inputs % _WHOLE_EVERY == 0:
            done = self._try(lambda: whole(self.path, out))
            # The command also refuses what holds nothing that counts.
            assert done is None or rejected is not None, "the reader and the command do not agree"
            # Where no source of an inventory says anything, none is written.
            if done is not None and out.exists():
                check_directory(out)
                shutil.rmtree(out)
        left = [entry.name for entry in self._folder.iterdir() if entry != self.path]
        assert not left, f"left behind: {left}"

    def _try(self, step: Callable[[], object]) -> object:
        """What a step gives, None where it refuses its file as it should."""
        try:
            return step()
        except AppcadenceError as error:
            text = str(error)
            named = self._target.named or self.path.name
            assert text.isprintable() and named in text and len(text) <= 1000, text
            return None


def fuzz(target: Target, folder: Path, number: int, inputs: int) -> tuple[Tally, bytes]:
    """Some inputs of a target, drawn after a number; and the last of them, which is the one that failed."""
    given_to = Inputs(target, folder)

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(damaged(target.seeds) if target.inputs is None else target.inputs)
    def feed(content: bytes) -> None:
        given_to.take(content)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # an input is too long to be shown
            feed()
    except BaseException as error:
        given_to.tally.failures.append("".join(traceback.format_exception(error)))
    return given_to.tally, given_to.path.read_bytes()


def _confine() -> None:
    """In a worker, once the samples are made: one thread, and bounded memory."""
    pa.set_cpu_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
    limit = int(used.split()[1]) * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def _chunk(name: str, number: int, inputs: int) -> Tally:
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as scratch:
        folder = Path(scratch) / "work"
        folder.mkdir()
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        target = targets(Path(scratch) / "samples")[name]
        _confine()
        tempfile.tempdir = str(folder)
        faulthandler.dump_traceback_later(600, exit=True)
        tally, last = fuzz(target, folder, number, inputs)
        faulthandler.cancel_dump_traceback_later()
        tempfile.tempdir = None
    if tally.failures:
        _LEFT.mkdir(parents=True, exist_ok=True)
        file = _LEFT / f"{name.replace(' ', '-')}-{number}{target.suffix}"
        file.write_bytes(last)
        file.with_name(f"{file.name}.txt").write_text("\n".join(tally.failures))
    return tally


def _memory() -> str | None:
    """A file system in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as scratch:
        names = sys.argv[2:] or list(targets(Path(scratch)))
    chunks = [(start, min(_CHUNK, inputs - start)) for start in range(0, inputs, _CHUNK)]
    begin, failed = time.monotonic(), 0
    print(f"{'':<20}{'inputs':>8}{'refused':>9}{'rejected':>10}{'clean':>8}{'slowest ms':>12}")
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {n: [pool.submit(_chunk, n, start, count) for start, count in chunks] for n in names}
        for name, futures in running.items():
            tally = Tally()
            for future in futures:
                tally.add(future.result())
            failed += len(tally.failures)
            print(
                f"{name:<20}{tally.inputs:>8}{tally.refused:>9}{tally.with_rejected:>10}{tally.clean:>8}"
                f"{1e3 * tally.slowest:>12.0f}",
                flush=True,
            )
    print(f"{time.monotonic() - begin:.0f} s, {failed} failures" + (f"; inputs in {_LEFT}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
