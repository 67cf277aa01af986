"""What of a batch output is shown to people: windows, their sessions and their user's presence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence.errors import TelemetryError
from appcadence.models.detector import SCORES
from appcadence.models.evidence import BEHAVIOURS
from appcadence.models.reasons import quantity
from appcadence.serving.run import FILE as RUN
from appcadence.serving.run import Run

Row = dict[str, Any]
"""A row of the scores table; times are microseconds since the epoch, UTC."""
Intervals = list[tuple[int, int]]
"""(start, end) in microseconds since the epoch, UTC."""

UNSEEN = ("Blind spot:", "Not checked:")
"""How reasons begin that tell what could not be checked."""
PRESENCE = ("app_foreground", "device_unlocked")

_CHANNEL = ("device_id", "app_id", "dest")


class Output:
    """A batch output that is read as it is needed.

    Raises:
        TelemetryError: `path` is no output of 'appcadence score', or one of its files is unreadable.
    """

    def __init__(self, path: Path) -> None:
        if not (path / RUN).is_file():
            raise TelemetryError(f"{path} holds no {RUN}; run 'appcadence score' into it first")
        self.path, self.run = path, Run.read(path)

    def scores(self, filters: list[tuple[str, str, Any]], columns: Sequence[str] = SCORES.names) -> pa.Table:
        """Rows and columns of the scores table."""
        table = _read(self.path / "scores.parquet", filters, list(columns))
        try:
            return table.cast(pa.schema([SCORES.field(name) for name in columns]))
        except (pa.ArrowException, ValueError) as error:
            raise _unreadable(self.path / "scores.parquet", error) from None

    def sessions(self, rows: Sequence[Row]) -> list[Intervals]:
        """The sessions of each row; none where the batch job kept none."""
        of: dict[tuple[Any, ...], Intervals] = defaultdict(list)
        table = _read(self.path / "sessions.parquet", None, [*_CHANNEL, "window_start", "start", "end"])
        for row in as_rows(table):
            of[*(row[name] for name in _CHANNEL), row["window_start"]].append((row["start"], row["end"]))
        return [of[*(row[name] for name in _CHANNEL), row["window_start"]] for row in rows]

    def presence(self, rows: Sequence[Row]) -> list[dict[str, Intervals]]:
        """Spans of `PRESENCE` that touch each row's window; a kind the telemetry does not know is absent.

        Whether an unknown app is in the foreground is not known either.
        """
        of: dict[tuple[str, str], list[Row]] = defaultdict(list)
        file = self.path / "activity.parquet"
        for row in as_rows(_read(file)) if file.exists() else ():
            of[row["device_id"], row["kind"]].append(row)
        return [
            {
                kind: _inside(row, of[row["device_id"], kind], kind == "app_foreground")
                for kind in PRESENCE
                if (row["device_id"], kind) in of and not (kind == "app_foreground" and row["app_id"] is None)
            }
            for row in rows
        ]


def as_rows(table: pa.Table) -> list[Row]:
    """Rows with times as int64 microseconds, which need no time zone library and compare fast."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            values = table[field.name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            table = table.set_column(i, field.name, values)
    rows: list[Row] = table.to_pylist()
    return rows


def basis(row: Row) -> str:
    """What a window rests on, as a sentence."""
    return (
        f"{row['n_flows']} flows in {row['n_sessions']} sessions; observed for "
        f"{quantity(row['observed_seconds'], 's')}; app known from: {row['app_attribution']}."
    )


def behaviours(row: Row) -> list[str]:
    """The behaviours a window shows, each with its p-value."""
    return [
        f"{name.replace('_', ' ')} (p {row[name]['p_value']:.2g})"
        for name in BEHAVIOURS
        if name in (row["behaviours"] or ()) and row[name] and row[name]["p_value"] is not None
    ]


def channel(row: Row) -> tuple[str, str]:
    """App and destination in words."""
    app = "(unknown app)" if row["app_id"] is None else row["app_id"]
    return app, "all destinations" if row["dest"] == "*" else row["dest"]


def _inside(row: Row, spans: Sequence[Row], of_app: bool) -> Intervals:
    """An open span lasts to the end of the window."""
    known = [
        (span["start"], row["window_end"] if span["end"] is None else span["end"])
        for span in spans
        if not of_app or span["app_id"] == row["app_id"]
    ]
    return [(start, end) for start, end in known if start < row["window_end"] and end >= row["window_start"]]


def _read(
    file: Path, filters: list[tuple[str, str, Any]] | None = None, columns: list[str] | None = None
) -> pa.Table:
    try:
        table = pq.read_table(file, filters=filters, columns=columns)
        return table if columns is None else table.select(columns)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> TelemetryError:
    reason = " ".join(str(error).split())
    return TelemetryError(f"{file} is unreadable ({reason}); run 'appcadence score' again")
