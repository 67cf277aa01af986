"""Novelty is as of the window, whoever made the contact."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, flows, together
from naive_context import DAY, Flow
from naive_novelty import Fleet
from strategies import fleets, flow_table

from appcadence.errors import AppcadenceError, SchemaError, TelemetryError
from appcadence.features import History, extract
from appcadence.features.build import build
from appcadence.features.families import novelty
from appcadence.features.windows import window_seconds

ALL = [f.name for f in novelty.FEATURES]
NOVELTY = ["channel_is_new", "destination_is_new_for_device", "destination_is_new_for_fleet"]


def rows(frame, dest="a.example"):
    return frame[frame["dest"] == dest].sort_values("window_start")


def test_a_window_sees_only_what_came_before_it():
    table = together(flows([100, 90000, 180000.0]), flows([50, 90050, 180050.0], host="b.example"))
    got = rows(extract({"flows": table}, history=History.empty()))
    assert got["channel_is_new"].tolist()[1:] == [0, 0]
    assert np.isnan(got["channel_is_new"].iloc[0])  # the device has no past yet
    assert got["channel_age_days"].tolist()[1:] == pytest.approx(
        [(90000 - 100) / 86400, (180000 - 100) / 86400]
    )


def test_history_equals_one_extraction_over_everything():
    first = together(*(flows([100 + i, 4000.0], device=f"d{i}", host=f"h{i % 2}.example") for i in range(4)))
    second = together(*(flows([90000.0 + i], device=f"d{i}", host="h0.example") for i in range(4)))
    past = build({"flows": first}, 86400, History.empty()).history
    apart = extract({"flows": second}, history=past)
    joined = extract({"flows": together(first, second)}, history=History.empty())
    joined = joined[joined["window_start"] == joined["window_start"].max()].reset_index(drop=True)
    names = [*NOVELTY, "destination_prevalence_ratio", "destination_other_apps"]
    assert apart[names].equals(joined[names])
    once = build({"flows": second}, 86400, past).history
    assert build({"flows": second}, 86400, once).history.contacts.equals(once.contacts)
    with pytest.raises(ValueError, match="no history"):
        assert build({"flows": second}, 86400).history


def test_prevalence_counts_other_devices_alone():
    table = together(
        *(flows([10.0 * i + 5], device=f"d{i}") for i in range(5)),
        flows([70.0], device="d9", host="x.example"),
    )
    got = extract({"flows": table}, history=History.empty())
    assert rows(got)["destination_prevalence_ratio"].tolist() == pytest.approx([4 / 5] * 5)
    assert rows(got, "x.example")["destination_prevalence_ratio"].tolist() == [0.0]


def test_without_history_novelty_is_unknown():
    assert extract({"flows": flows([1.0, 2.0])})[NOVELTY].isna().all().all()


def test_history_survives_a_round_trip():
    past = build({"flows": together(flows([1.0]), flows([2.0], app=None))}, 86400, History.empty()).history
    assert History.from_arrow(past.to_arrow()).to_arrow().equals(past.to_arrow())


def test_a_history_without_vetting_is_refused():
    old = build({"flows": flows([1.0])}, 86400, History.empty()).history.to_arrow().drop_columns("vetted")
    with pytest.raises(SchemaError, match=r"expected .*'vetted'.*; take one that 'appcadence score'"):
        History.from_arrow(old)


def contacts(*parts, window=86400):
    past = History.empty()
    for part in parts:
        past = build({"flows": flow_table(part)}, window, past).history
    return past


def early_and_late(rows, border):
    """The flows before and after a border, none over it."""
    early = [f for f in rows if f.start < border]
    over = [f.duration is not None and f.start + f.duration > border for f in early]
    return [f._replace(duration=border - f.start) if o else f for f, o in zip(early, over, strict=True)], [
        f for f in rows if f.start >= border
    ]


@given(
    fleets, st.integers(1, 19).map(lambda day: DAY * day), st.sampled_from([("24h", DAY), ("6h", DAY / 4)])
)
def test_a_past_kept_as_history_equals_a_past_extracted_again(rows, border, window):
    early, late = early_and_late(rows, border)
    if not early or not late:
        return
    apart = extract({"flows": flow_table(late)}, window[0], contacts(early, window=int(window[1])))
    joined = extract({"flows": flow_table(early + late)}, window[0], History.empty())
    joined = joined[joined["window_start"] >= pd.Timestamp(DAY0 + border, unit="s", tz="UTC")]
    assert apart[ALL].to_numpy().tobytes() == joined[ALL].to_numpy().tobytes()


@given(fleets, st.integers(1, 19).map(lambda day: DAY * day))
def test_rolling_on_equals_one_update(rows, border):
    early, late = early_and_late(rows, border)
    once = contacts(early + late)
    assert contacts(early, late).contacts.equals(once.contacts)
    assert contacts(late, early).contacts.equals(once.contacts)


@given(fleets, fleets)
def test_neither_order_nor_repetition_of_updates_matters(one, other):
    # No start, nor a flow that goes on at midnight, occurs in both: that case is the next test's.
    one, other = (
        [f._replace(start=f.start + late, duration=min(f.duration or 0.0, 60.0)) for f in part]
        for part, late in ((one, 0.0), (other, 0.25))
    )
    one, other = ([f for f in part if f.start % DAY < DAY - 90] for part in (one, other))
    if not one or not other:
        return
    once = contacts(one, other).to_arrow()
    assert contacts(other, one).to_arrow().equals(once)
    assert contacts(one, other, one, other).to_arrow().equals(once)


def test_the_order_of_updates_does_not_matter_where_a_log_came_in_two_versions():
    """The same day, once as it looked at midnight and once with the flow that was open then."""
    first = [Flow(100.0, sent=10), Flow(500.0, sent=10)]
    whole = [Flow(100.0, sent=10), Flow(300.0, sent=90_000), Flow(500.0, sent=10)]
    elsewhere = [Flow(100.0, sent=10), Flow(500.0, sent=20, port=8443)]
    for one, other in ((first, whole), (first, elsewhere), (whole, elsewhere)):
        assert contacts(one, other).to_arrow().equals(contacts(other, one).to_arrow())
    for order in ((first, whole, elsewhere), (elsewhere, first, whole)):
        assert contacts(*order).contacts["port"].tolist() == [8443]


def test_what_joined_by_scoring_must_end_before_the_windows_begin():
    History.empty().require_before(0)
    joined = contacts([Flow(100.0), Flow(500.0)])
    joined.contacts["vetted"] = False
    last = int(joined.contacts["last_seen"].iloc[0])
    joined.require_before(last + 1)
    with pytest.raises(TelemetryError, match="give the history of the run before them"):
        joined.require_before(last)
    joined.contacts["vetted"] = True  # what a baseline knows may be later
    joined.require_before(last)


@given(fleets)
def test_history_keeps_first_last_and_the_days_between(rows):
    met = defaultdict(set)
    for window in Fleet(rows).windows:
        met[window.device, window.app, window.dest] |= {window.begin + p.start for p in window.pieces}
    table = contacts(rows)
    assert History.from_arrow(table.to_arrow()).to_arrow().equals(table.to_arrow())
    kept = table.to_arrow().to_pylist()
    assert len(kept) == len(met)
    for row in kept:
        times = met[row["device_id"], row["app_id"], row["dest"]]
        assert row["first_seen"] == round((DAY0 + min(times)) * 1e6)
        assert row["last_seen"] == round((DAY0 + max(times)) * 1e6)
        days = {int(max(times) // DAY - t // DAY) for t in times}
        assert row["days_seen"] == sum(1 << day for day in days if day < 62)


def test_a_long_silence_forgets_days_but_not_the_first():
    past = contacts([Flow(100.0)], [Flow(100.0 + 61 * DAY)])
    assert past.contacts["days_seen"].tolist() == [(1 << 61) + 1]
    past = contacts([Flow(100.0)], [Flow(100.0 + 62 * DAY)])
    assert past.contacts["days_seen"].tolist() == [1]
    assert past.contacts["first_seen"].tolist() == [(DAY0 + 100) * 1_000_000]


@pytest.mark.parametrize("text", ["", "5h", "0h", "-6h", "24", "h", "1w", "25h", "1.5h", "²h"])
def test_other_windows_are_refused(text):
    with pytest.raises(AppcadenceError, match="such as 1h"):
        window_seconds(text)
