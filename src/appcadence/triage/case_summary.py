"""A case in one sentence: what happened, from the facts of the windows that it is told by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding


def summary(windows: pd.DataFrame, findings: Sequence[Mapping[str, Any]], count: int) -> Finding:
    """The finding `case` of windows of one destination (or `*`) with their `window_facts`, strongest first.

    Args:
        windows: one row a window; facts that are not known are null.
        findings: what is said of the strongest window.
        count: the destinations of the case.
    """
    known = windows["first_time"].notna().all()
    first, last = windows["first_time"].min(), windows["last_time"].max()
    dest = windows["dest"].iloc[0]
    beats = windows.loc[windows["gap_seconds"].notna(), ["gap_seconds", "gap_share"]]
    pushes = _total(windows, "n_pushes")
    connections = _total(windows, "n_started") if known else int(windows["n_flows"].sum())
    width = (windows["window_end"] - windows["window_start"]).dt.total_seconds()
    whole = (windows["longest_seconds"] > width - 1.0).any()
    border = first == windows["window_start"].min() or last == windows["window_end"].max()
    return Finding(
        "case",
        {
            "dest": None if dest == APP_LEVEL else dest,
            "own_log": any(finding["code"] == "destinations_unknown" for finding in findings),
            "connections": connections,
            "failed": _total(windows, "n_failed"),
            "seconds": (last - first).total_seconds() if known else None,
            "destinations": count,
            "gap_seconds": float(beats["gap_seconds"].iloc[0]) if len(beats) else None,
            "gap_share": float(beats["gap_share"].iloc[0]) if len(beats) else None,
            "longest_seconds": _most(windows, "longest_seconds"),
            "cut": bool(whole or ((connections or 0) <= 1 and border)),
            "bytes_out": _total(windows, "bytes_out"),
            "bytes_in": _total(windows, "bytes_in"),
            "unused": _total(windows, "n_unused"),
            "pushes": pushes,
            "answered": _total(windows, "n_answered"),
            "by_chance": float(windows["by_chance"].sum()) if pushes is not None else None,
            "other_devices": _most(windows, "other_devices"),
            "devices": _most(windows, "devices"),
        },
    )


def fleet_summary(event: Any) -> Finding:
    """The finding of a fleet event, a row of the events."""
    names = ("kind", "name", "devices", "alerting_devices")
    facts = {name: getattr(event, name) for name in names}
    return Finding("fleet_event", facts | {"first_seen": event.first_seen.isoformat()})


def _total(windows: pd.DataFrame, name: str) -> int | None:
    """The sum over the windows; None where one of them is not known."""
    return None if windows[name].isna().any() else int(windows[name].sum())


def _most(windows: pd.DataFrame, name: str) -> float | None:
    most = windows[name].max()
    return None if pd.isna(most) else float(most)
