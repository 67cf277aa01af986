"""Analysts' decisions on scored windows: recording them, who disagrees, what was said of a channel before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._files import check_output, recover, replacing, scratch
from appcadence.errors import TelemetryError
from appcadence.serving.run import read_table
from appcadence.telemetry.schema import VERDICTS, conform
from appcadence.telemetry.sheet import read_named
from appcadence.telemetry.verdicts import WINDOW, Draft, latest_decisions
from appcadence.triage.audit_log import extend
from appcadence.triage.case_rows import raising
from appcadence.triage.case_state import CASES_FILE, read_cases

_CHANNEL = ["device_id", "app_id", "dest"]
_SAID = ["verdict", "analyst", "justification", "decided_at", "window_start", "window_end"]


@dataclass(frozen=True)
class Recorded:
    """The outcome of recording decisions."""

    total: int
    """Decisions in the file now."""
    disagreements: pd.DataFrame
    """New decisions against the last words of other analysts; see `disagreements`."""
    head: str | None
    """Hash of the evidence file's last line, where one is kept."""


def record(decided: pa.Table, file: str | Path, evidence: str | Path | None, at: datetime) -> Recorded:
    """Add rows to a verdicts table, a Parquet file that is made if there is none; nothing is ever taken out.

    The file is replaced whole or not at all, and another writer waits meanwhile. With `evidence`, each
    decision is also a line of that file, written first: the evidence may hold a decision whose recording was
    cut off, never the other way round.

    Raises:
        TelemetryError: the file cannot be read or written.
        SchemaError: it, or `decided`, is not a verdicts table.
        EvidenceError: the evidence file cannot be added to; no decision is recorded then.
    """
    file = Path(file)
    decided = conform(VERDICTS, decided)
    with _replacing(file) as staging:
        before = read_named(file, VERDICTS) if file.exists() else VERDICTS.empty()
        if len(before):
            # Where the clock was set back, what is said now is still the last word.
            last, place = pc.max(before["decided_at"]).as_py(), decided.schema.names.index("decided_at")
            field = decided.schema.field(place)
            times = [max(time, last) for time in decided["decided_at"].to_pylist()]
            decided = decided.set_column(place, field, pa.array(times, field.type))
        whole = pa.concat_tables([before, decided]).unify_dictionaries().combine_chunks()
        with staging.open("wb") as stream:
            pq.write_table(whole, stream, compression="zstd")
        head = None
        if evidence is not None:
            head = extend(evidence, "decision", [_fact(row) for row in decided.to_pylist()], at)
    return Recorded(len(whole), disagreements(decided, whole), head)


def placed(out: str | Path, drafts: Sequence[Draft]) -> list[Draft]:
    """Decisions on a `case` of a batch output, or on a window by its `rank`, as one decision a window.

    Raises:
        TelemetryError: neither is given, or no such number is in the output, or the output is unreadable.
    """
    file = Path(out) / "scores.parquet"
    recover(out)
    scores = read_table(file, ["rank", "score", "status", "alert", "exception_id", *WINDOW])
    cases: list[dict[str, Any]] = []
    if any(draft.values.get("case") for draft in drafts):
        cases = read_cases(Path(out) / CASES_FILE).to_pylist()
    found, ranks = raising(scores, cases), scores["rank"].fill_null(0).to_numpy()
    decided = []
    for draft in drafts:
        name = "case" if draft.values.get("case") else "rank"
        number, rows = _number(draft, name), np.empty(0, np.int64)
        if name == "rank":
            rows = np.flatnonzero(ranks == number)
        elif number <= len(cases):
            rows = np.array(found[cases[number - 1]["id"]], np.int64)
        if not len(rows) and name == "case" and number <= len(cases):
            case = cases[number - 1]
            day = f"the output of {case['alert_days'][-1]}, or " if case["status"] == "quiet" else ""
            raise TelemetryError(
                f"{draft.origin}no window of case {number} alerts in {out}; give {day}a window "
                "by its device, app, destination, start and end"
            )
        if not len(rows):
            raise TelemetryError(
                f"{draft.origin}{out} has no {'window of ' * (name == 'rank')}{name} {number}"
            )
        windows = scores.select([*WINDOW]).take(pa.array(rows)).to_pylist()
        decided += [Draft({**draft.values, **_fact(window)}, draft.origin) for window in windows]
    return decided


def disagreements(decided: pa.Table, verdicts: pa.Table) -> pd.DataFrame:
    """Rows of `decided` whose window another analyst judged differently; the last word of each counts.

    Returns:
        (k, ...) `row` of `decided`, and the other's verdict, analyst, justification, decided_at, window_start
        and window_end; windows of one device, app and destination that share time are the same matter.
    """
    pairs = _decisions_on_channel(decided, verdicts, [*_SAID])
    other = (pairs["analyst"] != pairs["analyst_here"]) & (pairs["verdict"] != pairs["verdict_here"])
    shared = (pairs["window_start"] < pairs["window_end_here"]) & (
        pairs["window_end"] > pairs["window_start_here"]
    )
    return pairs.loc[other & shared, ["row", *_SAID]].reset_index(drop=True)


def verdicts_for(scores: pa.Table, verdicts: pa.Table) -> pd.DataFrame:
    """What analysts decided about the channels of some windows, on any day.

    Args:
        scores: the scores table, or its columns device_id, app_id and dest.
        verdicts: the verdicts table; of an analyst's several words on one window the last counts.

    Returns:
        (k, ...) `row` of `scores`, and the verdict, analyst, justification, decided_at, window_start and
        window_end of a decision on the same device, app and destination; by row, the latest decision first.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    return _decisions_on_channel(scores, verdicts, [])[["row", *_SAID]]


def _decisions_on_channel(rows: pa.Table, verdicts: pa.Table, kept: list[str]) -> pd.DataFrame:
    """Pairs of a row and a decision on its channel; what is `kept` of the row ends in _here."""
    said = latest_decisions(verdicts).assign(app_id=lambda frame: frame["app_id"].fillna(""))
    device = rows["device_id"].cast(pa.string())
    mine = pa.table({name: rows[name].cast(pa.string()) for name in _CHANNEL})
    mine = mine.set_column(1, "app_id", pc.fill_null(mine["app_id"], ""))
    for name in kept:
        mine = mine.append_column(f"{name}_here", rows[name])
    mine = mine.append_column("row", pa.array(range(len(rows)), pa.int64()))
    some = mine.filter(pc.is_in(device, pa.array(said["device_id"].unique(), pa.string()))).to_pandas()
    strings = [*_CHANNEL, *(f"{name}_here" for name in kept if name in ("verdict", "analyst"))]
    pairs = some.astype(dict.fromkeys(strings, object)).merge(said, on=_CHANNEL)
    pairs = pairs.sort_values(["row", "decided_at"], ascending=[True, False], kind="stable")
    return pd.DataFrame(pairs.reset_index(drop=True))


def _number(draft: Draft, name: str) -> int:
    # A table program writes whole numbers as "3.0" where others of the column are empty.
    text = (draft.values.get(name) or "").strip().removesuffix(".0")
    # The length bounds what a hostile file can make of a number.
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise TelemetryError(f"{draft.origin}{name} is {text!r}; expected a whole number from 1")
    return int(text)


def _fact(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """A file to write that then replaces `file`; other processes that do the same wait."""
    try:
        check_output(file, TelemetryError)
        file.parent.stat()  # where it is mistyped, no other is made
        with scratch(file, wait=True) as place, replacing(file, place, private=True) as staging:
            yield staging
    except OSError as error:
        raise TelemetryError(f"{file} cannot be written ({error.strerror or error})") from None
