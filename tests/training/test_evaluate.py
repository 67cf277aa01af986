"""Truth and quality: counted in implant-days and benign alert units."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from appcadence.errors import SchemaError
from appcadence.telemetry.schema import FLOWS, conform
from appcadence.training.evaluate import evaluate
from appcadence.training.truth import truth_of, with_names

DAY = pd.Timestamp("2026-03-02", tz="UTC")


def _scores(rows):
    """(device, app, dest, day, score[, status]) -> a scores table."""
    frame = pd.DataFrame(
        [(*row, "scored") if len(row) == 5 else row for row in rows],
        columns=["device_id", "app_id", "dest", "day", "score", "status"],
    )
    frame["window_start"] = DAY + pd.to_timedelta(frame.pop("day"), unit="D")
    frame["window_end"] = frame["window_start"] + pd.Timedelta(days=1)
    return frame.assign(observed_seconds=86400.0)


def _labels(rows):
    """(device, app, dest, start hour, end hour, label, case) -> a labels table."""
    names = ("device_id", "app_id", "dest", "start", "end", "label", "case_id")
    frame = pd.DataFrame(rows, columns=names)
    for name in ("start", "end"):
        frame[name] = DAY + pd.to_timedelta(frame[name], unit="h")
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
