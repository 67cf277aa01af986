"""Cases: one app (or destination) on one device, or one fleet event, over the days on which it alerts.

A case is what a person works on. A beacon that rotates hosts alerts in many windows on many days and is still
one case, which lists its destinations and its days.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from appcadence._types import DAY_US
from appcadence.findings import ARROW
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.models.scores import SCORES

MAX_QUIET_DAYS = 3
"""A case ends after more days than this without an alert: work apps rest at the weekend."""

DESTINATION = pa.struct(
    [
        ("dest", pa.string()),
        ("score", pa.float64()),
        ("n_flows", pa.int64()),
        ("alert", pa.bool_()),
        ("other_devices", pa.int64()),
    ]
)
TEXTS = pa.list_(pa.string())
STRONGEST = (
    *("app_id", "app_attribution", "score", "p_value", "rank", *BEHAVIOURS, "behaviours", "explained_by"),
    *("model_name", "model_version"),
)
"""Copied from the strongest window; the rest of a case comes from all of its windows."""
CASES = pa.schema(
    [
        ("case", pa.int64()),
        ("id", pa.string()),
        ("status", pa.string()),
        ("kind", pa.string()),
        ("severity", pa.string()),
        ("alert_days", TEXTS),
        ("first_time", SCORES.field("window_start").type),
        ("last_time", SCORES.field("window_end").type),
        ("summary", pa.string()),
        ("device_ids", TEXTS),
        ("alerting_devices", pa.int64()),
        ("destinations", pa.list_(DESTINATION)),
        ("n_destinations", pa.int64()),
        ("addresses", TEXTS),
        ("ports", pa.list_(pa.int32())),
        ("record_ids", TEXTS),
        ("n_windows", pa.int64()),
        ("n_flows", pa.int64()),
        ("n_sessions", pa.int64()),
        *(SCORES.field(name) for name in STRONGEST),
        ("reasons", TEXTS),
        ("unchecked", TEXTS),
        ("findings", pa.list_(ARROW)),
        ("exception_ids", TEXTS),
    ]
)
"""The cases table, the most urgent case first. Columns that need a word:

case: the row's number, from 1.
status: new, raised (more severe than ever before), continuing, or quiet (no alert in this run).
kind: app, destination (of an unknown app), fleet_app or fleet_destination.
severity: the highest so far.
alert_days: ISO dates, UTC.
first_time, last_time: of the traffic in windows that alert.
alerting_devices: how many of `device_ids` alert; of a fleet event, those that alert for their rhythm alone.
destinations: those that alert by themselves, strongest first, then the others that an alerting app-wide
rhythm may be made of; `other_devices` contacted each (null = not known, as of those that do not alert).
addresses, ports, record_ids: where to look.
n_flows: flows of the alerting windows. A connection that lasts over midnight counts in both windows, and the
pieces of one that an exporter cut count once; the summary counts the source's records that began.
rank: of its strongest window.
findings: the summary, `reasons`, then `unchecked`, with their codes.
exception_ids: exceptions that hold back more windows of its alert units.

Counts are those of one run."""
MEDIUM_RATE, HIGH_RATE = 1 / 10, 1 / 100
"""Severity is low while one benign alert in ten device-days or more scores so high, medium while one in a
hundred does, else high: exp(-s) alerts a device-day reach score s. A fleet event without a score is low."""
_SPAN = ("window_start", "window_end")
SEVERITIES = ("low", "medium", "high")
KINDS = ("app", "destination", "fleet_app", "fleet_destination")
STATUSES = ("new", "raised", "continuing", "quiet")


def numbered(cases: pa.Table) -> pa.Table:
    """The cases in order, and numbered so: by severity, what is new before what goes on, then by score."""
    names = ["severity", "status", "score", "rank", "id"]
    rows = cases.select(names).to_pylist()
    place = sorted(range(len(rows)), key=lambda at: _urgency(**rows[at]))
    cases = cases.take(pa.array(place, pa.int64()))
    return cases.set_column(0, CASES.field(0), pa.array(range(1, len(rows) + 1), pa.int64())).cast(CASES)


def _urgency(
    severity: str, status: str, score: float | None, rank: int | None, id: str
) -> tuple[bool, int, int, float, float, str]:
    """The most urgent first."""
    worse, newer = -SEVERITIES.index(severity), STATUSES.index(status)
    return status == "quiet", worse, newer, -(score or 0.0), rank or math.inf, id


def case_id(kind: str, device: str | None, what: str, day: str) -> str:
    """The id of a case that first alerts on that day; the same for any model and run."""
    return hashlib.sha256(json.dumps([kind, device, what, day]).encode()).hexdigest()[:32]


def window_days(windows: pa.Table) -> int:
    """Days on which each of some windows (window_start, window_end), all of one length, lasts; at least 1."""
    if not len(windows):
        return 1
    first, last = (windows[name][0].cast(CASES.field("first_time").type) for name in _SPAN)
    return max(1, math.ceil(int(last.value - first.value) / DAY_US))


def severity(scores: pa.ChunkedArray) -> pa.Array:
    """The severity of cases whose strongest windows have these scores."""
    rate = np.exp(-scores.fill_null(0.0).to_numpy())
    low, medium, high = SEVERITIES
    return pa.array(np.where(rate >= MEDIUM_RATE, low, np.where(rate >= HIGH_RATE, medium, high)))


def subject(case: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a row of the table is about: kind, device (empty of a fleet event), app or destination."""
    device = "" if case["kind"].startswith("fleet") else case["device_ids"][0]
    app = case["app_id"] if case["kind"] in ("app", "fleet_app") else None
    return case["kind"], device, app if app is not None else case["destinations"][0]["dest"]
