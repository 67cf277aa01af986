"""Weekly sums of App Privacy Reports, against plain loops and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, activity
from naive_weekly import DAY, HOUR
from naive_weekly import contact_weeks as slow

from appcadence.features.accesses import uses
from appcadence.features.weekly import PAIR, REPORT, contact_weeks, short_reports
from appcadence.telemetry.schema import ACCESSES, CONTACT_SUMMARIES, SchemaError

QUANTITIES = (
    *("contacts", "user_contacts", "spread_ratio", "is_new", "app_is_new", "contacts_per_hour"),
    *("replaces", "steadiness_octaves", "is_rare", "usual_per_hour"),
)
HOSTS = ("a.one.example", "b.one.example", "two.example", "three.example")


def row(week=0, app="com.a", host="two.example", hits=9, device="d1", first=0.0, last=7.0, **changes):
    """One summary of the report of a week, between two days of it."""
    start = week * 7 * DAY
    return {
        "device_id": device,
        "app_id": app,
        "dest_host": host,
        "first_seen": start + round(first * DAY),
        "last_seen": start + round(last * DAY),
        "hits": hits,
        "initiated": "app",
        "dest_owner": None,
        "report_start": start,
        "report_end": start + 7 * DAY,
    } | changes


def weeks(rows, **tables):
    found = contact_weeks({"contact_summaries": CONTACT_SUMMARIES.of_rows(rows), **tables})
    return {tuple(one[name] for name in [*REPORT, *PAIR[1:]]): one for one in found.to_dict("records")}


def one(rows, week, **key):
    (found,) = (
        facts
        for facts in weeks(rows).values()
        if facts["report_start"] == week * 7 * DAY and all(facts[k] == v for k, v in key.items())
    )
    return found


@st.composite
def reports(draw):
    rows = []
    for device in draw(st.sampled_from((["d1"], ["d1", "d2"], ["d1", "d2", "d3"]))):
        for begin in draw(st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True)):
            length = draw(st.sampled_from((1, 3, 7, 7, 7)))
            start = begin * DAY
            for _ in range(draw(st.integers(1, 5))):
                first, last = sorted(draw(st.tuples(*[st.integers(0, length * 24)] * 2)))
                rows.append(
                    {
                        "device_id": device,
                        "app_id": draw(st.sampled_from(("com.a", "com.b"))),
                        "dest_host": draw(st.sampled_from(HOSTS)),
                        "first_seen": start + first * HOUR,
                        "last_seen": start + last * HOUR,
                        "hits": draw(st.integers(1, 400)),
                        "initiated": draw(st.sampled_from(("app", "app", "user"))),
                        "dest_owner": draw(st.sampled_from((None, None, "Owner"))),
                        "report_start": start,
                        "report_end": start + length * DAY,
                    }
                )
    return draw(st.permutations(rows))


@given(reports())
def test_quantities_are_those_of_plain_loops(rows):
    found, expected = weeks(rows), slow(rows)
    assert found.keys() == expected.keys()
    for key, facts in expected.items():
        for name in QUANTITIES:
            assert found[key][name] == pytest.approx(facts[name], rel=1e-9, abs=1e-12, nan_ok=True), name


@given(reports())
def test_no_contact_is_judged_twice(rows):
    """The judged reports of a device share at most a day with each other."""
    spans = sorted({key[:3] for key in weeks(rows)})
    for (device, _, end), (other, start, _) in zip(spans, spans[1:], strict=False):
        assert device != other or end - start <= DAY


def test_a_report_that_overlaps_is_history_alone():
    begun = row(host="three.example", first=1)
    early = [begun | {"report_start": -2 * DAY, "report_end": 5 * DAY}, row(week=1)]
    late = [row(), row(host="three.example", first=2), *early]
    assert {key[1] for key in weeks(late)} == {0, 7 * DAY}
    # The pair was contacted before the first report ended: it is not new in those after.
    again = [*late, row(week=1, host="three.example")]
    assert one(again, 1, dest_host="three.example")["is_new"] == 0


def test_the_same_report_twice_counts_once():
    rows = [row(), row(initiated="user", hits=4)]
    (found,) = weeks(rows * 2).values()
    assert (found["contacts"], found["user_contacts"]) == (9, 4)


def test_web_sites_of_one_host_are_summed():
    (found,) = weeks([row(hits=3, first=1, last=2), row(hits=5, first=2, last=6)]).values()
    assert found["contacts"] == 8 and found["spread_ratio"] == pytest.approx(5 / 7)


def test_new_stays_new_for_four_weeks():
    rows = [row(week=w) for w in range(8)] + [row(week=w, host="three.example", first=1) for w in range(2, 8)]
    new = [one(rows, w, dest_host="three.example")["is_new"] for w in range(2, 8)]
    assert new == [1, 1, 1, 1, 0, 0]
    assert math.isnan(one(rows, 0, dest_host="two.example")["is_new"])


def test_a_service_that_moved_replaces_and_one_that_is_added_does_not():
    before = [row(week=w, hits=200) for w in range(3)]
    moved = [*before, row(week=3, host="next.example", hits=190)]
    assert one(moved, 3, dest_host="next.example")["replaces"] == 1
    added = [*moved, row(week=3, hits=200)]
    assert one(added, 3, dest_host="next.example")["replaces"] == 0


def test_domains_that_others_contact_and_owners_are_not_rare():
    rows = [row(host="a.one.example"), row(host="b.one.example", device="d2"), row(host="three.example")]
    rare = {key[4]: facts["is_rare"] for key, facts in weeks(rows).items()}
    assert rare == {"a.one.example": 0, "b.one.example": 0, "three.example": 1}
    assert one([row(dest_owner="Tracker")], 0)["is_rare"] == 0


def test_hours_awake_come_from_activity_where_it_covers_the_report():
    day, hour = 86400.0, 3600.0
    used = [(d * day + h * hour, d * day + h * hour + 60) for d in range(7) for h in (8, 12, 20)]
    known = weeks([row(hits=42)], activity=_at_epoch(used))
    (found,) = known.values()
    assert found["presence_known"] and found["contacts_per_hour"] == 42 / 21
    (found,) = weeks([row(hits=42)], activity=_at_epoch(used[:6])).values()
    assert not found["presence_known"] and found["contacts_per_hour"] == pytest.approx(42 / (7 * 16))


def _at_epoch(spans):
    return activity([(start - DAY0, end - DAY0) for start, end in spans])


def test_short_reports_and_rows_without_one_are_not_judged():
    short = row() | {"report_end": 2 * DAY - 1, "last_seen": DAY}
    tables = {"contact_summaries": CONTACT_SUMMARIES.of_rows([short])}
    assert contact_weeks(tables).empty and short_reports(tables) == 1
    assert not weeks([row() | {"report_start": None, "report_end": None}])
    assert contact_weeks({}).empty
    with pytest.raises(SchemaError):
        contact_weeks({"contact_summaries": CONTACT_SUMMARIES.empty().drop_columns(["hits"])})


def test_damaged_sums_stay_finite():
    rows = [row(hits=1 << 61), row(hits=1 << 61, initiated="user"), row(first=9, last=1, host="x.example")]
    for facts in weeks(rows).values():
        assert np.isfinite([facts[name] for name in QUANTITIES if "new" not in name]).all()
        assert facts["contacts"] >= 0


def test_accesses_are_counted_by_app_and_report():
    def use(hour, category="microphone", app="com.a", device="d1"):
        return {
            "device_id": device,
            "app_id": app,
            "category": category,
            "start": round(hour * HOUR),
            "end": None,
            "source": "app_privacy_report",
        }

    rows = [
        use(1.0),
        use(1.0),
        use(30.0),
        use(8.001),
        use(7 * 24 + 1.0),
        use(2.0, "camera"),
        use(2.0, app="com.b"),
    ]
    spans = [(d * 86400.0 + 8 * 3600.0, d * 86400.0 + 8 * 3600.0 + 600) for d in range(7)]
    tables = {
        "contact_summaries": CONTACT_SUMMARIES.of_rows([row()]),
        "accesses": ACCESSES.of_rows(rows),
    }
    found = uses(tables, contact_weeks(tables))
    assert found[["category", "times"]].to_dict("records") == [
        {"category": "camera", "times": 1},
        {"category": "microphone", "times": 3},
    ]
    assert found["unattended"].isna().all()
    tables["activity"] = _at_epoch(spans)
    found = uses(tables, contact_weeks(tables)).set_index("category")
    assert found["unattended"].to_dict() == {"camera": 1, "microphone": 2}
