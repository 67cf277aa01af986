"""Real devices, real C2, one telemetry directory: the detector beside one line of arithmetic.

real_fleet.py [--data DIR] [--seeds N] [--train-seeds N]

Four devices: the two labelled PCs and the phone, each with one half of its capture as baseline and the other
to score, and a PC with one day as baseline (the C2 address taken out) and another, C2 in situ, to score; days
are moved so that baselines lie before tests. Five families of C2 are moved into the three other devices, one
a device, in five rotations. Both orders of halves and days make two baselines. The unit is a device, a
destination and a day; it counts once, by its strongest window. Recall is of the malicious units with enough
evidence (six flows or a session of half an hour) at 0.3, 1 and 3 false units a device-day, over all
rotations, with one threshold for both baselines (pooled) and with one each. AUC is of eligible units.
Realised counts the benign units over the threshold that promises one a device-day. Peers rank the same units.

The captures are development data: choices were made while looking at them, on five seeds at least.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import captures
import numpy as np
import pandas as pd
import pyarrow as pa
from one_liners import one_liners

from appcadence.features.extraction import table_of
from appcadence.models.eligibility import eligible
from appcadence.serving.scorer import Scorer
from appcadence.training.train import train

BORDER_US = 20_000 * captures.DAY_US
"""Baselines lie before it, tests after it."""
BUDGETS = (0.3, 1.0, 3.0)
ORDERS = ("later", "earlier")
ROTATIONS = 5
PACKAGE = "appcadence"


@dataclass(frozen=True)
class Test:
    """Flows to score, and which of their units are malicious."""

    rotation: int
    flows: pa.Table
    c2: dict[tuple[str, str], str]
    """(device, destination) -> name of the C2."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=captures.DATA)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    material = Material.read(options.data)
    tables = []
    for seed in range(options.seeds):
        parts = [scored(material, order, seed) for order in ORDERS]
        tables.append(pd.concat(parts, ignore_index=True))
        report(tables[-1:], f"seed {seed}")
    report(tables, f"mean over {options.seeds} seeds")


@dataclass(frozen=True)
class Material:
    """The captures of a data directory."""

    halved: dict[str, pa.Table]
    pc: dict[str, pa.Table]
    families: dict[str, pa.Table]

    @classmethod
    def read(cls, data: Path) -> Material:
        phone = captures.phone(data)
        return cls(captures.normals(data) | {"phone": phone}, captures.in_situ(data), captures.families(data))

    def baseline(self, order: str) -> pa.Table:
        """Flows of the four devices before the border."""
        return captures.joined(*(before for before, _ in self._parts(order).values()))

    def tests(self, order: str, seed: int) -> Iterator[Test]:
        """Each rotation of the families over the devices."""
        parts = self._parts(order)
        for rotation in range(ROTATIONS):
            rng = np.random.default_rng(seed * ROTATIONS + rotation)
            flows = [after for _, after in parts.values()]
            c2 = {("pc", address): name for name, address in captures.IN_SITU.items()}
            names = list(self.families)
            for place, device in enumerate(self.halved):
                family = names[(rotation + place) % len(names)]
                implant = captures.moved(self.families[family], parts[device][1], rng)
                c2 |= {(device, dest): family for dest in captures.dests(implant)}
                flows.append(implant)
            yield Test(rotation, captures.joined(*flows), c2)

    def _parts(self, order: str) -> dict[str, tuple[pa.Table, pa.Table]]:
        """By device, what lies before and after the border."""
        pairs = {name: captures.halves(flows, order) for name, flows in self.halved.items()}
        first, second = list(captures.IN_SITU) if order == "later" else list(captures.IN_SITU)[::-1]
        pairs["pc"] = captures.without(self.pc[first], captures.IN_SITU[first]), self.pc[second]
        return {
            name: (
                captures.owned(captures.ending(before, BORDER_US), name),
                captures.owned(captures.beginning(after, BORDER_US), name),
            )
            for name, (before, after) in pairs.items()
        }


def scored(material: Material, order: str, seed: int) -> pd.DataFrame:
    """The units of all rotations, scored by a detector of one baseline and by its peers."""
    detector = train({"flows": material.baseline(order)}, seed=seed).detector
    return pd.concat(
        [units(Scorer(detector, "benchmark"), test) for test in material.tests(order, seed)],
        ignore_index=True,
    ).assign(order=order)


def units(scorer: Scorer, test: Test) -> pd.DataFrame:
    """One row a unit: the strongest score of each method, and its truth."""
    found = scorer.run({"flows": test.flows})
    table, scores = table_of(found.windows), found.scores.to_pandas()
    able = eligible(table)
    rows = pd.DataFrame({name: table[name].astype(object) for name in ("device_id", "dest")})
    rows["day"], rows["eligible"] = table["window_start"].dt.floor("D"), able
    rows[PACKAGE] = scores["score"]
    rows = rows.join(one_liners(table).where(pd.Series(able)))
    out = rows.groupby(["device_id", "dest", "day"], as_index=False).max()
    seconds = table.drop_duplicates(["device_id", "window_start"])["observed_seconds"].sum()
    names = [test.c2.get(key) for key in zip(out["device_id"], out["dest"], strict=True)]
    return out.assign(c2=names, rotation=test.rotation, days=seconds / 86_400)


def level(rows: pd.DataFrame, method: str, budget: float) -> float:
    """The score that benign units exceed `budget` times a device-day."""
    days = rows.groupby(["order", "rotation"])["days"].first().sum()
    benign = np.sort(rows.loc[rows["c2"].isna(), method].fillna(-np.inf))[::-1]
    allowed = int(budget * days)
    return float(benign[allowed]) if allowed < len(benign) else -np.inf


def recall(rows: pd.DataFrame, method: str, budget: float, *, each: bool) -> float:
    """Share of the eligible malicious units above the threshold; `each` baseline with its own."""
    groups = [part for _, part in rows.groupby("order")] if each else [rows]
    bad = [part[part["c2"].notna() & part["eligible"]] for part in groups]
    hits = [(b[method] > level(part, method, budget)).sum() for b, part in zip(bad, groups, strict=True)]
    return float(sum(hits) / sum(map(len, bad)))


def auc(rows: pd.DataFrame, method: str) -> float:
    part = rows[rows["eligible"]]
    rank, bad = part[method].rank(), part["c2"].notna()
    n, m = int(bad.sum()), int((~bad).sum())
    return float((rank[bad].sum() - n * (n + 1) / 2) / (n * m))


def report(tables: list[pd.DataFrame], title: str) -> None:
    methods = [PACKAGE, *one_liners_names(tables[0])]
    rows = tables[0]
    days = rows.groupby(["order", "rotation"])["days"].first().sum()
    bad = rows[rows["c2"].notna()]
    print(
        f"\n{title}: {days:.1f} device-days; {len(bad)} malicious, {int(bad['eligible'].sum())} eligible, "
        f"among {int((rows['eligible'] & rows['c2'].isna()).sum())} eligible benign ones"
    )
    print(
        f"{'method':30s} {'AUC':>12s} "
        + " ".join(f"{f'at {b:g}':>14s}" for b in BUDGETS)
        + "   each baseline"
    )
    for method in methods:
        cells = [_spread([auc(t, method) for t in tables])]
        cells += [_spread([recall(t, method, b, each=False) for t in tables]) for b in BUDGETS]
        cells += [_spread([recall(t, method, b, each=True) for t in tables]) for b in BUDGETS]
        print(f"{method:30s} " + " ".join(cells))
    for order in ORDERS:
        parts = [t[t["order"] == order] for t in tables]
        over = [p[(p[PACKAGE] >= 0) & p["c2"].isna()] for p in parts]
        days = [p.groupby("rotation")["days"].first() for p in parts]
        realised = [len(o) / d.sum() for o, d in zip(over, days, strict=True)]
        # The benign units of all rotations are the same.
        units = [o.groupby(["device_id", "dest", "day"]).ngroups for o in over]
        print(
            f"realised at a promise of one, {order}: {_spread(realised)}; "
            f"{np.mean(units):.1f} different units in {np.mean([d.mean() for d in days]):.1f} device-days"
        )
    ranks = pd.concat([c2_ranks(t) for t in tables])
    print(ranks.groupby(["c2", "order"])["rank"].agg(["median", "max", "size"]).to_string())


def c2_ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """The place of each C2 among the units of its device and day, the best unit of each."""
    key = ["order", "rotation", "device_id", "day"]
    rows = rows.assign(rank=rows.groupby(key)[PACKAGE].rank(ascending=False, method="min"))
    bad = rows[rows["c2"].notna() & rows["eligible"]]
    return bad.groupby(["order", "rotation", "device_id", "c2"], as_index=False)["rank"].min()


def one_liners_names(rows: pd.DataFrame) -> list[str]:
    known = {"device_id", "dest", "day", "eligible", PACKAGE, "c2", "rotation", "days", "order"}
    return [name for name in rows if name not in known]


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):6.2f} ± {np.std(values):4.2f}"


if __name__ == "__main__":
    main()
