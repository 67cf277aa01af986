"""PowerLog (`powerlog_*.PLSQL`, `CurrentPowerlog.PLSQL`; SQLite, plain or gzip) of a sysdiagnose.

Gives pushes, keep-alives and background transfers (`notifications`); apps in front, unlocked and lit
screen (`activity`); `flows` and `usage`; and the installed apps (`inventory`). Every table and column is
optional except the clock: times are corrected to UTC by the latest TimeOffset record at or before them; times
before the first record use the first.

Push times are coarse, and their resolution is measured. An iOS 15 log rounds them to the minute (the device
woke 7 s before, 6 s before and 12 s after three of its timestamps). A push gets the earliest moment that its
timestamp can mean, half the resolution before it. The log's own clock is rounded, so the corrected times are
not multiples of a minute.

An app is in front from its ScreenState record to the next one of that display, or until the device's own
screen goes dark. The home and lock screens are not apps, and a video that floats over another app is not in
front. If the logs are silent for half an hour (the device was off), intervals end with the last record before
that; at the end of the last log, they end with its last record. A background transfer counts once, at the
first record of its task, for the client that asked for it. The app that a daemon fetches something for (App
Store downloads) is not read.

The network use of processes in slots of 8 s becomes flows without a destination (`_network_bitmaps`), their
bytes per interval become `usage`, and background work that iOS scheduled becomes `tasks`. `coverage` says
when the log would have shown any use.

Not read: app states (their codes are undocumented) and hourly aggregates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import pyarrow as pa

from appcadence._types import DAY_US
from appcadence.telemetry.readers import Batches, ReadOptions, _sqlite, rejected, tagged
from appcadence.telemetry.readers._device_log import (
    FINEST_SECONDS,
    app_id,
    device_of,
    resolution_seconds,
    table,
)
from appcadence.telemetry.readers._network_bitmaps import BITMAPS, SLOT_SECONDS, Use, use_of
from appcadence.telemetry.readers._powerlog_states import SCREEN, Timeline
from appcadence.telemetry.readers._powerlog_tables import EXPECTED, OFFSET, PowerLog, process_name
from appcadence.telemetry.schema import ACTIVITY, COVERAGE, FLOWS, INVENTORY, NOTIFICATIONS, TASKS, USAGE

NAME = "powerlog"

_PUSH = "PLPushAgent_EventPoint_ReceivedPush"
_COURIER = {
    "PLPushAgent_EventPoint_SentKeepAlive": "apns_keepalive",
    "PLPushAgent_EventPoint_APSDConnectedEvent": "apns_connected",
}
_TRANSFER = "PLXPCAgent_EventPoint_BackgroundTransfer"
_APPS = "PLApplicationAgent_EventNone_AllApps"
_SILENT: dict[_sqlite.Value, bool] = {"background": True, "alert": False}
"""By APNs push type, for logs that have it as text."""
_CLIENT = re.compile(r"[^:]*:\[([^:\]]+)")
_EVENT_FIELDS = ("app_id", "time", "kind", "priority", "content_available", "size_bytes")
_STATE_FIELDS = ("app_id", "kind", "start", "end")
_USAGE_FIELDS = ("app_id", "start", "end", "bytes_out", "bytes_in")
_TASK_FIELDS = ("app_id", "start", "end")
_SPAN_FIELDS = ("start", "end")
_APP_FIELDS = ("app_id", "app_name", "version", "snapshot_time")

Event = tuple[str | None, int, str, int | None, bool | None, int | None]
_USAGE_DIFF = "PLProcessNetworkAgent_EventInterval_UsageDiff"
_USAGE_COLUMNS = ("BundleName", "ProcessName", "timestampEnd", "WifiOut", "CellOut", "WifiIn", "CellIn")
_MAX_BYTES = 1 << 50

Interval = tuple[str, int, int, int, int]
_TASKS = "PLDuetService_EventNone_DASActivity"
_TASK_COLUMNS = ("bundleID", "application", "taskName", "duration", "involvedProcesses")
_MAX_TASK_SECONDS = 86_400

Task = tuple[str, int, int]


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file is an SQLite database with tables of a PowerLog; never raises."""
    return _sqlite.has_table(path, start, (OFFSET, _PUSH, SCREEN, _APPS, BITMAPS), EXPECTED)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield notifications, activity and inventory, and rejected rows, of PowerLogs of one device.

    A rejected row's line is its row id, and its reason begins with its table.

    Raises:
        UnusableFile: the device is not given, or a file is missing, damaged, no PowerLog, or has no
            usable TimeOffset record.
    """
    timeline = Timeline()
    same: dict[str, object] = {}
    for path in paths:
        constants: dict[str, object] = {"device_id": device_of(path, options)}
        logged: dict[str, object] = constants | {"source": NAME}
        with _sqlite.opened(path, EXPECTED) as database:
            options.said.update(database.said)
            log = PowerLog(database)
            pushes, coarse = _pushes(log)
            others = _courier(log) + _transfers(log)
            apps = _apps(log)
            use, usage = use_of(log), _usage(log)
            tasks = _tasks(log, {app for app, *_ in apps}.union(use.process))
            timeline.add(log, path)
        # First, because other rows are folded into the apps that it names.
        yield "inventory", tagged(table(INVENTORY, _APP_FIELDS, apps, constants), path)
        for events, resolution in ((pushes, coarse), (others, FINEST_SECONDS)):
            same = logged | {"time_resolution_seconds": resolution}
            yield "notifications", tagged(table(NOTIFICATIONS, _EVENT_FIELDS, events, same), path)
        yield "flows", tagged(_flows(use, constants), path)
        yield "usage", tagged(table(USAGE, _USAGE_FIELDS, usage, logged), path)
        yield "tasks", tagged(table(TASKS, _TASK_FIELDS, tasks, logged), path)
        yield "coverage", tagged(table(COVERAGE, _SPAN_FIELDS, use.observed_us.tolist(), logged), path)
        yield from rejected(path, log.bad)
        same = logged | {"time_resolution_seconds": FINEST_SECONDS}
        yield "activity", tagged(ACTIVITY.empty(), path, log.read, path.stat().st_size)
    for path, states in timeline.states():
        yield "activity", tagged(table(ACTIVITY, _STATE_FIELDS, states, same), path)


def _flows(use: Use, constants: Mapping[str, object]) -> pa.Table:
    """Flows of which only process and time are known."""
    same = {
        **constants,
        "app_attribution": "exact",
        "outcome": "unknown",
        "source": NAME,
        "time_resolution_seconds": float(SLOT_SECONDS),
    }
    rows = list(zip(use.start_us.tolist(), use.duration_seconds.tolist(), use.process, strict=True))
    return table(FLOWS, ("start", "duration_seconds", "app_id"), rows, same)


def _pushes(log: PowerLog) -> tuple[list[Event], float]:
    events: list[Event] = []
    stamps = []
    columns = ("BundleID", "Topic", "Priority", "PushType", "Size", "IsDropped")
    for line, raw, time, (bundle, topic, priority, sort, size, dropped) in log.rows(_PUSH, columns):
        stamps.append(raw)
        if bundle not in (None, "") and app_id(bundle) is None:
            log.reject(_PUSH, line, "BundleID is no bundle id")
        elif not _count(priority, 100):
            log.reject(_PUSH, line, "Priority is no whole number from 0 to 100")
        elif not _count(size, 1 << 40):
            log.reject(_PUSH, line, "Size is no number of bytes")
        elif not dropped:
            app = app_id(bundle) or app_id(topic)
            events.append((app, time, "push_received", priority, _SILENT.get(sort), size))
    # The log rounds; a canonical time is the earliest that the timestamp can mean.
    coarse = resolution_seconds(stamps)
    early = int(coarse * 500_000) if coarse >= 1.0 else 0
    return [
        (a, time - early, kind, first, silent, size) for a, time, kind, first, silent, size in events
    ], coarse


def _count(value: _sqlite.Value, most: int) -> TypeGuard[int | None]:
    return value is None or (isinstance(value, int) and 0 <= value <= most)


def _courier(log: PowerLog) -> list[Event]:
    return [
        (None, time, kind, None, None, None)
        for name, kind in _COURIER.items()
        for _, _, time, _ in log.rows(name, ())
    ]


def _transfers(log: PowerLog) -> list[Event]:
    """One event per task: its first record, with the largest byte count of its records."""
    tasks: dict[object, tuple[str | None, int, int | None]] = {}
    columns = ("bundleID", "taskUUID", "bytesReceived", "bytesSent")
    for line, _, time, (bundle, task, received, sent) in log.rows(_TRANSFER, columns):
        named = _CLIENT.match(bundle) if isinstance(bundle, str) else None
        app = app_id(named[1] if named else bundle)
        if app is None:
            log.reject(_TRANSFER, line, "bundleID names no client")
        elif not _count(received, 1 << 60) or not _count(sent, 1 << 60):
            log.reject(_TRANSFER, line, "bytesReceived or bytesSent is no number of bytes")
        else:
            size = None if received is None and sent is None else (received or 0) + (sent or 0)
            key: object = (app, task) if task else line
            _, first, most = tasks.get(key, (app, time, None))
            known = [count for count in (size, most) if count is not None]
            tasks[key] = (app, min(first, time), max(known, default=None))
    return [(app, time, "background_transfer", None, None, size) for app, time, size in tasks.values()]


def _apps(log: PowerLog) -> list[tuple[str, str | None, str | None, int]]:
    apps = []
    columns = ("AppBundleId", "AppName", "AppBundleVersion", "AppDeletedDate")
    for line, _, time, (bundle, name, version, deleted) in log.rows(_APPS, columns):
        app = app_id(bundle)
        if app is None:
            log.reject(_APPS, line, "AppBundleId is no bundle id")
        elif not deleted:
            apps.append((app, _text(name), _text(version), time))
    return apps


def _text(value: _sqlite.Value) -> str | None:
    return value if isinstance(value, str) and value else None


def _usage(log: PowerLog) -> list[Interval]:
    """Intervals (five minutes awake, up to 42 asleep) in which a process sent or received anything, all
    interfaces together."""
    intervals = []
    for line, _, start, (bundle, process, until, *counts) in log.rows(_USAGE_DIFF, _USAGE_COLUMNS):
        name = process_name(bundle) or process_name(process)
        end = log.time(until)
        if name is None:
            log.reject(_USAGE_DIFF, line, "neither BundleName nor ProcessName is a name")
        elif end is None or not start <= end <= start + DAY_US:
            log.reject(_USAGE_DIFF, line, "timestampEnd is no time within a day after timestamp")
        elif not all(map(_is_count, counts)):
            log.reject(_USAGE_DIFF, line, "a byte count is no number")
        else:
            wifi_out, cell_out, wifi_in, cell_in = (int(count or 0) for count in counts)
            sent, received = wifi_out + cell_out, wifi_in + cell_in
            if sent or received:
                intervals.append((name, start, end, sent, received))
    return intervals


def _is_count(value: _sqlite.Value) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value <= _MAX_BYTES)


def _tasks(log: PowerLog, apps: Iterable[str]) -> list[Task]:
    """(app, start, end) of background work that iOS ran for an app at a time of its own choice.

    A record has the time at which the work began, in whole seconds, and its duration. It names the processes
    that the work was done for. If it does not, the task's name begins with the app's, as Apple requires
    (`BGTaskScheduler`: "com.example.app.refresh").

    `apps` are those known to the log: a task that names no process belongs to the longest of these that its
    name begins with.
    """
    known = sorted(apps, key=len, reverse=True)
    tasks: dict[Task, None] = {}
    for line, _, start, (bundle, application, task, duration, involved) in log.rows(_TASKS, _TASK_COLUMNS):
        if not isinstance(duration, int | float) or not 0 <= duration <= _MAX_TASK_SECONDS:
            log.reject(_TASKS, line, "duration is no number of seconds up to a day")
            continue
        texts = [text for text in (bundle, application, involved) if isinstance(text, str)]
        listed = [part.strip() for text in texts for part in text.split(",")]
        owners = {name for part in listed if (name := process_name(part))}
        if not owners and isinstance(task, str):
            owners = {app for app in known if task == app or task.startswith(f"{app}.")}
            owners = set(sorted(owners, key=len)[-1:])
        for owner in sorted(owners):
            tasks[owner, start, start + round(duration * 1e6)] = None
    return list(tasks)
