"""One phone: what its record says of an app, by hand, and the words for all that can be found."""

import numpy as np
import pandas as pd
import pytest
from make import DAY0, activity, coverage, inventory, pushes, table, tasks, together, usage
from phones import push_driven, slots

from appcadence.findings import Finding
from appcadence.models.experts import EXPERTS
from appcadence.telemetry.schema import ACTIVITY, NOTIFICATIONS
from appcadence.triage.phone import words
from appcadence.triage.phone.assess import assess, part_of_ios
from appcadence.triage.phone.record import PhoneRecord, days_of, merged

HOUR = 3600.0
APP = "com.example.app"


def us(seconds):
    return round((DAY0 + seconds) * 1e6)


def test_each_use_has_its_explanation_by_hand():
    """In use up to 1:00, a push at 2:00, work from 3:00, nothing at 4:00; slots 30 s apart are one use."""
    tables = {
        "flows": slots([HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR, 4 * HOUR + 38], APP),
        "activity": activity([(0.5 * HOUR, HOUR - 29)]),
        "notifications": pushes([2 * HOUR - 85, 5 * HOUR], app=APP, grid=60.0),
        "tasks": tasks([(3 * HOUR + 9, 3 * HOUR + 60)], app=APP),
    }
    phone = PhoneRecord(tables)
    found = phone.of(APP)
    assert found.uses.tolist() == [[us(k * HOUR), us(k * HOUR + 8)] for k in (1, 2, 3)] + [
        [us(4 * HOUR), us(4 * HOUR + 46)]
    ]
    assert found.by_user.tolist() == [True, False, False, False]
    assert found.by_push.tolist() == [False, True, False, False]
    assert found.by_ios.tolist() == [False, False, True, False]
    assert found.unexplained.tolist() == [False, False, False, True]
    assert (found.answered, len(found.pushes), found.in_use_only) == (1, 2, False)
    assert phone.hours == pytest.approx((3 * HOUR + 46) / HOUR)
    said = " ".join(words.happened(found, phone))
    assert "It used the network 4 times in 3 hours of log." in said
    assert (
        "1 began while the phone was in use, 1 began after a push to the app, 1 began with work that iOS had "
        "scheduled, 1 began with none of these, while the phone was locked." in said
    )


def test_an_open_interval_lasts_as_long_as_the_log_and_a_transfer_half_a_minute():
    still = [{"device_id": "d1", "kind": "device_unlocked", "start": 100.0}]
    transfer = [{"device_id": "d1", "app_id": APP, "time": 7000.0, "kind": "background_transfer"}]
    phone = PhoneRecord(
        {
            "flows": slots([7020.0, 9000.0], APP),
            "activity": table(ACTIVITY, still),
            "notifications": table(NOTIFICATIONS, transfer),
            "coverage": coverage([(0, 7200), (7000, 9100)]),
        }
    )
    found = phone.of(APP)
    assert found.by_ios.tolist() == [True, False] and found.by_user.all() and found.in_use_only
    assert phone.hours == pytest.approx(9100 / HOUR)


@pytest.mark.parametrize(("kind", "used"), [("screen_on", False), ("device_unlocked", True)])
def test_a_screen_lit_by_a_push_and_not_unlocked_is_nobody_at_the_phone(kind, used):
    tables = {
        "flows": slots([2 * HOUR], APP),
        "activity": together(activity([(0.0, 60.0)]), activity([(2 * HOUR - 4, 2 * HOUR + 10)], kind=kind)),
        "notifications": pushes([2 * HOUR - 5], app="com.other", grid=0.0, silent=False),
    }
    assert PhoneRecord(tables).of(APP).by_user.tolist() == [used]
    unknown = tables | {"activity": activity([(2 * HOUR - 4, 2 * HOUR + 10)], kind="screen_on")}
    assert PhoneRecord(unknown).of(APP).by_user.all()  # such a phone reports no unlocks


def test_spans_are_joined():
    spans = np.array([[5, 6], [0, 3], [1, 2], [8, 9]])
    assert merged(spans).tolist() == [[0, 3], [5, 6], [8, 9]]
    assert merged(spans, 2).tolist() == [[0, 9]]
    assert merged(spans[:0], 2).tolist() == []


def test_a_single_day_is_cut_to_the_hours_of_its_log_and_at_most_seven_are_shown():
    short = PhoneRecord({"flows": slots([9000.0, 9500.0], APP), "coverage": coverage([(8000, 10000)])})
    (day,) = days_of(short.of(APP), short, set())
    assert (day.start, day.end) == (us(2 * HOUR), us(3 * HOUR))
    assert day.bands["uses"].tolist() == short.of(APP).uses.tolist()  # nobody knows who used the phone
    assert len(day.bands["unlogged"]) == 2
    long = PhoneRecord({"flows": slots(np.arange(20) * 86_400.0, APP)})
    first = us(0) // 86_400_000_000
    shown = [d.start // 86_400_000_000 - first for d in days_of(long.of(APP), long, {first + 3})]
    assert shown == [3, 14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        (np.arange(20) * 300.0, "Its uses came regularly, about every 5 minutes."),
        (np.cumsum(np.tile([60.0, 600.0], 9)), "Its uses came irregularly"),
        (np.arange(4) * 300.0, None),
    ],
)
def test_a_rhythm_is_told_from_equal_pauses(starts, said):
    phone = PhoneRecord({"flows": slots(starts, APP), "usage": usage([(0, 300, 2000, 5000)], app=APP)})
    text = " ".join(words.happened(phone.of(APP), phone))
    assert (said in text) if said else ("Its uses" not in text)
    assert "It sent 2.0 kB and received 5.0 kB." in text


def test_lengths_of_time_are_said_as_people_say_them():
    said = [
        words.spoken(s) for s in (1.0, 64.0, 300.0, 5400.0, 7200.0, 86_400.0, 4 * 86_400.0, 40 * 86_400.0)
    ]
    assert said == [
        "1 second",
        "64 seconds",
        "5 minutes",
        "1.5 hours",
        "2 hours",
        "24 hours",
        "4 days",
        "40 days",
    ]


def test_every_reason_and_mode_has_plain_words():
    for expert in EXPERTS:
        found = Finding("expert", {"expert": expert.name, "value": 1.0, "one_in": 99})
        (said,) = words.why([found, found])
        assert said.startswith("It ") and said.endswith(".")
    unusual = {"feature": "longest_session_seconds", "value": 1.0, "expected": 2.0}
    assert words.why([Finding("unusual_feature", unusual)]) == ["Unusual for an app: longest session."]


def test_what_comes_with_ios_is_told_by_its_name_or_its_work():
    assert part_of_ios("com.apple.mobilesafari", False) and part_of_ios("locationd", False)
    assert part_of_ios("com.example.helper", True) and not part_of_ios("com.example.app", False)


def test_nothing_at_all_has_an_answer():
    found = assess("d1", {}, [], [])
    assert found.status.startswith("Nothing can be said about this phone") and not found.apps
    assert found.collect[0].startswith("A sysdiagnose: press both volume buttons")


def alerting(app, score):
    row = {"app_id": app, "dest": "*", "alert": True, "status": "scored", "score": score}
    return row | {"window_start": us(0), "findings": None, "explained_by": None, "reasons": []}


def test_what_pushes_drive_is_told_so_with_a_question_to_ask():
    found = assess("d1", push_driven(), [alerting("com.example.coupons", 0.5)], [], device_days=3.0)
    (app,) = found.apps
    assert "72 of 72 pushes to it were followed by a use right away." in app.happened
    assert any("does the person see as many notifications" in said for said in app.explanations)
    assert "one or two apps would stand out as much" in found.caveat and len(app.days) == 3
    assert not any(len(day.bands["unexplained"]) for day in app.days)


def week(app):
    """A finding among the weekly sums."""
    end = pd.Timestamp(DAY0 + 7 * 86_400, unit="s", tz="UTC")
    row = {"app_id": app, "dest_host": "a.example", "report_end": end, "score": 3.0, "contacts": 7}
    return row | {"is_new": 1.0, "is_rare": 0.0, "user_contacts": 0, "findings": None, "reasons": []}


@pytest.mark.parametrize(
    ("days", "score", "shown"),
    [
        (6.0, np.log(3.0), True),  # two of six device-days' benign apps show as much, and more show less
        (6.0, np.nextafter(np.log(3.0), 0), False),
        (1.0, 0.0, True),
        (1.0, np.nextafter(0.0, -1), False),
    ],
)
def test_an_alert_stands_out_where_two_benign_apps_at_most_would(days, score, shown):
    tables = {"flows": slots(np.arange(50) * 600.0, APP)}
    assert bool(assess("d1", tables, [alerting(APP, score)], [], device_days=days).apps) == shown


def test_an_app_that_runs_in_use_alone_stands_out_by_its_weeks_only():
    tables = {"flows": slots(np.arange(50) * 600.0, APP), "activity": activity([(-60.0, 40_000.0)])}
    assert PhoneRecord(tables).of(APP).in_use_only
    alone, summed = (assess("d1", tables, [alerting(APP, 3.0)], weeks) for weeks in ([], [week(APP)]))
    assert not alone.apps and [app.app_id for app in summed.apps] == [APP]


@pytest.mark.parametrize("also", [False, True])
def test_an_approved_rhythm_leaves_the_headline_unless_more_stands_out(also):
    tables = {
        "flows": slots(np.arange(50) * 600.0, APP),
        "inventory": inventory({"app_id": APP, "app_name": "Fieldwise"}),
    }
    rows = [alerting(APP, 3.0) | {"explained_by": ["approved_rhythm"]}]
    found = assess("d1", tables, rows + [alerting(APP, 2.0)] * also, [])
    said = "1 app did something unusual, but in the rhythm that is approved for it: Fieldwise."
    assert (said in found.seen) is not also
    assert [app.name for app in found.apps] == ["Fieldwise"] * also
    assert ("nor an approved rhythm explains when it used the network" in found.status) is also
    assert assess("d1", tables, rows, [week(APP)]).apps


@pytest.mark.parametrize(
    ("modes", "asked"),
    [(None, True), ([], False), (["fetch"], True), (["fetch", "audio"], False), (["voip"], False)],
)
def test_the_switch_of_background_refresh_is_a_test_of_what_it_stops_alone(modes, asked):
    profile = {"app_id": APP, "background_modes": modes, "declared_purpose": "vehicle and job tracking"}
    tables = {"flows": slots(np.arange(50) * 600.0, APP), "inventory": inventory(profile)}
    (app,) = assess("d1", tables, [alerting(APP, 3.0)], []).apps
    assert any("Background App Refresh" in said for said in app.collect) is asked
    purpose = "Its purpose according to the inventory: vehicle and job tracking. Does what happened fit that?"
    assert purpose in app.explanations and not any("messengers" in said for said in app.explanations)


def test_more_than_ten_apps_are_counted_and_names_come_from_the_inventory():
    apps = [f"com.example.a{n}" for n in range(12)]
    scores = [alerting(app, float(n)) for n, app in enumerate(apps)]
    tables = {
        "flows": together(*(slots(np.arange(50) * 600.0, app) for app in apps)),
        "activity": activity([(90_000, 90_060)]),
        "inventory": inventory({"app_id": apps[-1], "app_name": "Torch", "background_modes": ["audio"]}),
    }
    found = assess("d1", tables, scores, [], device_days=1.0)
    assert len(found.apps) == 10 and found.more_apps == 2 and found.apps[0].name == "Torch"
    assert "The app declares that in the background it plays or records sound." in found.apps[0].explanations
    assert found.status.startswith("12 apps stand out in 8.2 hours of log")
