"""Background work that iOS ran for an app when it saw fit, from a PowerLog's DASActivity.

A record stands at the time at which the work began, in whole seconds, and says how long it took. It names the
processes it was done for; where it does not, the task's name begins with the app's, as Apple asks for
(`BGTaskScheduler`: "com.example.app.refresh").
"""

from __future__ import annotations

from collections.abc import Iterable

from appcadence.telemetry.readers._powerlog_tables import PowerLog, process_name

TASKS = "PLDuetService_EventNone_DASActivity"
_COLUMNS = ("bundleID", "application", "taskName", "duration", "involvedProcesses")
_MAX_SECONDS = 86_400

Task = tuple[str, int, int]


def tasks_of(log: PowerLog, apps: Iterable[str]) -> list[Task]:
    """(app, start, end) of each task and each app it ran for.

    `apps` are those known to the log: a task that names none of its own belongs to the one that its name
    begins with, the longest.
    """
    known = sorted(apps, key=len, reverse=True)
    tasks: dict[Task, None] = {}
    for line, _, start, (bundle, application, task, duration, involved) in log.rows(TASKS, _COLUMNS):
        if not isinstance(duration, int | float) or not 0 <= duration <= _MAX_SECONDS:
            log.reject(TASKS, line, "duration is no number of seconds up to a day")
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
