"""Truth and quality: counted in implant-days and benign alert units."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import observed, slow_level
from hypothesis import given, settings
from hypothesis import strategies as st

from appcadence.errors import SchemaError
from appcadence.features.history import History
from appcadence.telemetry.schema import FLOWS, conform
from appcadence.training.evaluate import (
    BUDGETS,
    evaluate,
    injected_quality,
    json_ready,
    quality,
    share_learned,
)
from appcadence.training.truth import Truth, labels_outside, truth_of, with_names

DAY = pd.Timestamp("2026-03-02", tz="UTC")


def _scores(rows):
    """(device, app, dest, day, score[, status]) -> a scores table."""
    frame = pd.DataFrame(
        [(*row, "scored") if len(row) == 5 else row for row in rows],
        columns=["device_id", "app_id", "dest", "day", "score", "status"],
    )
    frame["window_start"] = DAY + pd.to_timedelta(frame.pop("day"), unit="D")
    frame["window_end"] = frame["window_start"] + pd.Timedelta(days=1)
    return frame.assign(observed_seconds=86400.0, alert=False)


def _labels(rows):
    """(device, app, dest, start hour, end hour, label, case) -> a labels table."""
    names = ("device_id", "app_id", "dest", "start", "end", "label", "case_id")
    frame = pd.DataFrame(rows, columns=names)
    for name in ("start", "end"):
        frame[name] = (DAY + pd.to_timedelta(frame[name], unit="h")).dt.as_unit("us")
    return pa.Table.from_pandas(frame.assign(kind="beacon"), preserve_index=False)


def _flows(rows=()):
    """(device, address, host) -> flows."""
    frame = pd.DataFrame(rows, columns=["device_id", "dest_ip", "dest_host"])
    frame = frame.assign(
        start=DAY, app_attribution="none", outcome="unknown", time_resolution_seconds=1.0, source="x"
    )
    return conform(FLOWS, pa.Table.from_pandas(frame, preserve_index=False)) if len(rows) else FLOWS.empty()


def test_all_hosts_of_a_case_on_one_day_are_one_implant_day():
    scores = _scores(
        [("a", None, "h1", 0, 5.0), ("a", None, "h2", 0, -9.0), ("a", None, "h1", 1, -9.0)]
        + [("b", None, f"x{i}", 0, float(-i)) for i in range(5)]
    )
    labels = _labels([("a", None, "h1", 1, 30, "malicious", "c"), ("a", None, "h2", 2, 5, "malicious", "c")])
    quality = evaluate(scores, labels, _flows())
    assert quality.implant_days == 2 and quality.benign_units == 5
    # Three device-days: two of a, one of b; three benign units may pass at one a device-day.
    assert quality.recall == {0.1: 0.5, 1.0: 0.5, 3.0: 1.0}
    assert quality.realised[1.0] == pytest.approx(1 / 3)
    assert quality.first_found_days == 0.0
    assert quality.recall_by["kind"] == {"beacon": (0.5, 2)}


def test_an_implant_day_without_any_window_is_missed():
    scores = _scores([("a", "app", "h", 0, 5.0), ("b", "app", "h", 0, 1.0)])
    labels = _labels([("a", "app", "h", 1, 2, "malicious", "c"), ("a", "app", "h", 49, 50, "malicious", "c")])
    assert evaluate(scores, labels, _flows()).recall[0.1] == 0.5


def test_the_apps_own_window_shows_the_implant_too():
    scores = _scores([("a", "app", "*", 0, 5.0), ("a", "app", "h", 0, None), ("b", "app", "*", 0, 1.0)])
    labels = _labels([("a", "app", "h", 1, 2, "malicious", None)])
    quality = evaluate(scores, labels, _flows())
    assert quality.recall[0.1] == 1.0 and quality.benign_units == 1


def test_a_fleet_event_is_no_find_and_no_false_alarm():
    scores = _scores(
        [
            ("a", "app", "h", 0, 9.0, "fleet_event"),
            ("b", "app", "h", 0, 8.0, "fleet_event"),
            ("b", "z", "h", 0, 1),
        ]
    )
    quality = evaluate(scores, _labels([("a", "app", "h", 1, 2, "malicious", "c")]), _flows())
    assert quality.recall[0.1] == 0.0 and quality.realised[1.0] == pytest.approx(1 / 2)


def test_ignored_windows_count_for_nothing():
    scores = _scores([("a", "app", "h", 0, 5.0), ("b", "app", "h", 0, 9.0), ("b", "app", "i", 0, 1.0)])
    labels = _labels([("a", "app", "h", 1, 2, "malicious", "c"), ("b", "app", "h", 0, 24, "ignore", None)])
    quality = evaluate(scores, labels, _flows())
    assert quality.recall[0.1] == 1.0 and quality.benign_units == 1


def test_a_label_by_address_finds_the_window_by_name():
    scores = _scores([("a", None, "c2.example", 0, 5.0), ("b", None, "c2.example", 0, 1.0)])
    labels = _labels([("a", None, "198.51.100.7", 1, 2, "malicious", "c")])
    named = _flows([("a", "198.51.100.7", "c2.example"), ("b", "198.51.100.7", "other.example")])
    assert evaluate(scores, labels, named).recall[0.1] == 1.0
    assert evaluate(scores, labels, _flows()).recall[0.1] == 0.0
    assert len(with_names(labels, named)) == 2


def test_a_label_ends_where_it_says():
    windows = _scores([("a", "app", "h", 0, 1.0), ("a", "app", "h", 1, 1.0)])
    truth, _ = truth_of(windows, _labels([("a", "app", "h", 1, 24, "malicious", "c")]))
    assert list(truth.window) == [0] and len(truth.days) == 1


def test_labels_without_anything_malicious_are_refused():
    scores = _scores([("a", "app", "h", 0, 1.0)])
    with pytest.raises(SchemaError, match="no malicious label"):
        evaluate(scores, _labels([("a", "app", "h", 0, 1, "ignore", None)]), _flows())


def test_labels_of_another_time_are_counted_and_refused_where_there_are_no_others():
    shown, late = ("a", "app", "h", 1, 2, "malicious", "c"), ("a", "app", "h", 40, 50, "malicious", "d")
    seen = _flows([("a", "1.2.3.4", "h")]).drop_columns("duration_seconds")
    seen = seen.append_column("duration_seconds", pa.array([7_200.0]))
    assert labels_outside(_labels([shown]), seen) == (0, 1)
    assert labels_outside(_labels([shown, late]), seen) == (1, 2)
    with pytest.raises(SchemaError, match="none of the 1 malicious labels lies in the span"):
        labels_outside(_labels([late]), seen)


def test_a_label_that_touches_the_telemetry_lies_in_it():
    seen = _flows([("a", "1.2.3.4", "h")]).drop_columns("duration_seconds")
    seen = seen.append_column("duration_seconds", pa.array([7_200.0]))
    inside = ("a", "app", "h", 1, 2, "malicious", "c")
    for start, end, outside in ((-9, 0, 0), (-9, -0.001, 1), (2, 9, 0), (2.001, 9, 1)):
        label = ("a", "app", "h", start, end, "malicious", "d")
        assert labels_outside(_labels([inside, label]), seen) == (outside, 2)


def test_what_the_model_learned_from_is_told_by_device_and_time():
    known = History(pd.DataFrame({"device_id": ["a", "b"], "first_seen": [0, 50], "vetted": [True, False]}))
    model = SimpleNamespace(history=known, reference=SimpleNamespace(end_us=100))
    start = pa.array([0, 50, 100, 101, 50], pa.timestamp("us", tz="UTC"))
    later = pa.table({"start": start, "device_id": ["a", "a", "a", "a", "b"]})
    assert share_learned(model, later) == pytest.approx(3 / 5)
    assert share_learned(model, later.slice(3)) == share_learned(model, later.slice(0, 0)) == 0.0


def test_recall_is_told_apart_by_what_the_caller_knows():
    scores = _scores(
        [("a", "app", "h", 0, 5.0), ("b", "app", "h", 0, -5.0), ("c", "app", "h", 0, 1.0)]
        + [("c", f"x{i}", "h", 0, float(-i)) for i in range(4)]
    )
    labels = _labels([("a", "app", "h", 1, 2, "malicious", "1"), ("b", "app", "h", 1, 2, "malicious", "2")])
    source = pd.Series({"a": "filter", "b": "netflow"}, name="source")
    hard = pd.Series({"1": "hard", "2": "easy"}).rename_axis("case_id")
    quality = evaluate(scores, labels, _flows(), {"telemetry": source, "difficulty": hard})
    assert quality.recall_by["telemetry"] == {"filter": (1.0, 1), "netflow": (0.0, 1)}
    assert quality.recall_by["difficulty"] == {"easy": (0.0, 1), "hard": (1.0, 1)}


def test_the_interval_over_devices_holds_the_recall_and_narrows_with_the_fleet():
    rng = np.random.default_rng(3)

    def measured(devices):
        rows, marks = [], []
        for i in range(devices):
            rows += [(f"d{i}", f"app{k}", "h", 0, float(rng.normal())) for k in range(6)]
            rows.append((f"d{i}", "bad", "h", 0, float(rng.normal(1.5))))
            marks.append((f"d{i}", "bad", "h", 1, 2, "malicious", f"c{i}"))
        quality = evaluate(_scores(rows), _labels(marks), _flows())
        low, high = quality.interval[1.0]
        assert low <= quality.recall[1.0] <= high
        return high - low

    assert measured(400) < measured(25) / 2


# Against the slow twin, and at the boundaries by hand.

scored_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 7), st.one_of(st.just(math.nan), st.integers(-3, 4))),
    min_size=1,
    max_size=16,
)
shown_pairs = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 5)), max_size=8)


@given(scored_rows, shown_pairs, st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0, 10.0]))
@settings(max_examples=100)
def test_quality_equals_its_twin(rows, pairs, unseen, days):
    """Rows (device, app, score) of which some show implant-days; some implant-days have no window."""
    device, apps, score = zip(*rows, strict=True)
    unit = [10 * d + a for d, a in zip(device, apps, strict=True)]
    pairs = sorted({(w, day) for w, day in pairs if w < len(rows)})
    shown_days = sorted({day for _, day in pairs})
    number = {day: k for k, day in enumerate(shown_days)}
    n_days = len(shown_days) + unseen
    days_of = pd.DataFrame(
        {
            "device_id": [f"d{k % 2}" for k in range(n_days)],
            "case_id": [f"c{k % 3}" for k in range(n_days)],
            "day": [DAY + pd.Timedelta(k // 3, "D") for k in range(n_days)],
            "kind": [("beacon", "burst")[k % 2] for k in range(n_days)],
        }
    )
    window = np.array([w for w, _ in pairs], np.int64)
    truth = Truth(days_of, window, np.array([number[day] for _, day in pairs], np.int64))
    frame = observed([f"d{d}" for d in device])
    got = quality(frame, np.array(score, float), truth, np.array(unit), days)

    values = [-math.inf if math.isnan(s) else float(s) for s in score]
    bad = {unit[w] for w in window}
    best = {u: max(v for v, of in zip(values, unit, strict=True) if of == u) for u in set(unit)}
    benign = [v for u, v in best.items() if u not in bad]
    found = [max([values[w] for w, day in pairs if number[day] == k] + [-math.inf]) for k in range(n_days)]
    assert (got.implant_days, got.benign_units, got.device_days) == (n_days, len(benign), days)
    for budget in BUDGETS:
        level = slow_level(benign, budget * days)
        want = sum(f > level for f in found) / n_days if n_days else math.nan
        assert got.recall[budget] == pytest.approx(want, nan_ok=True)
        above = sum(b >= -math.log(budget) for b in benign)
        assert got.realised[budget] == pytest.approx(above / days if days else math.nan, nan_ok=True)
    hits = [f > slow_level(benign, days) for f in found]
    for kind in {"beacon", "burst"} & set(days_of["kind"]):
        mine = [hit for hit, k in zip(hits, days_of["kind"], strict=True) if k == kind]
        assert got.recall_by_kind[kind] == pytest.approx(sum(mine) / len(mine))
    waits = []
    for case in sorted(set(days_of["case_id"])):
        all_days = [k for k in range(n_days) if days_of["case_id"][k] == case]
        first = [k for k in all_days if hits[k]]
        waits.append((first[0] - all_days[0]) // 3 if first else math.inf)
    want = float(np.median(waits)) if waits else math.nan
    assert got.first_found_days == pytest.approx(want, nan_ok=True)
    # Average precision: the mean, over the units with an implant, of the share of such among those as strong.
    ordered = sorted(sorted(best), key=lambda u: -best[u])
    shares = [sum(x in bad for x in ordered[: k + 1]) / (k + 1) for k, u in enumerate(ordered) if u in bad]
    want = sum(shares) / len(shares) if shares else math.nan
    assert got.average_precision == pytest.approx(want, nan_ok=True)


def benign_and_implant(benign, implant, days):
    """Quality of benign units that score so, and one implant-day that does."""
    scores = np.array([implant, *benign], float)
    frame = observed([f"d{k}" for k in range(len(scores))])
    truth = Truth(
        pd.DataFrame({"device_id": ["d0"], "case_id": ["c"], "day": [DAY], "kind": ["beacon"]}),
        np.array([0]),
        np.array([0]),
    )
    return quality(frame, scores, truth, np.arange(len(scores)), days)


@pytest.mark.parametrize(
    ("implant", "days", "found"),
    [
        (9.5, 1.0, {1.0, 3.0}),  # one benign unit may lie above it; .1 device-day is none
        (9.0, 1.0, {3.0}),  # as high as the unit that is the threshold is not above it
        (8.0, 1.0, {3.0}),
        (7.0, 1.0, set()),
        (10.5, 1.0, {0.1, 1.0, 3.0}),
        (10.0, 1.0, {1.0, 3.0}),
        (9.5, 10.0, {0.1, 1.0, 3.0}),  # a tenth of ten device-days is one unit
        (9.5, 9.9, {1.0, 3.0}),
        (-99.0, 10.0, {1.0, 3.0}),  # as many false alarms as there are units: nothing is missed
        (1.5, 9.0, {1.0, 3.0}),
        (1.0, 9.0, {3.0}),
        (np.nan, 100.0, set()),  # but what was never scored
    ],
)
def test_a_budget_of_k_units_lets_k_benign_units_through(implant, days, found):
    got = benign_and_implant(range(1, 11), implant, days)
    assert {budget for budget, recall in got.recall.items() if recall == 1.0} == found


def test_realised_counts_units_at_the_promised_score_and_above():
    got = benign_and_implant([0.0, -1e-9, -math.log(3.0), -2.0, -math.log(0.1)], 9.0, 2.0)
    assert got.realised == {0.1: 0.5, 1.0: 1.0, 3.0: 2.0}


def test_metrics_are_flat_and_what_is_no_number_is_null():
    got = benign_and_implant([1.0], 2.0, 1.0).metrics()
    assert got["recall_beacon"] == got["recall_at_1_per_device_day"] == 1.0
    assert got["realised_at_0.1_per_device_day"] == 0.0
    assert 0.0 <= got["recall_at_3_low"] <= got["recall_at_3_high"] <= 1.0
    ready = json_ready({"a": math.inf, "b": math.nan, "c": 1.5, "d": 3})
    assert ready == {"a": None, "b": None, "c": 1.5, "d": 3}


MIDNIGHT = 24


@pytest.mark.parametrize(
    ("start", "end", "days", "windows"),
    [
        (0, MIDNIGHT, [0], [0]),  # ends at midnight: no next day
        (0, MIDNIGHT + 1 / 3_600, [0, 1], [0, 1]),
        (23, MIDNIGHT + 1, [0, 1], [0, 1]),
        (MIDNIGHT, MIDNIGHT + 1, [1], [1]),
        (1, 2 * MIDNIGHT, [0, 1], [0, 1]),
        (MIDNIGHT, 2 * MIDNIGHT, [1], [1]),
        (-5, 3 * MIDNIGHT + 2, [-1, 0, 1, 2, 3], [0, 1, 2]),
    ],
)
def test_a_label_is_one_implant_day_for_each_day_that_it_lasts_into(start, end, days, windows):
    scores = _scores([("a", "app", "h", day, 1.0) for day in range(3)])
    truth, ignored = truth_of(scores, _labels([("a", "app", "h", start, end, "malicious", "c")]))
    assert ((truth.days["day"] - DAY) // pd.Timedelta(1, "D")).tolist() == days
    assert truth.window.tolist() == windows and not ignored.any()
    assert [days[k] for k in truth.day] == windows


def test_a_label_shows_in_the_hours_that_it_shares_with_a_window():
    scores = _scores([("a", "app", "h", 0, 1.0)] * 6)
    scores["window_start"] = [DAY + pd.Timedelta(hours=k) for k in range(6)]
    scores["window_end"] = scores["window_start"] + pd.Timedelta(hours=1)
    labels = _labels([("a", "app", "h", 2, 4, "malicious", "c"), ("a", "app", "h", 5, 5.5, "ignore", None)])
    truth, ignored = truth_of(scores, labels)
    assert truth.window.tolist() == [2, 3] and len(truth.days) == 1
    assert np.flatnonzero(ignored).tolist() == [5]


def test_a_label_speaks_for_its_device_app_and_destination():
    rows = [("a", "app", "h"), ("a", "app", "g"), ("a", "app", "*"), ("a", "other", "h"), ("b", "app", "h")]
    rows += [("a", None, "h"), ("a", None, "g")]
    scores = _scores([(*row, 0, 1.0) for row in rows])

    def shown(app, dest):
        return truth_of(scores, _labels([("a", app, dest, 1, 2, "malicious", "c")]))[0].window.tolist()

    assert shown("app", "h") == [0, 2] and shown("app", "*") == [0, 1, 2] and shown(None, "h") == [5]
    labels = _labels([("a", None, d, 1, 2, "malicious", None) for d in ("h", "g", "h")])
    assert len(truth_of(scores, labels)[0].days) == 2  # without a case, one a destination
    labels = _labels([("a", "app", d, 1, 2, "malicious", None) for d in ("h", "g")])
    assert len(truth_of(scores, labels)[0].days) == 1


def _tested(rows):
    """(device, day, implant, score) of round 0 -> what `Training.tested` lists, each row a unit."""
    frame = pd.DataFrame(rows, columns=["device_id", "day", "implant", "score"])
    frame["window_start"] = DAY + pd.to_timedelta(frame.pop("day"), unit="D")
    kind = frame["implant"].map(lambda code: "beacon" if code >= 0 else None).astype(object)
    frame = frame.assign(observed_seconds=86400.0, kind=kind, round=0, unit=np.arange(len(frame)))
    return frame.assign(app_id="com.a", dest="h")


def _injection(rows):
    """(device, missed days) an implant of round 0; ten device-days were observed."""
    frame = pd.DataFrame(rows, columns=["device_id", "missed_days"])
    columns = {"implant_id": range(len(frame)), "kind": "burst", "round": 0, "observed_device_days": 10.0}
    return frame.assign(**columns, app_id="com.a", dests=[["h", "g"]] * len(frame))


def test_every_injected_implant_day_counts_judged_or_not():
    tested = _tested([("a", 0, 0, 9.0), ("a", 1, 0, 8.0), ("b", 0, -1, 1.0), ("b", 1, -1, 0.5)])
    injection = _injection([("a", []), ("b", ["2026-03-02", "2026-03-03"]), ("c", ["2026-03-02"])])
    whole = injected_quality(tested, injection, None)
    assert (whole.implant_days, whole.unjudged_implant_days, whole.device_days) == (5, 3, 10.0)
    assert whole.recall[0.1] == pytest.approx(2 / 5) and whole.recall_by_kind == {"beacon": 1.0, "burst": 0.0}
    assert whole.metrics()["unjudged_implant_days"] == 3
    held_out = injected_quality(tested, injection, ["a", "b"])
    assert (held_out.implant_days, held_out.unjudged_implant_days) == (4, 2)
    nothing = injected_quality(tested, _injection([]), None)
    assert (nothing.implant_days, nothing.unjudged_implant_days, nothing.device_days) == (2, 0, 4.0)


def test_what_has_no_figure_says_why():
    none = injected_quality(_tested([("a", 0, -1, 1.0)]), _injection([]), None)
    assert none.range(1.0) == none.said(none.recall[1.0]) == "no implant-days"
    one = injected_quality(_tested([("a", 0, -1, 1.0), ("a", 1, 0, 2.0)]), _injection([]), None)
    assert (one.said(one.recall[1.0]), one.range(1.0)) == ("1.00", "one device")
    two = injected_quality(_tested([("a", 0, -1, 1.0), ("b", 1, 0, 2.0)]), _injection([]), None)
    assert " to " in two.range(1.0) and "nan" not in two.range(1.0)


def test_a_benign_fleet_event_that_alerts_is_one_false_unit():
    rows = [(f"d{k}", None, "new.example", 0, 4.0, "fleet_event") for k in range(6)]
    scores = _scores([*rows, ("a", None, "h", 0, 5.0)])
    labels = _labels([("a", None, "h", 1, 20, "malicious", "c")])
    found = evaluate(scores.assign(alert=True), labels, _flows())
    assert found.benign_units == 1 and found.realised[1.0] == pytest.approx(1 / 7)
    assert evaluate(scores, labels, _flows()).realised[1.0] == 0.0  # what raises nothing
    # Two apps that are rolled out at once are two.
    apps = [(f"d{k}", app, "*", 0, 4.0, "fleet_event") for k in range(6) for app in ("x", "y")]
    scores = _scores([*apps, ("a", None, "h", 0, 5.0)]).assign(alert=True)
    assert evaluate(scores, labels, _flows()).benign_units == 2
