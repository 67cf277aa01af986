"""Implants on simulated phones that nothing but their own log shows, beside the same phones with full flows.

own_log.py [--seeds N] [--first-seed S] [--devices N]

Simulated phones with a per-app filter, five days to train on and five with implants, every implant alive for
all of them: beats of one minute to one hour, answers to pushes, long sessions, uploads while the user is
away. Half of the implants have a control: as much traffic in another app, without the rhythm, the sessions,
the pushes or the absence. The same traffic is then seen through the phones' own logs, as a sysdiagnose holds
them: slots of 8 s by app, no destination, pushes on the minute. Recall of implant-days at .1, 1 and 3 false
app-days a device-day, by the reference model (which knows nothing of these phones but the days before) and by
one trained on the first five days, beside one-liners on the same windows; what the promise of one becomes;
and the share of control-days that pass at one. Simulated figures promise nothing for real phones.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from one_liners import one_liners
from twins import inject_with_twins

from appcadence.features import extract
from appcadence.features.columns import micros
from appcadence.features.history import History
from appcadence.models.bundle import reference_model
from appcadence.models.calibration import alert_unit, device_days
from appcadence.models.eligibility import eligible, unattributable
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.schema import LABELS, conform
from appcadence.telemetry.simulate.behaviours import Kind, long_session, push_burst, steady, userless
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.phone_log import through_own_log
from appcadence.training.injection import Tables, past_and_future
from appcadence.training.train import train
from appcadence.training.truth import truth_of

KINDS = {
    "every minute": Kind(steady(60.0, 0.1, 0.05)),
    "every 5 minutes": Kind(steady(300.0, 0.2, 0.05)),
    "every 15 minutes": Kind(steady(900.0, 0.3, 0.05)),
    "every hour": Kind(steady(3600.0, 0.2, 0.0)),
    "answers to pushes": Kind(push_burst, "push"),
    "long sessions": Kind(long_session, "persistence"),
    "while locked": Kind(userless, "absence"),
}
DAYS = 10
BUDGETS = (0.1, 1.0, 3.0)
PER_DEVICE_DAY = 0.12
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Found:
    """One ranking of one view on one seed."""

    recall: dict[float, float]
    by_kind: dict[str, float]
    controls: float
    realised: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=700)
    parser.add_argument("--devices", type=int, default=40)
    options = parser.parse_args()
    found: dict[str, list[Found]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name, result in one_seed(options.devices, seed).items():
            found.setdefault(name, []).append(result)
        print(f"seed {seed} done", flush=True)
    print(f"\nsimulated: {options.seeds} seeds from {options.first_seed}, {options.devices} devices")
    head = "".join(f"{f'at {budget:g}':>14s}" for budget in BUDGETS)
    print(f"{'':40s}{head}{'realised at 1':>16s}{'controls':>14s}")
    for name, results in found.items():
        cells = "".join(f"{spread([r.recall[b] for r in results]):>14s}" for b in BUDGETS)
        realised = spread([r.realised for r in results]) if np.isfinite(results[0].realised) else "-"
        print(f"{name:40s}{cells}{realised:>16s}{spread([r.controls for r in results]):>14s}")
    print("\nrecall at one false app-day a device-day, by kind:")
    names = [name for name in found if "model" in name or "trained" in name]
    print(f"{'':20s}" + "".join(f"{name:>32s}" for name in names))
    for kind in KINDS:
        cells = [np.nanmean([r.by_kind.get(kind, np.nan) for r in found[name]]) for name in names]
        print(f"{kind:20s}" + "".join(f"{cell:32.2f}" for cell in cells))


def one_seed(devices: int, seed: int) -> dict[str, Found]:
    """Every ranking of both views, by name."""
    made = [
        simulate(devices, DAYS, seed, implants_per_device_day=0.0, own_log_share=share).tables
        for share in (0.0, 1.0)
    ]
    full, logged = filtered(made[0]), made[1]
    cut = int(micros(full["flows"]["start"]).min()) // _DAY_US * _DAY_US + DAYS // 2 * _DAY_US
    grafted, specs = inject_with_twins(
        past_and_future(full, cut)[1],
        seed,
        per_device_day=PER_DEVICE_DAY,
        kinds=KINDS,
        max_per_device=2,
        share=0.5,
    )
    full = full | {"flows": pa.concat_tables([full["flows"], grafted]).unify_dictionaries()}
    own = through_own_log(full, set(pc.unique(full["flows"]["device_id"].cast(pa.string())).to_pylist()))
    own["tasks"] = logged["tasks"]  # of the same phones, which alone report it
    out: dict[str, Found] = {}
    for view, tables in (("full flows", full), ("own log", own)):
        truth = labels(specs, whole=view == "own log")
        out |= {f"{view}, {name}": result for name, result in rankings(tables, truth, cut, seed).items()}
    return out


def filtered(tables: Tables) -> Tables:
    """The devices whose flows name their apps."""
    flows = tables["flows"]
    mine = pc.unique(flows["device_id"].filter(pc.is_valid(flows["app_id"])).cast(pa.string()))
    kept = {name: table for name, table in tables.items() if name != "inventory"}
    return tables | {
        name: table.filter(pc.is_in(table["device_id"].cast(pa.string()), mine))
        for name, table in kept.items()
    }


def labels(specs: pd.DataFrame, whole: bool) -> pa.Table:
    """Implants and, with the kind "control", their controls; of apps, where destinations are not seen."""
    rows = specs.explode("dests").assign(label="malicious", case_id=specs["implant_id"].astype(str))
    rows["dest"] = "*" if whole else rows["dests"]
    rows["kind"] = rows["kind"].where(~rows["control"].astype(bool), "control")
    for name in ("start", "end"):
        rows[name] = pd.to_datetime(rows[f"{name}_us"].astype("int64"), unit="us", utc=True)
    rows = rows.drop_duplicates(["case_id", "dest"])
    return conform(LABELS, pa.Table.from_pandas(rows[[c.name for c in LABELS.columns]], preserve_index=False))


def rankings(tables: Tables, truth: pa.Table, cut: int, seed: int) -> dict[str, Found]:
    """The reference model, one trained on what lies before the cut, and one-liners."""
    before, after = past_and_future(tables, cut)
    since = pd.Timestamp(cut, unit="us", tz="UTC")
    untrained = Scorer(reference_model()[0], "reference").score(tables)
    untrained = untrained[untrained["window_start"] >= since].reset_index(drop=True)
    trained = Scorer(train(before, seed=seed).detector, "trained").score(after)
    table = extract(tables, history=History.empty())
    judged_at_all = eligible(table) & ~unattributable(table) & (table["window_start"] >= since).to_numpy()
    table = table[judged_at_all].reset_index(drop=True)
    rough = one_liners(table).assign(
        **{
            "beats an hour": table["beats_per_hour"].fillna(0),
            "regular": table["part_cadence_score"].fillna(-9),
            "unexplained sessions": table["unexplained_sessions_per_hour"].fillna(-1),
            "beats while locked": (table["userless_share"] * table["beats_per_hour"]).fillna(0),
        }
    )
    out = {
        "reference model": judged(untrained, untrained["score"].where(untrained["rank"].notna()), truth),
        "trained": judged(trained, trained["score"].where(trained["rank"].notna()), truth),
    }
    for name in rough:
        result = judged(table, rough[name], truth)
        out[name] = Found(result.recall, result.by_kind, result.controls, np.nan)
    return out


def judged(windows: pd.DataFrame, score: pd.Series, labels: pa.Table) -> Found:
    """Recall of implant-days, by best window, at so many benign app-days a device-day; units with a control
    are neither."""
    truth, _ = truth_of(windows, labels)
    ranked = score.fillna(-np.inf).to_numpy(np.float64)
    unit = alert_unit(windows)
    best, bad = np.full(int(unit.max()) + 1, -np.inf), np.zeros(int(unit.max()) + 1, np.bool_)
    np.maximum.at(best, unit, ranked)
    bad[unit[truth.window]] = True
    shown = np.full(len(truth.days), -np.inf)
    np.maximum.at(shown, truth.day, ranked[truth.window])
    benign, days = np.sort(best[~bad])[::-1], device_days(windows)
    control = (truth.days["kind"] == "control").to_numpy()

    def level(budget: float) -> float:
        k = int(budget * days)
        return float(benign[k]) if k < len(benign) else -np.inf

    passes = shown > level(1.0)
    kinds = truth.days["kind"][~control].unique()
    return Found(
        {b: float((shown[~control] > level(b)).mean()) for b in BUDGETS},
        {k: float(passes[(truth.days["kind"] == k).to_numpy()].mean()) for k in kinds},
        float(passes[control].mean()) if control.any() else np.nan,
        float((benign >= 0).sum() / days),
    )


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f}±{np.std(values):.2f}"


if __name__ == "__main__":
    main()
