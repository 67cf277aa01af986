"""What a case says happened, from its windows: the facts of the findings `case` and `fleet_event`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding

WEB_PORTS = (80, 443)
"""Ports that are not worth mentioning."""
_ADDED = {
    "n_started": "connections",
    "n_failed": "failed",
    "bytes_out": "bytes_out",
    "bytes_in": "bytes_in",
    "n_unused": "unused",
    "n_pushes": "pushes",
    "n_answered": "answered",
}
"""Facts of windows that a case has the sum of, where none is unknown; and what the finding calls them."""
_MEASURES = (
    "seconds",
    "dest_seconds",
    "gap_seconds",
    "gap_share",
    "longest_seconds",
    "by_chance",
    "other_devices",
    "devices",
)


def summaries(
    told: pd.DataFrame,
    every: pd.DataFrame,
    findings: Sequence[Sequence[Mapping[str, Any]]],
    ports: Sequence[Sequence[int]],
    n_windows: Sequence[int],
    *,
    destinations: Sequence[Sequence[str]],
    held: Sequence[int],
    more: Sequence[bool],
) -> list[Finding]:
    """The finding `case` of each case, in the order of `owner`.

    Args:
        told: windows with their `window_facts`, those of a case strongest first; null = not known.
        every: all windows that raise the cases, no flow in two of them.
        findings: what is said of the strongest window of each case.
        ports: those of each case, the most used first.
        n_windows: how many windows raise each case.
        destinations: all that the windows of each case hold and no exception holds back, or else those.
        held: how many more are under exceptions.
        more: whether `every` holds connections to the told destination that `told` does not.
    """
    span = (told["window_end"] - told["window_start"]).dt.total_seconds()
    over = (told["first_time"] == told["window_start"]) | (told["last_time"] == told["window_end"])
    told = told.assign(cut=over | (told["longest_seconds"] > span - 1.0))
    by_case = told.groupby("owner")
    facts = by_case.agg(
        dest=("dest", "first"),
        longest_seconds=("longest_seconds", "max"),
        cut=("cut", "any"),
        by_chance=("by_chance", "sum"),
        other_devices=("other_devices", "max"),
        devices=("devices", "max"),
    )
    mine, total = _sums(told), _sums(every)
    facts = facts.join(total).assign(**{name: mine[name] for name in ("pushes", "answered")})
    names = pd.concat([told, every]).drop_duplicates(["owner", "dest"])
    others = names.groupby("owner").size() > 1
    facts = facts.assign(**{f"dest_{name}": mine[name].where(others) for name in ("connections", "seconds")})
    beats = told[told["gap_seconds"].notna()].drop_duplicates("owner").set_index("owner")
    facts = facts.join(beats[["gap_seconds", "gap_share"]])
    facts = facts.assign(by_chance=facts["by_chance"].where(facts["pushes"].notna()))
    columns: dict[str, list[Any]] = {
        name: [None if value != value else kind(value) for value in facts[name].tolist()]
        for kind, names in ((int, (*_ADDED.values(), "dest_connections")), (float, _MEASURES))
        for name in names
    }
    columns |= {
        "dest": [
            dest if dest != APP_LEVEL else some[0] if len(some) == 1 and not under else None
            for dest, some, under in zip(facts["dest"].tolist(), destinations, held, strict=True)
        ],
        "own_log": [any(one["code"] == "destinations_unknown" for one in some) for some in findings],
        "destinations": [len(some) for some in destinations],
        "held_destinations": [*held],
        "more_to_dest": [*more],
        "windows": [n if one else None for n, one in zip(n_windows, _scattered(every), strict=True)],
        "cut": facts["cut"].tolist(),
        "port": [None if not some or some[0] in WEB_PORTS else some[0] for some in ports],
        "more_ports": [len(some) > 1 for some in ports],
    }
    return [
        Finding("case", dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def _scattered(windows: pd.DataFrame) -> list[bool]:
    """By owner, whether some time or destination between its first window and its last is in none of them."""
    by_case = windows.groupby("owner")
    times = by_case.agg(
        {"window_start": ["min", "nunique"], "window_end": "max", "dest": ["nunique", "size"]}
    )
    length = (windows["window_end"] - windows["window_start"]).groupby(windows["owner"]).first()
    moments = times["window_start"]["nunique"]
    whole = times["window_end"]["max"] - times["window_start"]["min"] == moments * length
    whole &= times["dest"]["size"] == moments * times["dest"]["nunique"]
    return [not one for one in whole]


def _sums(windows: pd.DataFrame) -> pd.DataFrame:
    """By owner, what `_ADDED` calls the sums, and `seconds` from first to last; NaN where one is unknown."""
    by_case = windows.groupby("owner")
    known = by_case[[*_ADDED, "first_time"]].count().eq(by_case.size(), axis=0)
    out = by_case[[*_ADDED]].sum().where(known[[*_ADDED]]).rename(columns=_ADDED)
    span = by_case["last_time"].max() - by_case["first_time"].min()
    return out.assign(
        connections=out["connections"].where(known["first_time"], by_case["n_flows"].sum()),
        seconds=span.dt.total_seconds().where(known["first_time"]),
    )


def fleet_summary(event: Any) -> Finding:
    """The finding of a fleet event, a row of the events."""
    names = ("kind", "name", "devices", "alerting_devices")
    facts = {name: getattr(event, name) for name in names}
    return Finding("fleet_event", facts | {"first_seen": event.first_seen.isoformat()})
