"""Recall of real C2 channels moved into the other half of a real capture: one device's half day is the
baseline.

transplant.py [--data DIR] [--window 24h] [--seeds N] [--exclude-family NAME]
              [--order later|earlier] [--woken]

Train on one half of a benign capture (no labels; two PCs with labels, a phone, a PC without its C2), move
each family's C2 channels into the other half at a seeded offset, score; `--order earlier` swaps the halves in
time. With `--woken` each transplanted start is moved to just after the device's own next start, as an
implant's that wakes with it. One threshold over all cases lets 1, 3 or 10 benign channels a device-day
through. Each channel counts once, by its strongest window. Peers are computed on the same channels. Recall is
of channels that can be judged (six flows or a session of half an hour); "all" also counts the others, as
missed. Realised counts the benign channels over the threshold that promises one a device-day.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import captures
import numpy as np
import pandas as pd
import pyarrow as pa
from one_liners import one_liners
from rita import timing_score

from appcadence.features.columns import micros
from appcadence.features.extraction import table_of
from appcadence.features.windows import Windows
from appcadence.models.eligibility import eligible
from appcadence.serving.scorer import Scorer
from appcadence.training.train import train

BUDGETS = (1.0, 3.0, 10.0)
PACKAGE = "appcadence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=captures.DATA)
    parser.add_argument("--window", default="24h")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--exclude-family", action="append", default=[])
    parser.add_argument("--order", choices=("later", "earlier"), default="later")
    parser.add_argument("--woken", action="store_true")
    options = parser.parse_args()
    name, address = next(iter(captures.IN_SITU.items()))
    pc = captures.without(captures.in_situ(options.data)[name], address)
    benign = captures.normals(options.data) | {"phone": captures.phone(options.data), "pc": pc}
    families = captures.families(options.data)
    tables = []
    for seed in range(options.seeds):
        cases = [
            case for name, flows in benign.items() for case in _cases(name, flows, families, seed, options)
        ]
        tables.append(pd.concat(cases, ignore_index=True))
    _print(tables, list(families), options)


def _cases(
    name: str,
    flows: pa.Table,
    families: dict[str, pa.Table],
    seed: int,
    options: argparse.Namespace,
) -> list[pd.DataFrame]:
    before, after = captures.halves(flows, options.order)
    if options.order == "earlier":  # whole days, so that every hour stays what it was
        after = captures.beginning(
            after, int(micros(before["start"]).max()) // captures.DAY_US * captures.DAY_US + captures.DAY_US
        )
    excluded = tuple(options.exclude_family)
    scorer = Scorer(train({"flows": before}, options.window, seed, exclude_families=excluded).detector, "")
    rng = np.random.default_rng(seed)
    start = micros(after["start"])
    days = int(start.max() - start.min()) / 86_400e6
    out = []
    for family, implant in families.items():
        moved = captures.moved(implant, after, rng)
        if options.woken:
            moved = _woken(moved, after, rng)
        found = scorer.run({"flows": captures.joined(after, moved)})
        table = table_of(found.windows)
        able = eligible(table)
        ratio = np.fmax(table["session_ratio_share_1_3"], table["beat_ratio_share_1_3"])
        peers = one_liners(table).assign(**{"ratio regularity": ratio, "RITA timing": _rita(found.windows)})
        rows = pd.DataFrame({"dest": table["dest"].astype(object), "eligible": able})
        rows[PACKAGE] = found.scores["score"].to_numpy()
        channels = rows.join(peers.where(pd.Series(able))).groupby("dest", as_index=False).max()
        bad = channels["dest"].isin(captures.dests(moved))
        out.append(channels.assign(malicious=bad, family=family, benign=name, days=days))
    return out


def _woken(moved: pa.Table, host: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Each start moved to within five seconds after the device's own next start."""
    own, start = np.sort(micros(host["start"])), micros(moved["start"])
    after = np.searchsorted(own, start)
    wake = np.where(after < len(own), own[np.minimum(after, len(own) - 1)], start)
    return captures.at(moved, wake + (rng.uniform(0.05, 5.0, len(start)) * 1e6).astype(np.int64))


def _rita(windows: Windows) -> np.ndarray:
    offsets, times = windows.beats
    parts = (times[offsets[g] : offsets[g + 1]] for g in range(windows.n))
    return np.array([timing_score(np.diff(part)) for part in parts])


def _recalls(channels: pd.DataFrame, method: str, budget: float, judgeable: bool) -> dict[str, float]:
    score = channels[method].fillna(-np.inf)
    # Each benign channel stands once per family's case; so do the device-days.
    days = channels.groupby(["family", "benign"])["days"].first().sum()
    benign = np.sort(score[~channels["malicious"]])
    allowed = int(budget * days)
    level = benign[-allowed - 1] if allowed < len(benign) else -np.inf
    bad = channels[channels["malicious"] & (channels["eligible"].astype(bool) | (not judgeable))]
    return {f: float((score[part.index] > level).mean()) for f, part in bad.groupby("family")}


def _auc(channels: pd.DataFrame, method: str) -> float:
    part = channels[channels["eligible"].astype(bool)]
    rank = part[method].fillna(-np.inf).rank()
    bad = part["malicious"]
    n, m = int(bad.sum()), int((~bad).sum())
    return float((rank[bad].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def _print(tables: list[pd.DataFrame], families: list[str], options: argparse.Namespace) -> None:
    first = tables[0]
    bad = first[first["malicious"]]
    print(
        f"window {options.window}, {len(tables)} seeds, order {options.order}, "
        f"{'starts moved to the wake-ups of the device, ' if options.woken else ''}"
        f"excluded: {', '.join(options.exclude_family) or 'nothing'}"
    )
    for name, part in first[(first["family"] == families[0]) & ~first["malicious"]].groupby("benign"):
        over = [t[(t["benign"] == name) & ~t["malicious"] & (t[PACKAGE] >= 0)] for t in tables]
        days = part["days"].iloc[0]
        realised = np.array([len(o) / (len(families) * days) for o in over])
        print(
            f"{name}: {days:.2f} device-days, {len(part)} channels, {int(part['eligible'].sum())} eligible, "
            f"realised at a promise of one {realised.mean():.2f} ± {realised.std():.2f}"
        )
    counts = bad.groupby("family").agg(channels=("dest", "size"), eligible=("eligible", "sum"))
    print(
        "malicious channels (eligible):",
        ", ".join(f"{f} {counts.channels[f]} ({int(counts.eligible[f])})" for f in families),
    )
    print(
        f"\n{'method':30s} {'budget':>6s} {'macro':>12s} {'all':>5s}  "
        + " ".join(f"{f[:10]:>10s}" for f in families)
        + "   AUC"
    )
    known = {"dest", "eligible", "malicious", "family", "benign", "days"}
    for method in (name for name in first if name not in known):
        for budget in BUDGETS:
            each = pd.DataFrame([_recalls(t, method, budget, True) for t in tables])[families]
            every = pd.DataFrame([_recalls(t, method, budget, False) for t in tables])[families].mean(axis=1)
            macro = each.mean(axis=1)
            auc = np.mean([_auc(t, method) for t in tables])
            figures = " ".join(f"{each[f].mean():10.2f}" for f in families)
            print(
                f"{method:30s} {budget:6g} {macro.mean():5.2f} ± {macro.std(ddof=0):4.2f} "
                f"{every.mean():5.2f}  {figures}  {auc:.3f}"
            )


if __name__ == "__main__":
    main()
