"""Path contributions against TreeSHAP on a trained classifier.

shap.py [--devices N] [--days D] [--seed S] [--windows N]

A simulated fleet: the first half trains the classifier, windows of the second half (with implants, of both
strata, NaN included) are explained twice: by the kernel that scores (the change of a tree's expected value
at each split) and by LightGBM's pred_contrib (TreeSHAP). Both sum to the same log-odds. A feature's value and
its distance from the baseline are one feature, as in every explanation of ours. Times are on one thread: the
best of three calls for all rows, the mean of 200 calls for one row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import lightgbm
import numpy as np
from scipy.stats import rankdata

from appcadence.features.catalog import FAMILY_OF, NAMES
from appcadence.features.columns import micros
from appcadence.features.extraction import extract, load
from appcadence.models.detector import aligned
from appcadence.models.eligibility import eligible
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import past_and_future
from appcadence.training.train import train

_DAY_US = 86_400_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"devices": 60, "days": 6, "seed": 11, "windows": 5000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    tables = load(simulate(options.devices, options.days, options.seed, implants_per_device_day=1.0).tables)
    first = int(micros(tables["flows"]["start"]).min()) // _DAY_US
    before, after = past_and_future(tables, (first + options.days // 2) * _DAY_US)
    detector = train(before, seed=options.seed).detector
    frame = extract(after, history=detector.history)
    frame = frame[eligible(frame)]
    frame = frame.sample(min(options.windows, len(frame)), random_state=options.seed)
    rows = np.hstack([aligned(frame), detector.baseline.distances(frame)])
    bags = [
        lightgbm.Booster(model_str=f"tree\n{text}") for text in detector.classifier_text.split("tree\n")[1:]
    ]

    def shap(part: np.ndarray) -> np.ndarray:
        return np.mean([bag.predict(part, pred_contrib=True, num_threads=1) for bag in bags], axis=0)

    raw, path = detector.classifier.contributions(rows)
    exact = shap(rows)
    gap = np.abs(raw - exact.sum(axis=1)).max()
    ours, theirs = by_feature(path), by_feature(exact[:, :-1])
    print(
        f"{len(rows)} windows, {frame['app_id'].notna().mean():.0%} of a known app, "
        f"{np.isnan(rows).mean():.0%} of the values unknown; log-odds differ by at most {gap:.1e}\n"
    )
    suspicious = raw > 0
    print(f"{'':46s}{'all':>8}{'log-odds > 0':>14}")
    lines: list[tuple[str, Callable[[np.ndarray], float]]] = [
        ("windows", lambda m: float(m.sum())),
        ("rank correlation per window, median", lambda m: float(np.median(correlation(ours, theirs)[m]))),
        ("  5th percentile", lambda m: float(np.quantile(correlation(ours, theirs)[m], 0.05))),
        ("strongest feature is the same", lambda m: float(agree(ours, theirs, 1)[m].mean())),
        ("three strongest are the same", lambda m: float((agree(ours, theirs, 3) == 3)[m].mean())),
        ("  of the three, shared", lambda m: float(agree(ours, theirs, 3)[m].mean() / 3)),
    ]
    for name, of in lines:
        print(f"{name:46s}{of(np.ones_like(suspicious)):8.4g}{of(suspicious):14.4g}")
    print(f"\n{'family sums: difference / range':46s}{'largest':>8}{'99%':>14}")
    for family, shares in by_family(ours, theirs).items():
        print(f"{family:46s}{shares.max():8.3f}{np.quantile(shares, 0.99):14.3f}")
    print(f"\n{'microseconds a row':46s}{'path':>8}{'TreeSHAP':>14}{'ratio':>8}")
    few = [rows[i : i + 1] for i in range(200)]
    for name, repeat, parts in (("all rows in one call", 3, [rows]), ("one row a call", 1, few)):
        fast = seconds(detector.classifier.contributions, parts, repeat)
        slow = seconds(shap, parts, repeat)
        n = sum(len(part) for part in parts)
        print(f"{name:46s}{1e6 * fast / n:8.1f}{1e6 * slow / n:14.1f}{slow / fast:8.1f}")


def by_feature(columns: np.ndarray) -> np.ndarray:
    """(n, n_features) contributions from (n, 2 n_features): a value's and its distance's are added."""
    return columns[:, : len(NAMES)] + columns[:, len(NAMES) :]


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) Spearman's rank correlation of each row over the features that either uses anywhere."""
    used = (a != 0).any(axis=0) | (b != 0).any(axis=0)
    ranks = [rankdata(x[:, used], axis=1) for x in (a, b)]
    x, y = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    return (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))


def agree(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """(n,) how many of the k largest contributions of each row are the same features."""
    top = [np.argsort(-x, axis=1, kind="stable")[:, :k] for x in (a, b)]
    return (top[0][:, :, None] == top[1][:, None, :]).sum(axis=(1, 2))


def by_family(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """(n,) difference of each family's sum, as a share of that sum's range over the rows under TreeSHAP."""
    out = {}
    for family in dict.fromkeys(FAMILY_OF.values()):
        mine = [FAMILY_OF[name] == family for name in NAMES]
        x, y = a[:, mine].sum(axis=1), b[:, mine].sum(axis=1)
        out[family] = np.abs(x - y) / np.ptp(y)
    return out


def seconds(step: Callable[[np.ndarray], object], parts: list[np.ndarray], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        for part in parts:
            step(part)
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    main()
