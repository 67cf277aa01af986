"""What the endpoints compute, without HTTP: bodies in, answers out. Threads may share it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._version import VERSION
from appcadence.config import Alerts, Config
from appcadence.errors import AppcadenceError, SchemaError
from appcadence.features.catalog import FAMILY_OF, FEATURES, SCHEMA_ID
from appcadence.features.extraction import table_of
from appcadence.features.given import conformed
from appcadence.features.windows import MAX_DURATION_SECONDS, window_seconds
from appcadence.findings import of_row, sentences
from appcadence.serving.scorer import Scored, Scorer
from appcadence.serving.server.arrow_body import parse_flows
from appcadence.serving.server.wire import bodies, parse, plain_rows, scores_json
from appcadence.telemetry.schema import DIRECTORY_TABLES, TIME
from appcadence.telemetry.times import to_iso, to_micros

YEARS = (1970, 2200)
"""Times must be from the first year on and before the second."""
_FIRST, _END = (pa.scalar(to_micros(datetime(year, 1, 1)), pa.int64()).cast(TIME) for year in YEARS)
EXAMPLE = {
    "flows": [
        {
            "start": "2026-03-02T08:00:00Z",
            "device_id": "phone-00001",
            "app_attribution": "none",
            "dest_host": "api.example.com",
            "outcome": "established",
            "time_resolution_seconds": 0.001,
            "source": "zeek",
        }
    ]
}
"""A body of `POST /score`; `EXPLAIN_EXAMPLE` is one of `POST /explain`."""
EXPLAIN_EXAMPLE = EXAMPLE | {
    "window": {
        "device_id": "phone-00001",
        "dest": "api.example.com",
        "window_start": "2026-03-02T00:00:00Z",
    }
}


class NoSuchWindow(AppcadenceError, LookupError):
    """The telemetry of a request does not contain the window it asks for."""


class Work:
    """One scorer and the limits of its input."""

    def __init__(self, scorer: Scorer, max_rows: int) -> None:
        self.scorer = scorer
        self.max_rows = max_rows
        self.telemetry, self.telemetry_and_window = bodies(max_rows)

    def tables(self, body: bytes, arrow: bool) -> dict[str, pa.Table]:
        """The canonical tables of a body of `POST /score`.

        Raises:
            SchemaError: they do not fit their declarations, or have too many rows.
        """
        if arrow:
            return self._checked({"flows": parse_flows(body, self.max_rows)})
        return self._checked(parse(self.telemetry, body)[0])

    def explain(self, body: bytes, alerts: Alerts) -> bytes:
        """The answer of `POST /explain`.

        Raises:
            SchemaError: as `tables`.
            NoSuchWindow: the window is not in the scores.
        """
        tables, wanted = parse(self.telemetry_and_window, body)
        start = _moment(wanted["window_start"])
        scored = self.run(self._checked(tables), alerts)
        return self._explanation(scored, _place(scored.scores, wanted, start))

    def _explanation(self, scored: Scored, at: int) -> bytes:
        (row,) = scored.scores.slice(at, 1).to_pylist()
        found = self.scorer.explain(table_of(scored.windows).iloc[[at]])
        # The findings of the table consider the whole device, but low ranks have none.
        said = of_row(row) or list(found.findings)
        (shown,) = plain_rows(scored.scores.slice(at, 1))
        codes = found.explained_by
        answer = {
            "row": shown,
            "findings": [finding.as_dict() for finding in said],
            "explained_by": [
                {"code": c, "text": text} for c, text in zip(codes, sentences(codes), strict=True)
            ],
            "constant": found.constant,
            "contributions": found.contributions.to_dict("records"),
        }
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def model(self) -> bytes:
        """The answer of `GET /model`."""
        detector = self.scorer.detector
        features = [
            {"name": f.name, "family": FAMILY_OF[f.name], "unit": f.unit, "meaning": f.meaning}
            for f in FEATURES
        ]
        facts = {
            "id": self.scorer.version,
            "appcadence": VERSION,
            "window": detector.window,
            "feature_schema": SCHEMA_ID,
            "features": features,
            "excluded_families": list(detector.excluded_families),
            "baseline": {
                "end": to_iso(detector.reference.end_us),
                "devices": len(detector.reference.devices),
                "groups": len(detector.baseline.keys),
                "known_channels": len(detector.history.contacts),
            },
            "card": detector.card,
        }
        return orjson.dumps(facts)

    def warm_up(self) -> None:
        """Compile the code for scoring and explaining, so that no request waits for it."""
        scored = self.run(self.tables(orjson.dumps(EXAMPLE), arrow=False), Alerts())
        scores_json(scored.scores)
        self._explanation(scored, 0)

    def run(self, tables: Mapping[str, pa.Table], alerts: Alerts) -> Scored:
        """The result of `Scorer.run` for canonical tables."""
        return self.scorer.run(tables, Config(alerts))

    def _checked(self, given: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        tables = {name: conformed(name, table) for name, table in given.items()}
        for name, table in tables.items():
            for column in DIRECTORY_TABLES[name].columns:
                if column.type == TIME:
                    _check_times(name, column.name, table[column.name])
        lasts = pc.fill_null(tables["flows"]["duration_seconds"], 0.0).to_numpy()
        lasts = np.where(np.isfinite(lasts), np.clip(lasts, 0.0, MAX_DURATION_SECONDS), MAX_DURATION_SECONDS)
        touched = int((1 + lasts // window_seconds(self.scorer.detector.window)).sum())
        if touched > self.max_rows:
            raise SchemaError(
                f"the flows touch {touched:,} windows, counting each flow once for every window; at most "
                f"{self.max_rows:,} are allowed: send fewer"
            )
        return tables


def _moment(text: str) -> pa.Scalar:
    try:
        return pa.scalar(text).cast(TIME)
    except pa.ArrowInvalid:
        raise SchemaError(f"window.window_start is {text!r}, which is not a valid time") from None


def _place(scores: pa.Table, wanted: Mapping[str, Any], start: pa.Scalar) -> int:
    """The row number of a window."""
    mask = pc.equal(scores["window_start"], start)
    for name in ("device_id", "app_id", "dest"):
        column, value = scores[name], wanted.get(name)
        mask = pc.and_(mask, pc.is_null(column) if value is None else pc.equal(column, value))
    at = np.flatnonzero(pc.fill_null(mask, False).to_numpy())
    if not len(at):
        said = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
        raise NoSuchWindow(f"the given flows have no window with {said}; POST /score lists their windows")
    return int(at[0])


def _check_times(table: str, column: str, times: pa.ChunkedArray) -> None:
    inside = pc.and_(pc.greater_equal(times, _FIRST), pc.less(times, _END))
    if not pc.all(inside, min_count=0).as_py():
        raise SchemaError(
            f"table {table}, column {column!r}: a time is outside the years {YEARS[0]} to {YEARS[1] - 1}"
        )
