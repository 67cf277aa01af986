"""Judges weekly sums: a small score of each app, host and report, with tails of its own.

As in `experts`, each statistic is worth -log of its benign tail, separately for new and known hosts, and the
score is their sum. Tails and calibration come from the reports of other devices if there are enough, else
from a small reference of simulated reports. Sums show no rhythm: a host contacted as often and as long
without a rhythm has the same score.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence import findings
from appcadence._types import Mask, Matrix, Vector
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features.accesses import uses
from appcadence.features.weekly import REPORT, contact_weeks
from appcadence.findings import Finding
from appcadence.models.calibration import conformal
from appcadence.models.experts import tail, worth
from appcadence.telemetry.directory import TelemetryDirectory, read_tables
from appcadence.telemetry.schema import CONTACT_SUMMARIES, TIME, conform

FINDINGS_PER_PHONE_WEEK = 0.1
"""Default budget: benign findings per phone-week."""
MIN_PHONE_WEEKS = 20
MIN_DEVICES = 5
"""With fewer reports or devices besides the judged ones, the reference is used instead."""
FOLDS = 5
KEPT = 3
"""Number of scores per phone-week that the calibration keeps."""
REFERENCE = "weekly_reference.json"


def statistics(weeks: pd.DataFrame) -> dict[str, Vector]:
    """By expert, (n,) how suspicious a pair of app and host is; NaN if the expert does not apply.

    New means a new host of a known app, unless it takes over from other hosts. No expert applies to hosts
    that only the user contacts.
    """
    by_itself = weeks["contacts"].to_numpy() > 0
    rate = np.maximum(weeks["contacts_per_hour"].to_numpy(), 1e-9)
    rise = np.log2(rate / weeks["usual_per_hour"].to_numpy())
    steady = weeks["steadiness_octaves"].to_numpy()
    explained = (weeks["app_is_new"] == 1) | (weeks["replaces"] == 1)
    newness = weeks["is_new"].where(~explained, weeks["is_new"] / 2).to_numpy()
    new = newness == 1

    def among(which: Mask, values: Vector) -> Vector:
        return np.where(which & by_itself, values, np.nan)

    return {
        "newness": among(~np.isnan(newness), newness),
        "rarity": among(by_itself, weeks["is_rare"].to_numpy()),
        "volume_of_new": among(new, np.log2(rate)),
        "steadiness_of_new": among(new, steady),
        "rise_of_new": among(new, rise),
        "excess_of_known": among(~new, rise + np.log2(rate)),
    }


EXPERTS = ["newness", "rarity", "volume_of_new", "steadiness_of_new", "rise_of_new", "excess_of_known"]


@dataclass(frozen=True)
class Tails:
    """The worth of each statistic, and the distribution of benign scores."""

    thresholds: Matrix
    """(n_experts, 256), see `models.experts.Experts`."""
    steps: Vector
    """(n_experts,)"""
    scores: Vector
    """The highest scores of benign pairs of app and host, three per phone-week, ascending."""
    highest: Vector
    """(n_phone_weeks,) the highest score of each benign phone-week, ascending."""

    @classmethod
    def fit(cls, weeks: pd.DataFrame) -> Self:
        """Learn from the rows of benign reports, `features.weekly.contact_weeks`."""
        tails = [tail(values, np.ones(len(values))) for values in statistics(weeks).values()]
        thresholds, steps = map(np.array, zip(*tails, strict=True))
        learned = cls(thresholds, steps, np.empty(0), np.empty(0))
        score = pd.Series(learned.worth(weeks).sum(axis=1)).sort_values()
        phone_week = weeks.groupby(REPORT).ngroup().to_numpy()[score.index]
        ranked = score.groupby(phone_week)
        return replace(learned, scores=ranked.tail(KEPT).to_numpy(), highest=np.sort(ranked.max().to_numpy()))

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Back from `as_dict`."""
        thresholds = [[np.inf if value is None else value for value in row] for row in facts["thresholds"]]
        return cls(np.array(thresholds), *(np.array(facts[name]) for name in ("steps", "scores", "highest")))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; null = an infinite threshold."""
        reached = [[x if np.isfinite(x) else None for x in row] for row in self.thresholds.tolist()]
        scores = {name: np.round(getattr(self, name), 4).tolist() for name in ("scores", "highest")}
        return {"thresholds": reached, "steps": self.steps.tolist(), **scores}

    def worth(self, weeks: pd.DataFrame) -> Matrix:
        """(n, n_experts) what each statistic is worth, at least 0; 0 where it says nothing."""
        return worth(self.thresholds, self.steps, np.stack([*statistics(weeks).values()], axis=1))

    def p_values(self, score: Vector) -> Vector:
        """(n,) share of benign phone-weeks whose highest score is at least as high, counting this one."""
        return conformal(self.highest, score)

    def benign_per_week(self, score: Vector) -> Vector:
        """(n,) benign pairs per phone-week that score at least as high; at most `KEPT` are counted."""
        as_high = len(self.scores) - np.searchsorted(self.scores, score, "left")
        return np.asarray((1 + as_high) / (1 + len(self.highest)))


def judge(weeks: pd.DataFrame, findings_per_phone_week: float = FINDINGS_PER_PHONE_WEEK) -> pd.DataFrame:
    """Judge `features.weekly.contact_weeks`.

    A device is judged by the reports of others: devices are split into five groups, and each group's tails
    come from the other four. First reports of devices, in which nothing can be known as new, have tails of
    their own.

    Returns:
        The rows with `score` (at least 0, higher = more suspicious), `p_value` (the share of benign
        phone-weeks with a score as high), `finding` (of benign pairs, at most `findings_per_phone_week` score
        as high), `calibration` (local or reference), and what each expert is worth, a column each.

    Raises:
        AppcadenceError: the budget is not above 0.
    """
    if not findings_per_phone_week > 0:
        problem = f"{findings_per_phone_week:g} benign findings a phone-week; give a number above 0"
        raise AppcadenceError(problem, "findings_per_phone_week")
    out = weeks.assign(score=0.0, p_value=1.0, finding=False, calibration="", **dict.fromkeys(EXPERTS, 0.0))
    group = pd.factorize(weeks["device_id"], sort=True)[0] % FOLDS
    later = weeks["is_new"].notna().to_numpy()
    for number in range(FOLDS):
        for stratum in (False, True):
            rows = (group == number) & (later == stratum)
            if not rows.any():
                continue
            others = weeks[(group != number) & (later == stratum)]
            enough = len(others[REPORT].drop_duplicates()) >= MIN_PHONE_WEEKS
            local = enough and others["device_id"].nunique() >= MIN_DEVICES
            tails = Tails.fit(others) if local else reference()[stratum]
            worths = tails.worth(weeks[rows])
            score = worths.sum(axis=1)
            out.loc[rows, EXPERTS] = worths
            out.loc[rows, "score"], out.loc[rows, "p_value"] = score, tails.p_values(score)
            out.loc[rows, "finding"] = (tails.benign_per_week(score) <= findings_per_phone_week) & (score > 0)
            out.loc[rows, "calibration"] = "local" if local else "reference"
    return out


@cache
def reference() -> dict[bool, Tails]:
    """Tails of simulated reports: of devices' first reports (False) and of later ones (True)."""
    facts = json.loads(files("appcadence.models").joinpath(REFERENCE).read_text())
    return {False: Tails.from_dict(facts["first"]), True: Tails.from_dict(facts["later"])}


Row = Mapping[Hashable, Any]
Source = str | Path | TelemetryDirectory | Mapping[str, pa.Table]
INPUT_TABLES = ("contact_summaries", "activity", "accesses")
EXPLAINED = 20
"""This many of the highest rows have reasons, whether they are findings or not."""
_MIN_WORTH = float(np.log(10))
"""A statistic that one benign host in ten reaches is no reason."""
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
    said = list(_findings(judged[shown], uses(tables, judged[shown])))
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


def _findings(rows: pd.DataFrame, used: pd.DataFrame) -> Iterator[Sequence[Finding]]:
    """The findings of each row: reasons, the largest first; explanations; context; and what was not
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
