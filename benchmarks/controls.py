"""Injected implants against controls without what gives them away, and against benign windows.

controls.py [--devices N] [--days D] [--seeds N] [--data DIR]

On simulated fleets, and on real captures of `--data` where there are any. A control is the benign twin of an
implant (see `twins`). The gap: the median score of implants and of their controls, the share of controls
above the median implant, and the recall of implants at the score that 5% of all controls reach; for the fused
score and for structured cadence alone.
The probe: how well a small LightGBM tells injected from real benign windows by what is no behaviour (AUC,
folded by device or, on a capture, by destination; .5 = not at all), over families of features and, beside it,
within windows of equal newness. Only windows of six flows or more are compared: fewer have no sizes.
Simulated and real figures promise nothing for another fleet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import captures
import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from twins import twins_as_kinds

from appcadence.features.catalog import FAMILY_OF, NAMES
from appcadence.features.columns import micros
from appcadence.features.windows import APP_LEVEL
from appcadence.models.detector import Detector
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import LabelledWindows, Tables, labelled
from appcadence.training.probe import as_of
from appcadence.training.train import train

FALSE_SHARE = 0.05
MIN_FLOWS = 6
FLEET_ROUNDS, CAPTURE_ROUNDS = 3, 8
_DAY_US = 86_400_000_000
_BEHAVIOUR = ("interval", "session", "notification")
# Of other families, but rhythm, sessions and pushes all the same.
_BEHAVES = {
    "below_scheduler_floor_share",
    "undeclared_background_rhythm",
    "expected_rhythm_ratio",
    "userless_ratio_share_1_3",
    "background_work_seconds",
    "undeclared_push_work_share",
}
PROBED = tuple(name for name in NAMES if FAMILY_OF[name] not in _BEHAVIOUR and name not in _BEHAVES)
LADDER = {
    "sizes": ("size",),
    "sizes, company": ("size", "companion"),
    "sizes, company, newness": ("size", "companion", "novelty", "declared"),
    "all of them": ("size", "companion", "novelty", "declared", "interaction"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=24)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=captures.DATA)
    options = parser.parse_args()
    fleets = [
        simulate(options.devices, options.days, seed, implants_per_device_day=0.0).tables
        for seed in range(options.seeds)
    ]
    print(f"simulated: {options.devices} devices, {options.days} days, {options.seeds} seeds")
    report([fleet_windows(tables, seed) for seed, tables in enumerate(fleets)])
    for name, flows in captures.normals(options.data).items() if options.data.is_dir() else ():
        print(f"\n{name}: the second half of the capture, {CAPTURE_ROUNDS} rounds of injection")
        report([capture_windows(flows)])


Scored = tuple[pd.DataFrame, int]
"""Windows with `malicious`, `control_of` and scores, and the moment that parts past from future."""


def fleet_windows(tables: Tables, seed: int) -> Scored:
    """Windows of held-out devices, scored with the past alone known."""
    training = train(tables, seed=seed)
    asked = (tables, training.cut_us, "24h")
    with mock.patch("appcadence.training.injection.inject", twins_as_kinds):
        rounds = [labelled(*asked, 900 + k, 2.0, devices=training.held_out)[0] for k in range(FLEET_ROUNDS)]
    return scored(framed(rounds), as_of(training, tables)[0]), training.cut_us


def capture_windows(flows: pa.Table) -> Scored:
    start = micros(flows["start"])
    middle = int(start.min() + start.max()) // 2
    with mock.patch("appcadence.training.injection.inject", twins_as_kinds):
        rounds = [labelled({"flows": flows}, middle, "24h", 900 + k, 60.0)[0] for k in range(CAPTURE_ROUNDS)]
    detector = train({"flows": flows.filter(pa.array(start < middle))}).detector
    return scored(framed(rounds), detector), middle


def framed(rounds: Sequence[LabelledWindows]) -> pd.DataFrame:
    frames = []
    for k, part in enumerate(rounds):
        kind = part.frame["implant_kind"].astype("string")
        control_of = kind.str.removeprefix("control of ").where(kind.str.startswith("control of ").eq(True))
        malicious = part.malicious & control_of.isna().to_numpy()
        frames.append(part.frame.assign(malicious=malicious, control_of=control_of.astype(object), round=k))
    plain = [f.astype({c: object for c in f if f[c].dtype == "category"}) for f in frames]
    return pd.concat(plain, ignore_index=True).copy()


def scored(frame: pd.DataFrame, detector: Detector) -> pd.DataFrame:
    scores = detector.score(frame)
    cadence = pc.struct_field(scores["structured_cadence"], "score")
    return frame.assign(score=scores["score"].to_numpy(), cadence=cadence.to_numpy())


def report(parts: Sequence[Scored]) -> None:
    frame = pd.concat([part for part, _ in parts], ignore_index=True)
    gap(frame)
    implant_or_control(frame)
    injected_or_not(parts)


def gap(frame: pd.DataFrame) -> None:
    """Implants minus controls: by kind for the fused score, over all for each score."""
    implant = frame["malicious"].to_numpy()
    control = frame["control_of"].notna().to_numpy()
    print(f"{'kind':18s} {'shows':12s} windows controls  implant control   gap above")
    kind = frame["implant_kind"].where(implant, frame["control_of"])
    for name, of in KINDS.items():
        a, b = frame["score"][implant & (kind == name)], frame["score"][control & (kind == name)]
        if len(a) and len(b):
            print(
                f"{name:18s} {of.shows:12s} {len(a):7d} {len(b):8d}  {a.median():7.2f} {b.median():7.2f} "
                f"{a.median() - b.median():5.2f} {(b > a.median()).mean():5.2f}"
            )
    shows = kind.map(lambda name: KINDS[name].shows if name in KINDS else None)
    for score in ("score", "cadence"):
        value = frame[score].fillna(-np.inf)
        level = np.sort(value[control])[::-1][int(FALSE_SHARE * control.sum())]
        by = {s: (value[implant & (shows == s)] > level).mean() for s in dict.fromkeys(shows.dropna())}
        median = value[implant].median() - value[control].median()
        above = (value[control] > value[implant].median()).mean()
        print(
            f"{score:16s} gap {median:5.2f}, controls above the median implant {above:.2f}; recall at "
            f"{FALSE_SHARE:.0%} of the controls {(value[implant] > level).mean():.2f}: "
            + ", ".join(f"{s} {v:.2f}" for s, v in by.items())
        )


def implant_or_control(frame: pd.DataFrame) -> None:
    """AUC by family; a twin has its implant's very sizes in another fold, so sizes fall below .5."""
    rows = frame[(frame["malicious"] | frame["control_of"].notna()) & (frame["n_flows"] >= MIN_FLOWS)]
    target, group = rows["malicious"].to_numpy(np.bool_), _group(rows)
    every = np.zeros(len(rows), np.int64)
    told = []
    for family in dict.fromkeys(FAMILY_OF.values()):
        names = [f for f in NAMES if FAMILY_OF[f] == family and (family in _BEHAVIOUR or f in PROBED)]
        score = _out_of_fold(rows[names].to_numpy(np.float64), target, group, every)
        told.append(f"{family} {roc_auc_score(target, score):.2f}")
    print("implant or control, AUC by family: " + ", ".join(told))


def injected_or_not(parts: Sequence[Scored]) -> None:
    """AUC of the probe over growing sets of features."""
    frames, newness = [], []
    for frame, cut_us in parts:
        rows = frame[frame["control_of"].isna() & (frame["n_flows"] >= MIN_FLOWS)]
        frames.append(rows)
        newness.append(_newness(rows, cut_us))
    rows, stratum = pd.concat(frames, ignore_index=True), np.concatenate(newness)
    target = rows["malicious"].to_numpy(np.bool_)
    group = _group(rows)
    print(f"probe: {target.sum()} injected and {(~target).sum()} benign windows; AUC (of equal newness)")
    for name, families in LADDER.items():
        columns = rows[[f for f in PROBED if FAMILY_OF[f] in families]].to_numpy(np.float64)
        anyhow = roc_auc_score(target, _out_of_fold(columns, target, group, np.zeros(len(target), np.int64)))
        score = _out_of_fold(columns, target, group, stratum)
        print(f"  {name:24s} {anyhow:.3f} ({_within(target, score, stratum):.3f})")


def _group(rows: pd.DataFrame) -> np.ndarray:
    return pd.factorize(rows["device_id" if rows["device_id"].nunique() > 3 else "dest"])[0]


def _newness(rows: pd.DataFrame, cut_us: int) -> np.ndarray:
    """(n,) 2 = the app as a whole, 1 = a channel first met after the cut, 0 = an older one."""
    since = (rows["window_start"] - pd.Timestamp(cut_us // _DAY_US * _DAY_US, unit="us", tz="UTC")).dt.days
    new = (rows["channel_is_new"] == 1) | (rows["channel_age_days"] <= since)
    return np.where(rows["dest"] == APP_LEVEL, 2, new.to_numpy(np.int64))


def _out_of_fold(
    columns: np.ndarray, target: np.ndarray, group: np.ndarray, stratum: np.ndarray
) -> np.ndarray:
    """(n,) out-of-fold log-odds; in each stratum both classes weigh the same."""
    out = np.zeros(len(target))
    settings = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 10, "num_threads": 1}
    settings |= {"deterministic": True, "verbosity": -1, "seed": 0}
    for learn, test in GroupKFold(4).split(columns, target, group):
        bad, where = target[learn], stratum[learn]
        weight = np.ones(len(learn))
        for k in np.unique(where):
            mine = where == k
            benign = mine & ~bad
            weight[benign] = (mine & bad).sum() / max(benign.sum(), 1)
        data = lightgbm.Dataset(columns[learn], bad.astype(int), weight=weight)
        out[test] = lightgbm.train(settings, data, 80).predict(columns[test], raw_score=True)
    return out


def _within(target: np.ndarray, score: np.ndarray, stratum: np.ndarray) -> float:
    """AUC within each stratum, weighted by its injected windows."""
    each = {k: target[stratum == k] for k in np.unique(stratum)}
    both = {k: int(bad.sum()) for k, bad in each.items() if bad.any() and not bad.all()}
    auc = [roc_auc_score(each[k], score[stratum == k]) for k in both]
    return float(np.average(auc, weights=list(both.values())))


if __name__ == "__main__":
    main()
