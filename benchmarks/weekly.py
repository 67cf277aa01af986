"""Weekly sums: what App Privacy Reports alone give away of an implant, on simulated phones.

Thirty phones, eight weeks, one report a week, with the long tail of `weekly_reports`; implants
of one kind in two phones from the third to sixth week on until the end, four such pairs a kind and seed. Of
each kind recall by implant (found in any week) and by implant-week, at the benign findings a phone-week that
were asked for (calibrated on the other phones), and at the scores that gave exactly 0.1, 0.3 and 1 of them,
next to two one-liners at the same rates. "No rhythm" is a control: contacts at random times, as many as an
hourly beacon has. Statistics were chosen on seed 0. Simulated: no promise for real phones. Eight minutes.

    python benchmarks/weekly.py [--seeds 1 2 3 4 5] [--report App_Privacy_Report.ndjson]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from weekly_reports import (
    REPORT_US,
    first_export,
    sums_of,
    weekly_reports,
    with_long_tail,
)

from appcadence._types import DAY_US
from appcadence.features import weekly
from appcadence.features.weekly import contact_weeks
from appcadence.models.weekly import FINDINGS_PER_PHONE_WEEK, judge, judge_reports
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.schema import CONTACT_SUMMARIES
from appcadence.telemetry.simulate.apps import APPS
from appcadence.telemetry.simulate.behaviours import Behaviour, Kind, Pattern, Rng, Scene, steady
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.telemetry.simulate.implants import inject

PHONES, WEEKS, PAIRS = 30, 8, 4
RATES = (0.1, 0.3, 1.0)
DAEMONS = pa.array([app.app_id for app in APPS if app.daemon])
PAIR = ["device_id", "app_id", "dest_host"]


def push_driven(rng: Rng, scene: Scene) -> Pattern:
    """A contact after nine pushes in ten."""
    heard = scene.pushes[rng.random(len(scene.pushes)) < 0.9]
    return Pattern(heard + rng.uniform(1.0, 8.0, len(heard)))


def no_rhythm(rng: Rng, scene: Scene) -> Pattern:
    """Contacts at random times."""
    return Pattern(np.sort(rng.uniform(0, scene.seconds, int(scene.seconds / 4400))))


KINDS: dict[str, Behaviour] = {
    "beacon, 10 min": steady(600, 0.2, 0.1),
    "beacon, 1 h": steady(3600, 0.2, 0.1),
    "beacon, 4 h": steady(14_400, 0.2, 0.1),
    "push-driven": Kind(push_driven, "push"),
    "no rhythm, as many as 1 h": no_rhythm,
}


class Phones:
    """Thirty simulated phones and their reports."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        tables = simulate(64, 7 * WEEKS + 1, seed, implants_per_device_day=0.0, own_log_share=0.0).tables
        flows = tables["flows"].filter(pc.is_valid(tables["flows"]["app_id"]))
        self.names = sorted(pc.unique(flows["device_id"]).cast(pa.string()).to_pylist())[:PHONES]
        self.tables = {name: _of(tables[name], self.names) for name in ("activity", "notifications")}
        self.tables["flows"] = _of(flows, self.names)
        self.begin = first_export(self.tables["flows"])
        self.end = self.begin + WEEKS * REPORT_US
        early = pc.less(self.tables["flows"]["start"].cast(pa.int64()), self.end)
        self.tables["flows"] = self.tables["flows"].filter(early)
        reports = with_long_tail(weekly_reports(self.tables["flows"], self.begin), self.begin, seed)
        self.sums = sums_of(reports)
        self.sums["week"] = (self.sums["first_seen"] - self.begin) // REPORT_US
        spans = ["device_id", "week", "report_start", "report_end"]
        self.spans = self.sums[spans].drop_duplicates()

    def weeks(self, *more: pd.DataFrame) -> pd.DataFrame:
        """What is to be judged, with more sums."""
        return contact_weeks(
            {"contact_summaries": self.with_sums(*more), "activity": self.tables["activity"]}
        )

    def with_sums(self, *more: pd.DataFrame) -> pa.Table:
        """The reports with more sums in them."""
        every = pd.concat([self.sums, *more], ignore_index=True)
        columns = {c.name: every[c.name] for c in CONTACT_SUMMARIES.columns}
        return CONTACT_SUMMARIES.of(columns)

    def implant(self, device: str, behaviour: Behaviour) -> tuple[pd.DataFrame, bool] | None:
        """The sums of one implant, and whether its destination is new."""
        own = {name: _of(table, [device]) for name, table in self.tables.items()}
        app = own["flows"]["app_id"].cast(pa.string())
        own["flows"] = own["flows"].filter(pc.invert(pc.is_in(app, DAEMONS)))
        begin = self.begin + int(self.rng.uniform(2, 6) * REPORT_US)
        flows, found = inject(
            own,
            int(self.rng.integers(1 << 30)),
            per_device_day=1.5 * DAY_US / (self.end - begin),
            kinds={"implant": behaviour},
            start=begin,
            end=self.end,
            max_per_device=1,
        )
        if not len(found):
            return None
        sums = sums_of(weekly_reports(flows, self.begin)).drop(columns=["report_start", "report_end"])
        sums["week"] = (sums["first_seen"] - self.begin) // REPORT_US
        sums = sums.merge(self.spans, on=["device_id", "week"])
        sums["last_seen"] = np.minimum(sums["last_seen"], sums["report_end"])
        return sums, bool(found["new_destination"].iloc[0])


def _of(table: pa.Table, devices: list[str]) -> pa.Table:
    return table.filter(pc.is_in(table["device_id"].cast(pa.string()), pa.array(devices)))


def ranks(judged: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rules that are compared, higher = more suspicious."""
    contacts = judged["contacts"].to_numpy(float)
    new = judged["is_new"].fillna(0.0).to_numpy()
    return {
        "score": judged["score"].to_numpy(),
        "contacts": contacts,
        "new + contacts": 1e6 * new + contacts,
    }


def outcomes(kind: str, judged: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, tuple[int, int]]:
    """Each implant-week with what found it; and false findings and phone-weeks."""
    marked = judged.merge(truth, on=[*PAIR, "report_end"], how="left")
    implanted = marked["new"].notna().to_numpy()
    phone_weeks = len(judged[weekly.REPORT].drop_duplicates())
    rows = marked.loc[implanted, [*PAIR, "new", "finding"]].assign(kind=kind)
    for name, score in ranks(marked).items():
        benign = np.sort(score[~implanted])[::-1]
        for rate in RATES:
            rows[f"{name} at {rate:g}"] = score[rows.index] > benign[round(rate * phone_weeks)]
    return rows, (int((marked["finding"] & ~implanted).sum()), phone_weeks)


def alone(phones: Phones, sums: list[pd.DataFrame], truth: pd.DataFrame) -> tuple[int, int, int, int]:
    """Phones by themselves, judged with the reference: implants, found, false findings, phone-weeks."""
    reports = phones.with_sums(*sums)
    counts = [0, 0, 0, 0]
    for device in truth["device_id"].unique():
        own = _of(reports, [device])
        judged = judge(contact_weeks({"contact_summaries": own}))
        marked = judged.merge(truth, on=[*PAIR, "report_end"], how="left")
        hit = marked["new"].notna()
        counts[0] += 1
        counts[1] += bool((marked["finding"] & hit).any())
        counts[2] += int((marked["finding"] & ~hit).sum())
        counts[3] += len(judged[weekly.REPORT].drop_duplicates())
    return counts[0], counts[1], counts[2], counts[3]


def run(seeds: list[int]) -> None:
    """Print recall and false findings."""
    found, false, single = [], [], []
    for seed in seeds:
        phones = Phones(seed)
        if seed == seeds[0]:
            describe(phones)
        for kind, behaviour in KINDS.items():
            for pair in range(PAIRS):
                chosen = phones.rng.choice(phones.names, 2, replace=False)
                made = [one for one in (phones.implant(str(name), behaviour) for name in chosen) if one]
                if not made:
                    continue
                sums = [part for part, _ in made]
                truth = pd.concat([part[[*PAIR, "report_end"]].assign(new=new) for part, new in made])
                rows, count = outcomes(kind, judge(phones.weeks(*sums)), truth)
                found.append(rows.assign(implant=f"{seed}/{kind}/{pair}/" + rows["device_id"]))
                false.append(count)
                if pair == 0:
                    single.append((kind, *alone(phones, sums, truth)))
    every = pd.concat(found, ignore_index=True)
    totals = np.array(false)
    each = totals[:, 0] / totals[:, 1]
    print(
        f"\nfalse findings a phone-week at {FINDINGS_PER_PHONE_WEEK:g}: {each.mean():.3f} "
        f"(by run {each.min():.3f} to {each.max():.3f})"
    )
    columns = ["finding", *(c for c in every.columns if " at " in c)]
    for new in (True, False):
        part = every[every["new"] == new]
        seed = part["implant"].str.split("/").str[0].rename("seed")
        seeded = part.groupby([seed, "implant"])["finding"].max().groupby("seed").mean()
        print("recall by seed:", seeded.round(2).to_dict())
        by_implant = part.groupby(["kind", "implant"])[columns].max().groupby("kind").mean()
        sizes = part.groupby("kind").agg(implants=("implant", "nunique"), weeks=("implant", "size"))
        print(f"\n{'new' if new else 'known'} destination: recall by implant\n")
        print(sizes.join(by_implant).round(2).to_string())
        print("\nrecall by implant-week\n")
        print(part.groupby("kind")[columns].mean().round(2).to_string())
    facts = pd.DataFrame(single, columns=["kind", "implants", "found", "false", "phone_weeks"])
    sums = facts.groupby("kind").sum()
    sums.loc["all"] = sums.sum()
    print("\neach phone alone, with the reference\n")
    print(sums.assign(false_per_phone_week=(sums["false"] / sums["phone_weeks"]).round(2)).to_string())


def describe(phones: Phones) -> None:
    """Print what the simulated reports look like."""
    sums = phones.sums
    reports = len(phones.spans)
    app = sums.groupby(["device_id", "week", "app_id"])["hits"].sum()
    hits = app.quantile([0.1, 0.5, 0.9]).round().astype(int).tolist()
    print(
        f"a report: {len(app) / reports:.0f} apps, {len(sums) / reports:.0f} rows, contacts an app "
        f"10%/50%/90% {hits} (a real one: 67 apps, 1,645 rows, 5/71/568)"
    )


def real(report: Path) -> None:
    """Judge one real report, of which no truth is known."""
    with tempfile.TemporaryDirectory() as place:
        convert([report], Path(place) / "telemetry", device_id="phone")
        judged = judge_reports(Path(place) / "telemetry")
        print(f"\n{report.name}: {len(judged)} sums judged, {sum(judged['finding'].to_pylist())} findings")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--report", type=Path, help="a real report, judged with the reference")
    asked = parser.parse_args()
    begun = time.perf_counter()
    run(asked.seeds)
    if asked.report:
        real(asked.report)
    print(f"\n{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
