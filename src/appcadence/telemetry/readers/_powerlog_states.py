"""What was on the screen of a phone, lit and unlocked, from all of its PowerLogs together.

A device starts a new log every day or so, and each sysdiagnose contains the latest ones. Logs that follow or
overlap each other form one timeline, so that a span cut by one of them is whole, and counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from appcadence._types import Ints
from appcadence.telemetry.readers._device_log import app_id, is_app
from appcadence.telemetry.readers._powerlog_tables import PowerLog

SILENCE_SECONDS = 1800
"""Without a record for this long, the device was off; asleep, it logs its battery at least every 26 min."""

SCREEN = "PLScreenStateAgent_EventForward_ScreenState"
_LOCK = "PLSpringBoardAgent_EventForward_SBLock"
_BACKLIGHT = "PLDisplayAgent_EventPoint_Display"
_BRIGHTNESS = "PLDisplayAgent_EventForward_Display"
_SIGNS_OF_LIFE = ("PLBatteryAgent_EventBackward_Battery", "PLApplicationAgent_EventForward_Application")
_PANELS = ("", "X")
"""Suffixes of the tables of the first and (from iOS 27 on) second screen of the device."""
_OWN = (None, 0)
"""`Display` of the device's own screen; others (CarPlay, AirPlay) stay on when it goes dark."""
_FLOATING = 5
"""`AppRole` of Picture in Picture, which lies over the app in front."""

Change = tuple[int, bool]
State = tuple[str | None, str, int, int]
Layouts = dict[tuple[str, object], dict[int, set[str]]]
Span = tuple[int, int]


class Timeline:
    """The changes of state in all logs of one device."""

    def __init__(self) -> None:
        self._seen: list[Ints] = []
        self._covered: list[tuple[int, int, Path]] = []
        self._unlocked: set[Change] = set()
        self._screen_on: dict[str, set[Change]] = {panel: set() for panel in _PANELS}
        self._layouts: Layouts = {}

    def add(self, log: PowerLog, path: Path) -> None:
        """Read the state records of one log; all its other records must have been read before."""
        self._unlocked.update(_changes(log, _LOCK, "Locked", 0))
        for panel in _PANELS:
            self._screen_on[panel].update(_screen_on(log, panel))
            for (display, time), apps in _layouts(log, panel):
                self._layouts.setdefault((panel, display), {}).setdefault(time, set()).update(apps)
        for name in _SIGNS_OF_LIFE:
            for _ in log.rows(name, (), count=False):
                pass
        seen = np.unique(np.fromiter(log.seen, np.int64))
        if len(seen):
            self._seen.append(seen)
            self._covered.append((int(seen[0]), int(seen[-1]), path))

    def states(self) -> Iterator[tuple[Path, list[State]]]:
        """The spans of all logs, each with the log that covers its start."""
        if not self._seen:
            return
        seen = np.unique(np.concatenate(self._seen)).tolist()
        gaps, end = silences(seen, SILENCE_SECONDS * 1_000_000), seen[-1]
        states: list[State] = []
        kinds = [("device_unlocked", self._unlocked)] + [
            ("screen_on", lit) for lit in self._screen_on.values()
        ]
        for kind, changes in kinds:
            states += [(None, kind, *span) for span in spans(sorted(changes), gaps, end)]
        for (panel, display), records in self._layouts.items():
            dark = [(time, False) for time, on in self._screen_on[panel] if not on and display in _OWN]
            for app in sorted(set().union(*records.values())):
                shown = [(time, app in apps) for time, apps in records.items()]
                states += [(app, "app_foreground", *span) for span in spans(sorted(shown + dark), gaps, end)]
        begun: dict[Path, list[State]] = {}
        for state in states:
            path = next(path for first, last, path in self._covered if first <= state[2] <= last)
            begun.setdefault(path, []).append(state)
        yield from begun.items()


def _screen_on(log: PowerLog, panel: str) -> list[Change]:
    changes = _changes(log, _BACKLIGHT + panel, "Active", 1, only=("Block", "Backlight"))
    if changes:
        return changes
    found = []
    for line, _, time, (level,) in log.rows(_BRIGHTNESS + panel, ("Brightness",)):
        if isinstance(level, int | float):
            found.append((time, level > 0))
        else:
            log.reject(_BRIGHTNESS + panel, line, "Brightness is no number")
    return found


def _changes(
    log: PowerLog, name: str, column: str, on: int, only: tuple[str, str] | None = None
) -> list[Change]:
    """When a state began and ended. Only its value `on` begins it and any other ends it, also one that is not
    known: a screen that always shows the time is lit with the value 2, and nobody is looking."""
    changes = []
    for line, _, time, (value, block) in log.rows(name, (column, only[0] if only else column)):
        if only and block != only[1]:
            continue
        if isinstance(value, int | float):
            changes.append((time, value == on))
        else:
            log.reject(name, line, f"{column} is no number")
    return changes


def _layouts(log: PowerLog, panel: str) -> Iterator[tuple[tuple[object, int], set[str]]]:
    """The apps shown from then on, by display and time; records with the same time form one layout.

    An empty layout is a single record without an app.
    """
    records: list[tuple[object, int, str]] = []
    name = SCREEN + panel
    for line, _, time, (bundle, display, role) in log.rows(name, ("bundleID", "Display", "AppRole")):
        app = app_id(bundle)
        if app is None and bundle not in (None, ""):
            log.reject(name, line, "bundleID is no bundle id")
        elif role != _FLOATING:
            records.append((display, time, app or ""))
    by_layout = sorted(records, key=lambda record: (str(record[0]), record[1]))
    for layout, group in groupby(by_layout, itemgetter(0, 1)):
        yield layout, {app for _, _, app in group if app and is_app(app)}


def silences(times: Iterable[int], longest: int) -> list[Span]:
    """The gaps between consecutive times that are wider than `longest`, in order."""
    ordered = sorted(set(times))
    return [(a, b) for a, b in zip(ordered, ordered[1:], strict=False) if b - a > longest]


def spans(changes: Iterable[tuple[int, bool]], gaps: Sequence[Span], end: int) -> list[Span]:
    """When a state was on.

    Args:
        changes: (time, on or off), sorted by time. A repeated "on" is no change.
        gaps: stretches without any record. A state that was on before one stays on until it begins; the
            state after one is known only from the next change.
        end: the time of the last record; a state that is on ends there.

    Returns:
        (start, end) in order, none of them empty.
    """
    result: list[Span] = []
    start: int | None = None
    at = 0

    def close(time: int) -> None:
        nonlocal start
        if start is not None and start < time:
            result.append((start, time))
        start = None

    def advance(time: int) -> None:
        nonlocal at
        while at < len(gaps) and gaps[at][1] <= time:
            if start is not None and start <= gaps[at][0]:
                close(gaps[at][0])
            at += 1

    for time, on in changes:
        advance(time)
        if on and start is None:
            start = time
        elif not on:
            close(time)
    advance(end)
    close(end)
    return result
