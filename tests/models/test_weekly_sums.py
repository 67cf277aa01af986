"""Weekly sums judged: tails by counting, budgets, and what is said."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from weekly_reports import (
    first_export,
    in_reports,
    sums_of,
    weekly_reports,
    with_long_tail,
)

from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features.weekly import contact_weeks
from appcadence.findings import of_row
from appcadence.models.weekly import EXPERTS, KEPT, WEEKLY, Tails, judge, judge_reports, reference, statistics
from appcadence.telemetry.schema import ACCESSES, CONTACT_SUMMARIES
from appcadence.telemetry.simulate.fleet import simulate

DAY = 86_400_000_000
WEEKS = 4


@pytest.fixture(scope="module")
def phones():
    """Reports of some fourteen phones with apps, without implants: the summaries and when they begin."""
    flows = simulate(24, 7 * WEEKS + 1, 3, implants_per_device_day=0.0, own_log_share=0.0).tables["flows"]
    flows = flows.filter(pc.is_valid(flows["app_id"]))
    begin = first_export(flows)
    early = pc.less(flows["start"].cast(pa.int64()), begin + 7 * WEEKS * DAY)
    return with_long_tail(weekly_reports(flows.filter(early), begin), begin, 3), begin


@pytest.fixture(scope="module")
def implanted(phones):
    """The same, with a host in one of them that is contacted 800 times a week from the third week on."""
    summaries, begin = phones
    sums = sums_of(summaries)
    device = sums["device_id"].iloc[0]
    mine = sums[(sums["device_id"] == device) & (sums["app_id"] == "com.northmail.work")]
    first = mine["report_start"].drop_duplicates().sort_values().to_numpy()[2:]
    rows = mine.iloc[: len(first)].assign(
        dest_host="c2.invalid", hits=800, first_seen=first + DAY // 100, initiated="app", dest_owner=None
    )
    rows["last_seen"] = rows["first_seen"] + 7 * DAY - DAY // 50
    return in_reports(pd.concat([sums, rows]), begin), device


def test_statistics_by_hand():
    """Of an old host, a new one, one that takes over, one of a new app, one in a first report, the user's."""
    nan = math.nan
    weeks = pd.DataFrame(
        {
            "contacts": [8, 8, 8, 8, 8, 0],
            "contacts_per_hour": [4.0, 4.0, 4.0, 4.0, 4.0, 0.0],
            "usual_per_hour": 0.5,
            "steadiness_octaves": -1.0,
            "is_new": [0.0, 1.0, 1.0, 1.0, nan, 1.0],
            "app_is_new": [0.0, 0.0, 0.0, 1.0, nan, 0.0],
            "replaces": [0.0, 0.0, 1.0, 0.0, nan, 0.0],
            "is_rare": [0.0, 1.0, 0.0, 0.0, 1.0, 1.0],
        }
    )
    want = {
        "newness": [0, 1, 0.5, 0.5, nan, nan],
        "rarity": [0, 1, 0, 0, 1, nan],
        "volume_of_new": [nan, 2, nan, nan, nan, nan],
        "steadiness_of_new": [nan, -1, nan, nan, nan, nan],
        "rise_of_new": [nan, 3, nan, nan, nan, nan],
        "excess_of_known": [5, nan, 5, 5, 5, nan],
    }
    got = statistics(weeks)
    assert list(got) == list(want)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values, name)


def test_a_device_is_judged_by_the_reports_of_others(phones):
    weeks = contact_weeks({"contact_summaries": phones[0]})
    group = pd.factorize(weeks["device_id"], sort=True)[0] % 5
    later = weeks["is_new"].notna()
    mine = (group == 1) & later
    others = Tails.fit(weeks[(group != 1) & later])
    judged = judge(weeks)[mine]
    assert set(judged["calibration"]) == {"local"}
    np.testing.assert_array_equal(judged[EXPERTS], others.worth(weeks[mine]))
    np.testing.assert_array_equal(judged["p_value"], others.p_values(judged["score"].to_numpy()))


@pytest.mark.parametrize(
    ("devices", "reports", "calibration"), [(7, 4, "local"), (7, 3, "reference"), (6, 5, "reference")]
)
def test_twenty_reports_of_five_others_are_enough(devices, reports, calibration):
    """Devices are dealt to five groups: the sixth and the first are judged together by the others."""
    days = pd.date_range("2026-03-01", periods=reports, freq="7D", tz="UTC")
    keys = [(f"d{k}", day) for k in range(devices) for day in days]
    weeks = pd.DataFrame(keys, columns=["device_id", "report_end"]).assign(report_start=days[0], contacts=1)
    weeks = weeks.assign(contacts_per_hour=1.0, usual_per_hour=1.0, steadiness_octaves=0.0, is_rare=0.0)
    judged = judge(weeks.assign(is_new=0.0, app_is_new=0.0, replaces=0.0), 1e9)
    assert set(judged.loc[judged["device_id"] == "d0", "calibration"]) == {calibration}
    # However large the budget, what is worth nothing is no finding.
    assert (judged["finding"] == (judged["score"] > 0)).all()


def test_every_statistic_has_its_tail_by_counting(phones):
    weeks = contact_weeks({"contact_summaries": phones[0]})
    tails = Tails.fit(weeks)
    assert list(statistics(weeks)) == EXPERTS
    some = weeks.sample(40, random_state=0)
    worth = tails.worth(some)
    for e, name in enumerate(EXPERTS):
        seen = statistics(weeks)[name]
        seen = seen[~np.isnan(seen)]
        for value, found in zip(statistics(some)[name], worth[:, e], strict=True):
            share = 1.0 if math.isnan(value) else ((seen >= value).sum() + 0.5) / (len(seen) + 0.5)
            # Rounded down to one of 256 steps.
            assert 0 <= max(-math.log(share), 0) - found <= tails.steps[e] + 1e-9


def test_calibration_counts_phone_weeks(phones):
    weeks = contact_weeks({"contact_summaries": phones[0]})
    tails = Tails.fit(weeks)
    score = weeks.assign(score=tails.worth(weeks).sum(axis=1))
    by_week = [part.to_numpy() for _, part in score.groupby(["device_id", "report_end"])["score"]]
    for at in np.quantile(score["score"], [0.5, 0.99, 1.0]):
        as_high = sum(part.max() >= at for part in by_week)
        assert tails.p_values(np.array([at]))[0] == (1 + as_high) / (1 + len(by_week))
        counted = sum(min((part >= at).sum(), KEPT) for part in by_week)
        assert tails.benign_per_week(np.array([at]))[0] == (1 + counted) / (1 + len(by_week))
    again = Tails.from_dict(json.loads(json.dumps(tails.as_dict())))
    assert (again.worth(weeks) == tails.worth(weeks)).all()


@pytest.mark.parametrize("seed", range(3))
def test_order_of_rows_does_not_matter(phones, seed):
    summaries, _ = phones
    few = summaries.slice(0, 400)
    order = np.random.default_rng(seed).permutation(len(few))
    shuffled = few.take(pa.array(order))
    one, other = (judge(contact_weeks({"contact_summaries": t})) for t in (few, shuffled))
    pd.testing.assert_frame_equal(one, other)


def test_a_loud_new_host_is_found_and_budgets_are_kept(implanted):
    judged = judge(contact_weeks({"contact_summaries": implanted[0]}))
    hit = judged[judged["dest_host"] == "c2.invalid"]
    assert len(hit) == 2 and hit["finding"].all() and set(hit["calibration"]) == {"local"}
    phone_weeks = len(judged[["device_id", "report_end"]].drop_duplicates())
    found = [judge(judged[contact_columns(judged)], budget)["finding"] for budget in (0.1, 0.5, 2.0)]
    assert (found[0] <= found[1]).all() and (found[1] <= found[2]).all()
    false = [(one & (judged["dest_host"] != "c2.invalid")).sum() / phone_weeks for one in found]
    assert false[0] <= 0.3 and false[2] <= 4.0


def contact_columns(judged):
    added = {"score", "p_value", "finding", "calibration", *EXPERTS}
    return [name for name in judged if name not in added]


def test_one_phone_is_judged_by_the_reference(implanted):
    summaries, device = implanted
    own = summaries.filter(pc.equal(summaries["device_id"].cast(pa.string()), device))
    judged = judge(contact_weeks({"contact_summaries": own}))
    assert set(judged["calibration"]) == {"reference"}
    best = judged.sort_values("score", ascending=False).iloc[:3]
    assert "c2.invalid" in set(best["dest_host"])


def test_the_reference_is_sound():
    for tails in reference().values():
        assert tails.thresholds.shape == (len(EXPERTS), 256)
        assert (np.sort(tails.thresholds, axis=1) == tails.thresholds).all()
        assert (np.diff(tails.highest) >= 0).all() and (np.diff(tails.scores) >= 0).all()
        assert len(tails.highest) >= 50 and len(tails.scores) <= KEPT * len(tails.highest)


def test_what_only_the_user_contacts_is_nobodys_channel(phones):
    sums = sums_of(phones[0]).assign(initiated="user")
    judged = judge(contact_weeks({"contact_summaries": in_reports(sums, phones[1])}))
    assert (judged["score"] == 0).all() and not judged["finding"].any()


def test_findings_say_why_and_what_was_not_checked(implanted):
    summaries, device = implanted
    own = pc.filter(summaries["report_end"], pc.equal(summaries["dest_host"].cast(pa.string()), "c2.invalid"))
    end = max(own.to_pylist())
    access = {"device_id": device, "app_id": "com.northmail.work", "category": "microphone"}
    accesses = ACCESSES.of_rows([access | {"start": end, "end": None, "source": "app_privacy_report"}])
    table = judge_reports({"contact_summaries": summaries, "accesses": accesses})
    assert table.schema == WEEKLY
    rows = table.to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    (last,) = (r for r in rows if r["dest_host"] == "c2.invalid" and r["report_end"] == end)
    said = [finding.code for finding in of_row(last)]
    assert said[0] == "weekly_expert" and "weekly_sums" in said and "presence_unknown" in said
    assert "first_report" not in said
    # Without findings, the twenty highest say why; what is new, no first report knows.
    first = summaries.filter(pc.equal(summaries["report_end"], pc.min(summaries["report_end"])))
    few = judge_reports({"contact_summaries": first}, 1e-9).to_pylist()
    told = [{finding.code for finding in of_row(row)} for row in few]
    assert ["first_report" in codes for codes in told[:22]] == [True] * 20 + [False] * 2
    assert [f.parameters["times"] for f in of_row(last) if f.code == "accessed"] == [1]
    assert len(last["reasons"]) == len(said)
    assert all(row["reasons"] for row in rows if row["finding"])


def test_bad_input_is_one_sentence(phones):
    with pytest.raises(AppcadenceError, match="0 benign findings a phone-week; give a number above 0"):
        judge_reports({"contact_summaries": phones[0]}, 0)
    with pytest.raises(TelemetryError, match="no contact summaries; convert an App Privacy Report"):
        judge_reports({})
    old = phones[0].drop_columns(["report_start", "report_end"])
    with pytest.raises(TelemetryError, match="convert the reports again, into a new directory"):
        judge_reports({"contact_summaries": old})
    assert len(judge_reports({"contact_summaries": CONTACT_SUMMARIES.empty()})) == 0
