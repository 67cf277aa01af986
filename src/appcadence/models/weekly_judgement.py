"""App Privacy Reports in, judged weekly sums out, with what is to be said of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence import findings
from appcadence.errors import TelemetryError
from appcadence.features.accesses import uses
from appcadence.features.weekly import contact_weeks
from appcadence.findings import Finding
from appcadence.models.weekly import EXPERTS, FINDINGS_PER_PHONE_WEEK, judge
from appcadence.telemetry.directory import TelemetryDirectory, read_tables
from appcadence.telemetry.schema import CONTACT_SUMMARIES, TIME, conform

Row = Mapping[Hashable, Any]
Source = str | Path | TelemetryDirectory | Mapping[str, pa.Table]
INPUT_TABLES = ("contact_summaries", "activity", "accesses")
EXPLAINED = 20
"""The highest rows say why they rank there, whether they are findings or not."""
_MIN_WORTH = float(np.log(10))
"""What one benign host in ten shows is no reason."""
_TIMES = ("report_start", "report_end", "first_seen", "last_seen")

WEEKLY = pa.schema(
    [
        *((name, pa.string()) for name in ("device_id", "app_id", "dest_host")),
        *((name, TIME) for name in _TIMES),
        ("contacts", pa.int64()),
        ("user_contacts", pa.int64()),
        ("contacts_per_hour", pa.float64()),
        ("usual_per_hour", pa.float64()),
        ("spread_ratio", pa.float64()),
        ("is_new", pa.float64()),
        ("is_rare", pa.float64()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("rank", pa.int64()),
        ("finding", pa.bool_()),
        ("calibration", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("findings", pa.list_(findings.ARROW)),
    ]
)
"""The table of `judge_reports`; `features.weekly.contact_weeks` and `models.weekly.judge` explain it."""


def judge_reports(
    source: Source,
    findings_per_phone_week: float = FINDINGS_PER_PHONE_WEEK,
) -> pa.Table:
    """Judge the App Privacy Reports of a telemetry directory or of canonical tables, as weekly sums.

    Args:
        source: with the table `contact_summaries`; `activity` and `accesses` are used if they are there.
        findings_per_phone_week: benign findings that a phone's week may bring on average.

    Returns:
        `WEEKLY`: a row for each app, host and report, the most suspicious first. Findings and the twenty
        highest rows have `findings` and, in words, `reasons`. No rhythm is claimed: sums cannot show one.

    Raises:
        TelemetryError: there are no contact summaries, or none says which report it is of.
        SchemaError: a table does not fit its declaration.
        AppcadenceError: the budget is not above 0.
    """
    tables = _tables(source)
    judged = judge(contact_weeks(tables), findings_per_phone_week)
    judged = judged.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    judged["rank"] = np.arange(1, len(judged) + 1)
    shown = judged["finding"].to_numpy() | ((judged["rank"] <= EXPLAINED) & (judged["score"] > 0)).to_numpy()
    said = list(_said(judged[shown], uses(tables, judged[shown])))
    columns = dict(zip(("reasons", "findings"), findings.columns(shown, said), strict=True))
    for field in WEEKLY:
        if field.name in _TIMES:
            columns[field.name] = pa.array(judged[field.name], pa.timestamp("us")).cast(TIME)
        elif field.name not in columns:
            columns[field.name] = pa.array(judged[field.name], field.type, from_pandas=True)
    return pa.table(columns, WEEKLY)


def _tables(source: Source) -> Mapping[str, pa.Table]:
    where = "the given tables" if isinstance(source, Mapping) else str(getattr(source, "path", source))
    if isinstance(source, str | Path):
        source = TelemetryDirectory(source)
    tables = read_tables(source, INPUT_TABLES) if isinstance(source, TelemetryDirectory) else source
    if "contact_summaries" not in tables:
        raise TelemetryError(f"{where} holds no contact summaries; convert an App Privacy Report into it")
    ends = conform(CONTACT_SUMMARIES, tables["contact_summaries"])["report_end"]
    if 0 < len(ends) == ends.null_count:
        problem = f"{where}: no contact summary says which report it is of"
        raise TelemetryError(f"{problem}; convert the reports again, into a new directory")
    return tables


def _said(rows: pd.DataFrame, used: pd.DataFrame) -> Iterator[Sequence[Finding]]:
    """What is to be said of each row: reasons, the largest first; what explains it; its context; what is not
    checked."""
    keys = ["device_id", "report_end", "app_id"]
    of_app = {key: part.to_dict("records") for key, part in used.groupby(keys)}
    for row in rows.to_dict("records"):
        contexts = [_accessed(one) for one in of_app.get(tuple(row[name] for name in keys), ())]
        yield [*_reasons(row), *_explanations(row), *contexts, *_unchecked(row)]


def _reasons(row: Row) -> Iterator[Finding]:
    for expert in sorted(EXPERTS, key=lambda name: -row[name]):
        if row[expert] >= _MIN_WORTH:
            facts = {"rate": float(row["contacts_per_hour"]), "usual": float(row["usual_per_hour"])}
            facts |= {"contacts": int(row["contacts"]), "one_in": round(float(np.exp(row[expert])))}
            yield Finding("weekly_expert", {"expert": expert} | facts)


def _explanations(row: Row) -> Iterator[Finding]:
    if row["user_contacts"]:
        every = int(row["contacts"] + row["user_contacts"])
        yield Finding("user_started", {"user_contacts": int(row["user_contacts"]), "of": every})
    if row["app_is_new"] == 1:
        yield Finding("app_is_new")
    if row["replaces"] == 1:
        yield Finding("takes_over")
    if isinstance(row["owner"], str):
        yield Finding("known_owner", {"owner": row["owner"]})


def _accessed(use: Row) -> Finding:
    alone = None if np.isnan(use["unattended"]) else int(use["unattended"])
    facts = {"category": use["category"], "times": int(use["times"]), "unattended": alone}
    return Finding("accessed", facts)


def _unchecked(row: Row) -> Iterator[Finding]:
    yield Finding("weekly_sums")
    if np.isnan(row["is_new"]):
        yield Finding("first_report")
    if not row["presence_known"]:
        yield Finding("presence_unknown")
