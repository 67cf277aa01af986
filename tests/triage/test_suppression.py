"""Exceptions on scored windows: what they silence, what they must not, and that they can be undone."""

import datetime
import ipaddress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import DAY0
from two_rhythms import DAY, HOST, MAIL, scored

from appcadence.errors import SchemaError
from appcadence.findings import Finding
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.models.scores import SCORES
from appcadence.serving.measures import MEASURES
from appcadence.triage.exceptions import Entry, broken
from appcadence.triage.suppression import judge, marked, ranks_under, unused

TODAY, HOUR = datetime.date(2026, 3, 8), "connected in the hour from"
KEY = ["device_id", "app_id", "dest", "window_start"]


def an(id="mail", *, app_id=None, destination=None, created="2026-03-01", expires="2026-12-31", **more):
    if destination is not None and "/" in destination:
        destination = ipaddress.ip_network(destination)
    usual = {"devices": None, "behaviours": frozenset(BEHAVIOURS), "min_period_seconds": None}
    usual |= {"max_bytes_per_day": None, "hours": None} | more
    day = datetime.date.fromisoformat
    return Entry(
        id, "owner", "why", "what for", day(created), day(expires), app_id, **usual, destination=destination
    )


def applied(scores, measures, entries, on=None):
    ruling = judge(scores, measures, entries, on)
    return marked(scores, measures, entries, ruling, ranks_under(ruling, scores)), ruling.uses


def mail(table):
    rows = table.to_pandas()
    return rows[rows["app_id"] == MAIL].set_index(["device_id", "dest", "window_start"]).sort_index()


def test_no_exceptions_change_nothing(fleet_model):
    scores, measures = scored(fleet_model)
    same, uses = applied(scores, measures, ())
    assert same.equals(scores) and uses == ()


def test_a_wildcard_silences_without_deleting(fleet_model):
    scores, measures = scored(fleet_model)
    assert mail(scores)["alert"].all() and len(mail(scores)) == 8
    after, (use,) = applied(
        scores, measures, [an(app_id="com.example.*", destination="*.mail.example")], TODAY
    )
    assert after.schema == SCORES and len(after) == len(scores)
    untouched = [n for n in SCORES.names if n not in ("status", "rank", "alert", "exception_id")]
    assert after.select(untouched).equals(scores.select(untouched))
    rows = mail(after)
    assert (rows["status"] == "excepted").all() and (rows["exception_id"] == "mail").all()
    assert not rows["alert"].any() and rows["rank"].isna().all()
    assert (use.matched, use.covered, use.bounds_broken, use.overlaps) == (8, 8, 0, {})
    others = after.filter(pc.is_null(after["exception_id"]))
    before = scores.filter(pc.is_null(after["exception_id"]))
    assert others["alert"].equals(before["alert"])
    ranked = others.sort_by("rank")["rank"].drop_null().to_pylist()
    assert ranked == list(range(1, len(ranked) + 1))
    assert pc.sort_indices(others["rank"]).equals(pc.sort_indices(before["rank"]))


def test_the_bound_breaks_it_when_the_rhythm_changes(fleet_model):
    scores, measures = scored(fleet_model)
    after, (use,) = applied(scores, measures, [an(app_id=MAIL, min_period_seconds=900.0)], TODAY)
    rows, before = mail(after), mail(scores)
    slow = rows["exception_id"] == "mail"
    fast = rows.index[~slow]
    assert {(device, str(start)[:10]) for device, _, start in fast} == {("phone-02", "2026-03-07")}
    assert (use.covered, use.bounds_broken) == (6, 2) and "bounds broken in 2" in use.notes
    said = "Exception mail does not hold: a flow every 15 s, approved 15 min or more."
    for key in fast:
        assert list(rows["reasons"][key]) == [*before["reasons"][key], said]
        assert rows["status"][key] == "scored" and rows["alert"][key] and rows["rank"][key] in (1, 2)
    assert all(list(rows["reasons"][key]) == list(before["reasons"][key]) for key in rows.index[slow])


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"max_bytes_per_day": 172_799.0}, "172.8 kB a day, approved up to 172.8 kB"),
        ({"hours": (22, 6)}, "connected in the hour from 06:00 UTC, approved 22:00-06:00"),
    ],
)
def test_volume_and_hours_are_bounds(fleet_model, bound, said):
    scores, measures = scored(fleet_model)
    after, (use,) = applied(scores, measures, [an(app_id=MAIL, **bound)], TODAY)
    assert use.covered == 0 and use.bounds_broken == 8
    key = ("phone-01", HOST, pd.Timestamp("2026-03-06", tz="UTC"))
    assert mail(after)["reasons"][key][-1] == f"Exception mail does not hold: {said}."
    wide = an(app_id=MAIL, max_bytes_per_day=2e7, min_period_seconds=15.0)
    assert applied(scores, measures, [wide], TODAY)[1][0].covered == 8


def test_a_window_is_judged_by_its_own_days(fleet_model):
    scores, measures = scored(fleet_model)
    one_day = an(app_id=MAIL, created="2026-03-07", expires="2026-03-07")
    after, (use,) = applied(scores, measures, [one_day], TODAY)
    rows = mail(after)
    assert set(rows.index[rows["status"] == "excepted"].get_level_values(2).day) == {7} and use.covered == 4
    assert use.days_left == -1 and use.notes == ["expired"]
    for start, told in rows.groupby(level=2)["reasons"]:
        late = start.day > 7
        assert all(("Exception mail does not hold: expired on 2026-03-07." in list(r)) == late for r in told)
    last = an(app_id=MAIL, expires="9999-12-31", created="0001-01-01")
    assert applied(scores, measures, [last], TODAY)[1][0].covered == 8


@pytest.mark.parametrize(
    ("expires", "notes"),
    [
        ("2026-03-07", ["expired"]),
        ("2026-03-08", ["expires today"]),
        ("2026-03-22", ["expires in 14 d"]),
        ("2026-03-23", []),
    ],
)
def test_expiry_is_told_without_scores(expires, notes):
    (use,) = unused([an(app_id=MAIL, expires=expires)], TODAY)
    assert use.notes == notes and use.covered is None


def test_the_first_of_two_wins(fleet_model):
    scores, measures = scored(fleet_model)
    one = an("one", app_id=MAIL, devices=frozenset(["phone-01"]))
    after, uses = applied(
        scores, measures, [one, an("two", app_id=MAIL), an("three", app_id="com.absent")], TODAY
    )
    assert [u.covered for u in uses] == [4, 4, 0] and uses[1].overlaps == {"one": 4}
    assert uses[1].notes == ["4 already under one"] and uses[2].notes == ["matches no window"]
    ids = mail(after)["exception_id"]
    assert (ids["phone-01"] == "one").all() and (ids["phone-02"] == "two").all()
    # Where another covers the window, that the first does not hold is no reason to look at it.
    bound = an("bound", app_id=MAIL, min_period_seconds=900.0)
    covered, uses = applied(scores, measures, [bound, an("two", app_id=MAIL)], TODAY)
    assert covered["reasons"].equals(scores["reasons"]) and [u.covered for u in uses] == [6, 2]


def test_all_behaviours_of_a_window_must_be_named(fleet_model):
    scores, measures = scored(fleet_model)
    some = an(app_id=MAIL, behaviours=frozenset(["structured_cadence"]))
    mail = scores.filter(pc.equal(scores["app_id"], MAIL))
    named = sum(set(names) <= {"structured_cadence"} for names in mail["behaviours"].to_pylist())
    assert applied(scores, measures, [some], TODAY)[1][0].covered == named < len(mail) == 8
    both = an(app_id=MAIL, behaviours=frozenset(["structured_cadence", "session_persistence"]))
    assert applied(scores, measures, [both], TODAY)[1][0].covered == 8


def test_windows_out_of_the_ranking_stay_so(fleet_model):
    scores, measures = scored(fleet_model)
    rank, status = scores["rank"].to_pylist(), scores["status"].to_pylist()
    for why in (aside := ("insufficient_evidence", "local_destination")):
        last = rank.index(max(filter(None, rank)))
        rank[last], status[last] = None, why
    at = scores.schema.get_field_index
    scores = scores.set_column(at("rank"), "rank", pa.array(rank, pa.int64()))
    scores = scores.set_column(at("status"), "status", pa.array(status))
    after, (use,) = applied(scores, measures, [an(app_id="com.*", destination=None)], TODAY)
    assert use.matched == use.covered + 2
    under = dict(zip(*(after[name].to_pylist() for name in ("status", "exception_id")), strict=True))
    assert [under[why] for why in aside] == ["mail", None]


@pytest.mark.parametrize("rate", [None, 0.1])
def test_applied_again_equals_a_fresh_scoring(fleet_model, tmp_path, rate):
    scores, measures = scored(fleet_model, rate)
    night = [an(app_id=MAIL, min_period_seconds=900.0), an("chat", app_id="com.chat", hours=(8, 23))]
    other = [an("x", destination="*.social.example"), an("chat", app_id="com.chat", hours=(0, 12))]
    first = applied(scores, measures, night, TODAY)[0]
    assert not first.equals(scores)
    pq.write_table(first, tmp_path / "scores.parquet")
    pq.write_table(measures, tmp_path / "measures.parquet")
    stored, kept = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("scores", "measures"))
    for entries in (other, night, ()):
        assert applied(stored, kept, entries, TODAY)[0].equals(applied(scores, measures, entries, TODAY)[0])
    assert applied(stored, kept, ())[0].equals(scores)


def test_measures_of_other_scores_are_refused(fleet_model):
    scores, measures = scored(fleet_model)
    with pytest.raises(SchemaError, match="do not belong"):
        applied(scores, measures.slice(1), ())


def _judged(rows):
    """A scores table of (device, app, dest, day, behaviours) and measures that no bound looks at."""
    columns = {f.name: pa.nulls(len(rows), f.type) for f in SCORES}
    devices, apps, dests, days, shown = zip(*rows, strict=True) if rows else ([],) * 5
    micros = [DAY0 * 1_000_000 + round(DAY * day * 1e6) for day in days]
    start = pa.array(micros, SCORES.field("window_start").type)
    columns |= {"device_id": pa.array(devices, pa.string()), "app_id": pa.array(apps, pa.string())}
    columns |= {"dest": pa.array(dests, pa.string()), "window_start": start}
    columns["window_end"] = pc.add(start, pa.scalar(datetime.timedelta(days=1)))
    columns["status"] = pa.array(["scored"] * len(rows), pa.string())
    columns["behaviours"] = pa.array(list(shown), SCORES.field("behaviours").type)
    measures = [pa.nulls(len(rows), pa.float64())] * 2 + [pa.array([0] * len(rows), pa.int32())]
    measures.append(pa.array([True] * len(rows)))
    return pa.table(columns, SCORES), pa.table(measures, MEASURES)


@pytest.mark.parametrize(
    ("network", "inside"),
    [
        ("203.0.113.0/24", ["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.9"]),
        ("::ffff:203.0.113.0/120", ["203.0.113.0", "203.0.113.255", "::ffff:203.0.113.9"]),
        ("10.0.0.0/8", ["10.0.0.0"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"]),
        ("fd00::/8", ["fdab::1"]),
        ("203.0.113.9/32", ["::ffff:203.0.113.9"]),
        ("::/128", ["::"]),
        ("::/96", ["::"]),
    ],
)
def test_ranges_of_addresses(network, inside):
    names = ["203.0.113.0", "203.0.113.255", "203.0.114.0", "::ffff:203.0.113.9", "10.0.0.0", "2001:db8::"]
    names += ["2001:db8:ffff::1", "2001:db9::", "fdab::1", "::"]
    names += ["a.example", "fdab.example", "203.0.113.9.example"]
    scores, measures = _judged([("d", "a", name, 0, []) for name in names])
    covered = judge(scores, measures, [an(destination=network)], TODAY).entry >= 0
    assert [name for name, hit in zip(names, covered, strict=True) if hit] == inside


def test_an_app_is_covered_when_all_its_channels_are():
    rows = [("d", MAIL, dest, day, []) for day in (0, 1) for dest in ("a.example", "b.example", "*")]
    rows.remove(("d", MAIL, "b.example", 1, []))
    ruling = judge(*_judged(rows), [an(destination="a.example")], TODAY)
    covered = [row[2:4] for row, entry in zip(rows, ruling.entry, strict=True) if entry == 0]
    assert covered == [("a.example", 0), ("a.example", 1), ("*", 1)]


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["d1", "d2", "\x1b"]),
        st.sampled_from(["com.a", "com.a.b", "com.ab", None]),
        st.sampled_from(
            ["*", "*", "a.example", "x.a.example", "xa.example", "10.1.2.3", "fd00::1", "*.a.example"]
        ),
        st.integers(0, 2),
        st.lists(st.sampled_from(list(BEHAVIOURS)), unique=True),
    ),
    max_size=25,
)
ENTRIES = st.lists(
    st.builds(
        an,
        app_id=st.sampled_from([None, "com.a", "com.a.*"]),
        destination=st.sampled_from([None, "a.example", "*.a.example", "10.1.0.0/16", "fd00::/8"]),
        created=st.sampled_from(["2026-03-01", "2026-03-03"]),
        expires=st.sampled_from(["2026-03-03", "2026-03-09"]),
        devices=st.sampled_from([None, frozenset(["d1"]), frozenset(["d2", "d9"])]),
        behaviours=st.frozensets(st.sampled_from(list(BEHAVIOURS)), min_size=1),
    ),
    max_size=3,
)


def _obvious(entry, row, rows):
    device, app, dest, day, shown = row

    def meant(dest):
        if entry.destination is None or isinstance(entry.destination, str):
            wanted = entry.destination or ""
            return dest.endswith(wanted[1:]) if wanted[:1] == "*" else dest == wanted
        try:
            return ipaddress.ip_address(dest) in entry.destination
        except ValueError:
            return False

    if entry.app_id is not None:
        wild = entry.app_id.endswith("*")
        if app is None or not (app.startswith(entry.app_id[:-1]) if wild else app == entry.app_id):
            return False
    if entry.devices is not None and device not in entry.devices:
        return False
    if entry.destination is not None:
        beside = [r[2] for r in rows if (r[0], r[1], r[3]) == (device, app, day) and r[2] != "*"]
        if not (all(map(meant, beside)) and beside if dest == "*" else meant(dest)):
            return False
    date = datetime.date(2026, 3, 2) + datetime.timedelta(days=day)
    return entry.created <= date <= entry.expires and set(shown) <= entry.behaviours


@given(ROWS, ENTRIES)
@settings(max_examples=300)
def test_every_window_is_covered_by_the_first_that_should(rows, entries):
    ruling = judge(*_judged(rows), entries, TODAY)
    for got, row in zip(ruling.entry.tolist(), rows, strict=True):
        assert got == next((k for k, entry in enumerate(entries) if _obvious(entry, row, rows)), -1)


def test_nothing_scored_is_nothing_excepted():
    scores, measures = _judged([])
    after, (use,) = applied(scores, measures, [an(app_id=MAIL, destination="a.example")], TODAY)
    assert len(after) == 0 and after.schema == SCORES and use.notes == ["matches no window"]


def test_a_bound_that_cannot_be_checked_does_not_hold():
    scores, measures = _judged([("d", MAIL, "a.example", 0, [])])
    ruling = judge(scores, measures, [an(app_id=MAIL, max_bytes_per_day=1e9)], TODAY)
    said = "Exception mail does not hold: an unknown volume a day, approved up to 1 GB."
    assert ruling.entry.tolist() == [-1] and [f.text for f in ruling.findings[0]] == [said]


US = 1e-6 / DAY


@pytest.mark.parametrize(
    ("begins", "lasts", "covered", "told"),
    [
        (0.0, 1.0, True, False),  # the first day that it holds
        (-US, 1.0, False, False),
        (1.0, 1.0, True, False),  # the last one, to midnight
        (1.0 + US, 1.0, False, True),
        (0.0, 2.0, True, False),
        (0.0, 2.0 + US, False, True),
        (5.0, 1.0, False, True),
    ],
)
def test_an_exception_holds_from_its_first_midnight_to_its_last(begins, lasts, covered, told):
    scores, measures = _judged([("d", MAIL, "a.example", begins, [])])
    end = pc.add(scores["window_start"], pa.scalar(datetime.timedelta(microseconds=round(lasts * DAY * 1e6))))
    scores = scores.set_column(scores.schema.get_field_index("window_end"), SCORES.field("window_end"), end)
    two_days = an(app_id=MAIL, created="2026-03-02", expires="2026-03-03")
    ruling = judge(scores, measures, [two_days], TODAY)
    assert (ruling.entry.tolist() == [0]) is covered
    late = {0: [Finding("exception_expired", {"exception": "mail", "expires": "2026-03-03"})]}
    assert ruling.findings == (late if told else {})
    assert (ruling.uses[0].matched, ruling.uses[0].covered) == (1, int(covered))


def test_of_what_would_raise_no_alert_no_expiry_is_told():
    scores, measures = _judged([("d", MAIL, "a.example", 5, [])])
    quiet = measures.set_column(3, "alert", pa.array([False]))
    assert judge(scores, quiet, [an(app_id=MAIL, expires="2026-03-03")], TODAY).findings == {}


def breaks(entry, *, period=np.nan, volume=0.0, hours=()):
    """The sentences on a window whose measures are so."""
    bits = sum(1 << h for h in hours)
    found = broken(entry, np.array([0]), np.array([period]), np.array([volume]), np.array([bits]))
    return [finding.text for outside, said in found for finding in said if outside[0]]


@pytest.mark.parametrize(
    ("bound", "measured", "said"),
    [
        # A fifth of haste is in the rhythm.
        ({"min_period_seconds": 900.0}, {"period": 750.0}, None),
        ({"min_period_seconds": 900.0}, {"period": 749.9}, "a flow every 12.5 min, approved 15 min or more"),
        ({"min_period_seconds": 900.0}, {"period": np.nan}, None),
        ({"max_bytes_per_day": 2000.0}, {"volume": 2000.0}, None),
        ({"max_bytes_per_day": 2000.0}, {"volume": 2000.1}, "2 kB a day, approved up to 2 kB"),
        ({"max_bytes_per_day": 2000.0}, {"volume": np.nan}, "an unknown volume a day, approved up to 2 kB"),
        ({"hours": (22, 6)}, {"hours": [22, 23, 0, 5]}, None),
        ({"hours": (22, 6)}, {"hours": [22, 6, 7]}, f"{HOUR} 06:00 UTC, approved 22:00-06:00"),
        ({"hours": (22, 6)}, {"hours": [21, 22]}, f"{HOUR} 21:00 UTC, approved 22:00-06:00"),
        ({"hours": (8, 9)}, {"hours": [8]}, None),
        ({"hours": (8, 9)}, {"hours": [8, 9]}, "connected in the hour from 09:00 UTC, approved 08:00-09:00"),
        ({"hours": (9, 8)}, {"hours": [*range(8), *range(9, 24)]}, None),
        ({"hours": (9, 8)}, {"hours": [8]}, "connected in the hour from 08:00 UTC, approved 09:00-08:00"),
        ({"hours": (23, 0)}, {"hours": [23]}, None),
        ({"hours": (23, 0)}, {"hours": [0]}, "connected in the hour from 00:00 UTC, approved 23:00-00:00"),
    ],
)
def test_a_bound_that_is_met_exactly_holds(bound, measured, said):
    want = [] if said is None else [f"Exception mail does not hold: {said}."]
    assert breaks(an(app_id=MAIL, **bound), **measured) == want


def test_several_exceptions_share_what_they_cover():
    channels = [("d", MAIL, "a.example"), ("d", MAIL, "b.example"), ("e", "com.z", "a.example")]
    entries = [an("one", destination="a.example"), an("two", app_id=MAIL), an("three", app_id=MAIL)]
    ruling = judge(*_judged([(*channel, 0, []) for channel in channels]), entries, TODAY)
    assert ruling.entry.tolist() == [0, 1, 0]
    told = [(use.matched, use.covered, use.overlaps) for use in ruling.uses]
    assert told == [(2, 2, {}), (2, 1, {"one": 1}), (2, 0, {"one": 1, "two": 1})]
    assert ruling.uses[1].notes == ["1 already under one"]


def test_ranks_close_up_in_row_order_where_scores_are_equal():
    rows = [("d", app, "a.example", 0, []) for app in (MAIL, "com.b", "com.c", "com.d")]
    scores, measures = _judged(rows)
    place = scores.schema.get_field_index("score")
    scores = scores.set_column(place, "score", pa.array([9.0, 1.0, 2.0, 1.0], pa.float64()))
    ruling = judge(scores, measures, [an(app_id=MAIL)], TODAY)
    assert ranks_under(ruling, scores).tolist() == [0, 2, 1, 3]
