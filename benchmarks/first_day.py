"""The first five minutes: the reference model alone, on real captures of which it knows nothing.

first_day.py [--data DIR] [--seeds N] [--window 24h] [--experts]

No baseline, no past, no apps: whole captures of two PCs, a phone and two days of a third PC. C2 in situ on
the two days as it is, and five families of C2 moved into each of the five captures, one at a time, from a
seeded moment in the first quarter of its span on. The unit is a device, a destination and a day; it counts
once, by its strongest window. Recall is of the malicious units with enough evidence (six flows or a session
of half an hour) at 1, 3 and 10 false units a device-day, one threshold over all captures; a rank is a unit's
place in its capture. Peers rank the same units: flows, regular or long, their sum, ratio regularity and
RITA's timing. Mean and standard deviation over seeds, which move the families alone.

The captures are development data.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import captures
import numpy as np
import pandas as pd
import pyarrow as pa
from one_liners import one_liners
from rita import timing_score

from appcadence.features.extraction import table_of
from appcadence.features.windows import Windows
from appcadence.models.bundle import reference_model
from appcadence.models.detector import Detector
from appcadence.models.eligibility import eligible
from appcadence.serving.scorer import Scorer

BUDGETS = (1.0, 3.0, 10.0)
PACKAGE = "appcadence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=captures.DATA)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--window", default="24h")
    parser.add_argument("--experts", action="store_true", help="the experts' sum alone")
    options = parser.parse_args()
    detector = replace(reference_model()[0], window=options.window)
    if options.experts:
        detector = replace(detector, weights=detector.weights * [0.0, 1.0])
    report([trial(detector, options.data, seed) for seed in range(options.seeds)])


def trial(detector: Detector, data: Path, seed: int) -> pd.DataFrame:
    """The units of all captures, each with one C2."""
    in_situ = captures.in_situ(data)
    quiet = {f"pc, {name}": captures.without(in_situ[name], captures.IN_SITU[name]) for name in in_situ}
    benign = captures.normals(data) | {"phone": captures.phone(data)} | quiet
    rng = np.random.default_rng(seed)
    parts = [units(detector, in_situ[name], name, [captures.IN_SITU[name]]) for name in in_situ]
    for name, flows in benign.items():
        for family, implant in captures.families(data).items():
            moved = captures.moved(implant, flows, rng)
            case = f"{family} in {name}"
            parts.append(units(detector, captures.joined(flows, moved), case, captures.dests(moved)))
    return pd.concat(parts, ignore_index=True)


def units(detector: Detector, flows: pa.Table, case: str, c2: list[str]) -> pd.DataFrame:
    """One row a unit: the strongest score of each method, and its truth."""
    found = Scorer(detector, "benchmark").run({"flows": flows})
    table, scores = table_of(found.windows), found.scores.to_pandas()
    rows = pd.DataFrame({"dest": table["dest"].astype(object), "day": table["window_start"].dt.floor("D")})
    ratio = np.fmax(table["session_ratio_share_1_3"], table["beat_ratio_share_1_3"])
    peers = one_liners(table).assign(**{"ratio regularity": ratio, "RITA timing": rita(found.windows)})
    rows["eligible"], rows[PACKAGE] = eligible(table), scores["score"].where(scores["status"] == "scored")
    rows = rows.join(peers.where(rows["eligible"]))
    out = rows.groupby(["dest", "day"], as_index=False).max()
    seconds = table.drop_duplicates(["device_id", "window_start"])["observed_seconds"].sum()
    return out.assign(case=case, malicious=out["dest"].isin(c2), days=seconds / 86_400)


def rita(windows: Windows) -> np.ndarray:
    """(n,) RITA's timing score of each window's beats."""
    offsets, times = windows.beats
    parts = (times[offsets[g] : offsets[g + 1]] for g in range(windows.n))
    return np.array([timing_score(np.diff(part)) for part in parts])


def level(rows: pd.DataFrame, method: str, budget: float) -> float:
    """The score that benign units exceed `budget` times a device-day."""
    allowed = int(budget * rows.groupby("case")["days"].first().sum())
    benign = np.sort(rows.loc[~rows["malicious"], method].fillna(-np.inf))[::-1]
    return float(benign[allowed]) if allowed < len(benign) else -np.inf


def ranks(rows: pd.DataFrame, method: str) -> pd.Series:
    """By case, the place of its best malicious unit among the units of its capture."""
    place = rows.groupby("case")[method].rank(ascending=False, method="max")
    return place[rows["malicious"] & rows["eligible"]].groupby(rows["case"]).min()


def report(tables: list[pd.DataFrame]) -> None:
    known = {"dest", "day", "eligible", "case", "malicious", "days"}
    methods = [name for name in tables[0] if name not in known]
    first = tables[0]
    print(
        f"{first.groupby('case')['days'].first().sum():.1f} device-days; "
        f"{int((first['malicious'] & first['eligible']).sum())} malicious units among "
        f"{int((~first['malicious'] & first['eligible']).sum())} benign ones"
    )
    head = " ".join(f"{f'at {b:g}':>13s}" for b in BUDGETS)
    print(f"{'method':30s} {head} {'first':>6s} {'in five':>8s} {'median rank':>12s}")
    for method in methods:
        cells = []
        for budget in BUDGETS:
            found = [
                (t.loc[t["malicious"] & t["eligible"], method] > level(t, method, budget)).mean()
                for t in tables
            ]
            cells.append(f"{np.mean(found):6.2f} ± {np.std(found):4.2f}")
        place = pd.concat([ranks(t, method) for t in tables])
        print(
            f"{method:30s} {' '.join(cells)} {(place == 1).mean():6.2f} {(place <= 5).mean():8.2f} "
            f"{place.median():12.0f}"
        )
    place = pd.concat([ranks(t, PACKAGE) for t in tables])
    print(place.groupby(level=0).agg(["median", "max"]).to_string())


if __name__ == "__main__":
    main()
