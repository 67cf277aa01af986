"""Weekly sums judged: a small anchored score of each app, host and report, with a tail of its own.

As in `experts`, each statistic is worth -log of its benign tail, what is new and what is known apart, and the
score is their sum. Tails and calibration come from the reports of other devices where there are enough, else
from a small reference made of simulated reports. Sums show no rhythm: a host contacted as often and as long
without one scores as high.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

import numpy as np
import pandas as pd

from appcadence._types import Mask, Matrix, Vector
from appcadence.errors import AppcadenceError
from appcadence.features.weekly import REPORT
from appcadence.models.calibration import conformal
from appcadence.models.experts import tail, worth

FINDINGS_PER_PHONE_WEEK = 0.1
"""Benign findings that a phone's week may bring, unless another budget is asked for."""
MIN_PHONE_WEEKS = 20
MIN_DEVICES = 5
"""With fewer reports or devices beside the judged ones, the reference stands in for them."""
FOLDS = 5
KEPT = 3
"""Scores of a phone-week that the calibration keeps."""
REFERENCE = "weekly_reference.json"


def statistics(weeks: pd.DataFrame) -> dict[str, Vector]:
    """By expert, (n,) how suspicious a pair of app and host is, NaN where the expert says nothing.

    New is a new host of an app that is not, unless it takes over from others. What only the user contacts is
    nobody's channel: all say nothing.
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
    """What statistics are worth, and how often benign scores are as high."""

    thresholds: Matrix
    """(n_experts, 256), see `models.experts.Experts`."""
    steps: Vector
    """(n_experts,)"""
    scores: Vector
    """The highest scores of benign pairs of app and host, three a phone-week, ascending."""
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
        """For JSON; null = out of reach."""
        reached = [[x if np.isfinite(x) else None for x in row] for row in self.thresholds.tolist()]
        scores = {name: np.round(getattr(self, name), 4).tolist() for name in ("scores", "highest")}
        return {"thresholds": reached, "steps": self.steps.tolist(), **scores}

    def worth(self, weeks: pd.DataFrame) -> Matrix:
        """(n, n_experts) what each statistic is worth, at least 0; 0 where it says nothing."""
        return worth(self.thresholds, self.steps, statistics(weeks).values())

    def p_values(self, score: Vector) -> Vector:
        """(n,) share of benign phone-weeks whose highest score is as high, this one among them."""
        return conformal(self.highest, score)

    def benign_per_week(self, score: Vector) -> Vector:
        """(n,) how many benign pairs a phone-week has whose score is as high; at most `KEPT` are counted."""
        as_high = len(self.scores) - np.searchsorted(self.scores, score, "left")
        return np.asarray((1 + as_high) / (1 + len(self.highest)))


def judge(weeks: pd.DataFrame, findings_per_phone_week: float = FINDINGS_PER_PHONE_WEEK) -> pd.DataFrame:
    """Judge `features.weekly.contact_weeks`.

    A device is judged by the reports of others: the devices are dealt to five groups, and each group's tails
    come from the other four. Devices' first reports, in which nothing is known to be new, are apart.

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
