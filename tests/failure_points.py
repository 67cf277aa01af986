"""Fail each disk step of a command once: the old or the new output must be left, whole.

Run as `python failure_points.py COMMAND PLACE MODEL [MODE...]`: prints, for each mode, at how many points it
failed and how the runs ended. Python and `appcadence._files` announce each step beforehand. The modes:

- kill: the process is killed there. Readers find the old or the new output; the next run gives the same bytes
  as an undisturbed one, and leaves nothing else behind.
- full: from there on the disk is full. The run ends with one sentence and exit code 2, or completes.
- broken: only that step fails. Then as `full`.
- turns: at each point one of these, in turn.
- disk: on a small tmpfs (needs the right to mount), with more room each time until all goes well. As `full`.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from make import fleet, summaries

from appcadence import _files, cli
from appcadence.models import bundle
from appcadence.telemetry.directory import TelemetryDirectory, existing, write_directory
from appcadence.telemetry.schema import CONTACT_SUMMARIES
from appcadence.training import train as training
from appcadence.triage import audit_log

for name in cli.COMMANDS:  # what is imported later would not be patched
    import_module(f"appcadence.cli.{name}")
MODES = ("kill", "full", "broken")
MAKING = {"os.mkdir", "open", "appcadence.sync"}
STEPS = MAKING | {
    "os.truncate",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.utime",
    "appcadence.exchange",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
State = Any
ZEEK = """#separator \\x09
#unset_field\t-
#path\tconn
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring
"""


def conn_log(file: str, first: int) -> None:
    """Two flows of two devices; logs whose first seconds differ hold different flows."""
    rest = "5000\t192.0.2.9\t443\ttcp\tssl\t1.5\t100\t200\tSF"
    rows = (f"{1_772_409_600 + first + n}.5\tC{first + n}\t10.0.0.{n + 1}\t{rest}\n" for n in range(2))
    Path(file).write_text(ZEEK + "".join(rows))


def stored(name: str) -> State:
    """What stands there, by the names of files: their content."""
    path = Path(name)
    if path.is_dir():
        return {str(f.relative_to(path)): _digest(f) for f in sorted(path.rglob("*")) if f.is_file()}
    return _digest(path) if path.exists() else None


def folder(name: str) -> State:
    """A directory as a reader finds it."""
    _files.recover(name)
    return stored(name)


def telemetry(name: str) -> State:
    """What counts of a telemetry directory."""
    _files.recover(name)
    if not Path(name).exists() or existing(Path(name)) is None:
        return None
    found = TelemetryDirectory(name)
    parts = {str(file): _digest(file) for table in found.tables() for file in found.files(table)}
    return parts, found.sources


def appended(name: str) -> State:
    """A file that is only added to: one without a line is as good as none."""
    return stored(name) if Path(name).exists() and Path(name).stat().st_size else None


def chain(name: str) -> State:
    """An evidence file that may tell of more than was recorded: that it is whole."""
    return audit_log.verify(name) is None if Path(name).exists() else False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Command:
    """A command, what is there before it, and how what it writes is read."""

    words: str
    outputs: Mapping[str, Callable[[str], State]]
    before: tuple[str | Callable[[], None], ...] = ()
    """Commands, or functions, that are done first."""
    repeated: bool = True
    """Done again, it changes nothing; else it is only done again where it had changed nothing."""
    patched: Callable[[], None] = field(default=lambda: None)
    """What is put in the place of work that is not on disk."""


def _train_at_once() -> None:
    detector, _ = bundle.load("model")
    quality = SimpleNamespace(metrics=dict)
    done = SimpleNamespace(detector=detector, params={}, quality=quality, trials=pd.DataFrame())
    training.train = lambda *asked, **more: done


def _in_two_renames() -> None:
    _files.exchange = lambda first, second: False


def _fleet() -> None:
    write_directory("fleet", fleet(devices=2, days=2, seed=3))


def _reports() -> None:
    rows = summaries({f"h{n}.example": 9 for n in range(9)})
    write_directory("reports", {"contact_summaries": CONTACT_SUMMARIES.of_rows(rows)})


def _decisions() -> None:
    text = "[[exception]]\nid = 'x'\nowner = 'o'\nreason = 'r'\nbusiness_justification = 'b'\n"
    Path("x.toml").write_text(f"{text}created = 2026-01-01\nexpires = 2099-12-31\napp_id = 'com.chat'\n")
    Path("apps.csv").write_text("bundle_id,app_name\ncom.chat,Chat\n")


def _first_log() -> None:
    conn_log("first.log", 0)
    conn_log("second.log", 60)


SCORE = "score fleet --model model --out scored"
VERDICT = (
    "verdict add --device d1 --dest a.example --start 2026-03-02 --end 2026-03-03 --verdict benign "
    "--analyst ana --justification probe --into verdicts.parquet --evidence decided.jsonl"
)
CONVERT = "convert first.log --out telemetry --local-net 10.0.0.0/8"
ADD = "convert first.log second.log --out telemetry --local-net 10.0.0.0/8"
MERGE = "inventory merge apps.csv --into fleet"
EVIDENCE = "scored.evidence.jsonl"
COMMANDS = {
    "convert": Command(CONVERT, {"telemetry": telemetry}, (_first_log,)),
    "convert-adding": Command(ADD, {"telemetry": telemetry}, (_first_log, CONVERT)),
    "inventory-merge": Command(MERGE, {"fleet": telemetry}, (_fleet, _decisions)),
    "inventory-template": Command(
        "inventory template fleet --out apps.toml", {"apps.toml": stored}, (_fleet,), repeated=False
    ),
    "simulate": Command(
        "simulate --out made --devices 2 --days 1",
        {"made": telemetry, "made.labels.parquet": stored},
        repeated=False,
    ),
    "features": Command("features fleet --out f.parquet", {"f.parquet": stored}, (_fleet,)),
    "train": Command("train fleet --out made --json", {"made": folder}, (_fleet,), patched=_train_at_once),
    "score": Command(SCORE, {"scored": folder, EVIDENCE: appended}, (_fleet,)),
    "score-again": Command(
        f"{SCORE} --history before --alerts-per-device-day 3",
        {"scored": folder, EVIDENCE: appended},
        (_fleet, SCORE.replace("scored", "before"), SCORE),
    ),
    "reapply": Command(
        "score --reapply --out scored --exceptions x.toml",
        {"scored": folder, EVIDENCE: appended},
        (_fleet, _decisions, SCORE),
    ),
    "report": Command(
        "report scored --html page.html --top 3",
        {"page.html": stored},
        (_fleet, SCORE, lambda: Path("page.html").write_text("old")),
    ),
    "verdict": Command(VERDICT, {"verdicts.parquet": stored, "decided.jsonl": chain}, repeated=False),
    "verdict-adding": Command(
        VERDICT.replace("ana ", "bob "),
        {"verdicts.parquet": stored, "decided.jsonl": chain},
        (VERDICT,),
        repeated=False,
    ),
    "weekly": Command("weekly reports --out w.parquet", {"w.parquet": stored}, (_reports,)),
    "readiness": Command("readiness fleet --html page.html", {"page.html": stored}, (_fleet,)),
    "phone": Command("phone first.log --html page.html", {"page.html": stored}, (_first_log,)),
}
COMMANDS["reapply-in-two-renames"] = replace(COMMANDS["reapply"], patched=_in_two_renames)


class _AnyTime(type):
    def __instancecheck__(cls, value):
        return isinstance(value, datetime)


class _Fixed(datetime, metaclass=_AnyTime):
    """Now is always the same."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 10, 1, tzinfo=tz)


def begun(work: Callable[[], object], said: str = "../said") -> int:
    """Do it in another process, whose number this is; what it says on standard error goes to a file."""
    child = os.fork()
    if child:
        return child
    for name, number in ((said, 2), (os.devnull, 1)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = 0
    try:
        work()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def ended(child: int, said: str = "../said") -> tuple[int, str]:
    """(exit code, negative for a signal; what it said) of what was begun, once it is done."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, Path(said).read_text()


def done(work: str | Callable[[], None]) -> tuple[int, str]:
    """The same of a command, or of a function, that is waited for."""
    return ended(begun((lambda: typed(work)) if isinstance(work, str) else work))


def prepared(steps: Iterable[str | Callable[[], None]], start: Path, model: Path) -> None:
    """Make a directory with a model and what the steps leave."""
    start.mkdir(parents=True)
    os.chdir(start)
    (start / "model").symlink_to(model.resolve())
    for step in steps:
        code, said = done(step)
        assert code == 0, said


def renewed(work: Path, start: Path) -> None:
    """Work in a fresh copy of a directory from now on."""
    os.chdir(start)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work, symlinks=True)
    os.chdir(work)


def typed(words: str) -> None:
    os.environ["SOURCE_DATE_EPOCH"] = str(int(_Fixed.now(UTC).timestamp()))
    for name, module in list(sys.modules.items()):
        if name.startswith("appcadence") and getattr(module, "datetime", None) is datetime:
            module.datetime = _Fixed
    sys.argv = ["appcadence", *shlex.split(words)]
    cli.main()


def failing(at: int, mode: str) -> None:
    """From now on this process fails at its step `at` in the directory it works in; 0 counts them alone."""
    here, numbers = Path.cwd(), itertools.count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or not arguments or isinstance(arguments[0], int):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        with suppress(TypeError):
            path = Path(os.fsdecode(arguments[0])).absolute()
            if here not in (path, *path.parents):
                return
        number = next(numbers)
        if not at:
            os.write(counted, b".")
        elif mode == "kill" and number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        elif mode == "broken" and number == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif mode == "full" and number >= at and event in MAKING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    counted = os.open("../counted", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(hook)


def sweep(command: Command, place: Path, model: Path, modes: tuple[str, ...]) -> dict[str, Any]:
    """Fail a command at each of its points, in each mode: the points, and how often it ended how."""
    start, work = place / "start", place / "work"

    def states() -> dict[str, State]:
        return {name: read(name) for name, read in command.outputs.items()}

    def run(at: int = 0, mode: str = "") -> tuple[int, str]:
        def fails() -> None:
            command.patched()
            if mode:
                failing(at, mode)
            typed(command.words)

        return done(fails)

    prepared(command.before, start, model)
    renewed(work, start)
    old, unchanged = states(), stored(".")
    code, said = run(0, "count")
    assert code == 0, said
    new, changed = states(), stored(".")
    assert new != old
    steps, listing = len(Path("../counted").read_bytes()), sorted(map(str, Path().iterdir()))
    answer: dict[str, Any] = {"points": steps}

    def after(code: int, said: str, mode: str, where: str) -> str:
        """Check what was left, and say what it was."""
        found = states()
        assert all(found[name] in (old[name], new[name]) for name in found), where
        if mode == "kill":
            assert code in (-signal.SIGKILL, 0), (where, code, said)
        elif code == 0:
            assert found == new, where
        else:
            one = said.startswith("appcadence: ") and said.count("\n") == 1
            assert code == 2 and one and "Traceback" not in said, (where, code, said)
        kept = "new" if found == new else "old" if found == old else "some of both"
        whole = stored(".") in (unchanged, changed)
        if mode == "disk":
            _mounted("remount,size=1g", work)
        if not whole and (command.repeated or found != new):
            code, said = run()
            assert code == 0, (where, "again", said)
            assert states() == new, (where, "again")
            assert sorted(map(str, Path().iterdir())) == listing, (where, sorted(map(str, Path().iterdir())))
        return kept + ("" if whole else ", then the new")

    for mode in modes:
        how: Counter[str] = Counter()
        if mode == "disk":
            os.chdir(place)
            shutil.rmtree(work)
            work.mkdir()
            for free in _sizes():
                _mounted("size=1g", work)
                shutil.copytree(start, work, symlinks=True, dirs_exist_ok=True)
                os.chdir(work)
                used = os.statvfs(".")
                _mounted(f"remount,size={(used.f_blocks - used.f_bfree) * used.f_frsize + free}", work)
                code, said = run()
                how[after(code, said, mode, f"{command.words}: {free:,} bytes free")] += 1
                os.chdir(place)
                subprocess.run(["umount", work], check=True)
                if code == 0:
                    break
        else:
            for at in range(1, steps + 1):
                renewed(work, start)
                now = MODES[at % len(MODES)] if mode == "turns" else mode
                code, said = run(at, now)
                how[after(code, said, now, f"{command.words}: {now} at point {at} of {steps}")] += 1
        answer[mode] = dict(how)
    return answer


def _mounted(options: str, place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)


def _sizes() -> Iterator[int]:
    """Bytes that are free on the disk: a page, two, ... and in steps of a tenth later."""
    size = 4096
    while True:
        yield size
        size += max(4096, size // 10 // 4096 * 4096)


if __name__ == "__main__":
    name, place, model, *modes = sys.argv[1:]
    answer = sweep(COMMANDS[name], Path(place).resolve(), Path(model), tuple(modes) or MODES)
    print(json.dumps(answer))
