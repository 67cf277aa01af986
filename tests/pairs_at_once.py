"""Two commands that write the same thing, started at once in separate processes, again and again.

Run as `python pairs_at_once.py FIRST SECOND PLACE MODEL [TIMES]`, with names from `ALL`: prints how often how
many of the two were refused because another run was writing. A refused command starts again; the final result
must equal that of running one after the other.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from failure_points import ADD, COMMANDS, CONVERT, VERDICT, begun, ended, prepared, renewed, stored, typed

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.triage import audit_log

TIMES = 20
TOLD = re.compile(
    r"appcadence: (another run is writing \S+( \(process \d+\))?; start again when it has finished"
    r"|\S+ was replaced by another run (before this one was recorded|while it was read; start again)"
    r"|\S+ (exists|is not empty).*)\n"
)


def _lines(name: str) -> int:
    return audit_log.verify(name).lines if Path(name).exists() else 0


def _sources(name: str) -> list[str]:
    """What was converted: which parts it lies in depends on who came first."""
    return sorted(e["sha256"] for e in TelemetryDirectory(name).sources) if Path(name).exists() else []


def _like(name: str, words: str, **more) -> object:
    return replace(COMMANDS[name], words=words, **more)


DECIDED = {"verdicts.parquet": stored, "decided.jsonl": _lines}
ADDED = {"telemetry": _sources}
ALL = COMMANDS | {
    "convert": _like("convert", CONVERT, outputs=ADDED),
    "convert-second": _like("convert", CONVERT.replace("first", "second"), outputs=ADDED),
    "convert-both": _like("convert", ADD, outputs=ADDED),
    "verdict": _like("verdict", VERDICT, outputs=DECIDED),
    "verdict-other": _like("verdict", VERDICT.replace("ana ", "bob "), outputs=DECIDED),
    "score-budget": _like("score", f"{COMMANDS['score'].words} --alerts-per-device-day 3"),
    "score-verdicts": _like(
        "score",
        f"{COMMANDS['score'].words} --verdicts verdicts.parquet",
        before=(*COMMANDS["score"].before, VERDICT.replace("ana ", "bob ")),
    ),
    "reapply-none": _like("reapply", "score --reapply --out scored"),
    "features-hours": _like("features", "features fleet --out f.parquet --window 6h"),
    "report-short": _like("report", "report scored --html page.html --top 1"),
}
PAIRS = (
    ("convert", "convert-second"),
    ("convert", "convert-both"),
    ("convert-adding", "convert-adding"),
    ("inventory-merge", "inventory-merge"),
    ("inventory-template", "inventory-template"),
    ("simulate", "simulate"),
    ("features", "features-hours"),
    ("train", "train"),
    ("score", "score"),
    ("score", "score-budget"),
    ("score-again", "reapply"),
    ("reapply", "reapply-none"),
    ("reapply", "report"),
    ("report", "report-short"),
    ("verdict", "verdict"),
    ("verdict", "verdict-other"),
    ("verdict", "score-verdicts"),
    ("weekly", "weekly"),
)


def at_once(first: str, second: str, place: Path, model: Path, times: int = TIMES) -> dict[str, int]:
    """Run two of `ALL` at once, so many times; how often how many of them were told to start again."""
    both = [ALL[first], ALL[second]]
    outputs = {**both[0].outputs, **both[1].outputs}
    start, work = place / "start", place / "work"

    def states() -> list[object]:
        return [read(name) for name, read in outputs.items()]

    def begin(words: str, patched, delay: float, said: str) -> int:
        def acts() -> None:
            patched()
            time.sleep(delay)
            typed(words)

        return begun(acts, said)

    prepared(dict.fromkeys((*both[0].before, *both[1].before)), start, model)
    allowed, took = [], 0.0
    for order in (both, both[::-1]):
        renewed(work, start)
        for command in order:
            since = time.monotonic()
            ended(begin(command.words, command.patched, 0.0, "../said"))
            took = time.monotonic() - since
        allowed.append(states())
    rng, how = random.Random(0), Counter()
    for _ in range(times):
        renewed(work, start)
        said = ["../said-0", "../said-1"]
        delays = (0.0, rng.uniform(0, took))
        running = [
            begin(command.words, command.patched, delay, file)
            for command, delay, file in zip(both, delays, said, strict=True)
        ]
        told = 0
        for command, child, file in zip(both, running, said, strict=True):
            code, text = ended(child, file)
            if code == 0:
                continue
            assert code == 2 and TOLD.fullmatch(text), (command.words, code, text)
            told += 1
        for command, file in zip(both, said, strict=True):
            if "start again" in Path(file).read_text():
                code, text = ended(begin(command.words, command.patched, 0.0, file), file)
                assert code == 0 or TOLD.fullmatch(text), (command.words, "again", text)
        assert states() in allowed, (first, second, states(), allowed)
        assert not list(Path().glob(".*.scratch")), sorted(Path().iterdir())
        how[f"{told} told"] += 1
    return dict(how)


if __name__ == "__main__":
    first, second, place, model, *times = sys.argv[1:]
    print(json.dumps(at_once(first, second, Path(place).resolve(), Path(model), *map(int, times))))
