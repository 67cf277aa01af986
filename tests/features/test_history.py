"""Novelty is as of the window, whoever made the contact."""

import numpy as np
import pytest
from make import flows, together

from appcadence.errors import AppcadenceError
from appcadence.features import History, extract
from appcadence.features.windows import build, window_seconds

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
    past = History.empty().update(build({"flows": first}, 86400))
    apart = extract({"flows": second}, history=past)
    joined = extract({"flows": together(first, second)}, history=History.empty())
    joined = joined[joined["window_start"] == joined["window_start"].max()].reset_index(drop=True)
    names = [*NOVELTY, "destination_prevalence_ratio", "destination_other_apps"]
    assert apart[names].equals(joined[names])
    once, twice = past.update(build({"flows": second}, 86400)), past.update(build({"flows": second}, 86400))
    assert once.update(build({"flows": second}, 86400)).contacts.equals(twice.contacts)


def test_prevalence_counts_other_devices_alone():
    table = together(
        *(flows([10.0 * i + 5], device=f"d{i}") for i in range(5)),
        flows([70.0], device="d9", host="x.example"),
    )
    got = extract({"flows": table}, history=History.empty())
    assert set(rows(got)["destination_prevalence_ratio"]) == {4 / 5, np.nan} - {np.nan}
    assert rows(got, "x.example")["destination_prevalence_ratio"].tolist() == [0.0]


def test_without_history_novelty_is_unknown():
    assert extract({"flows": flows([1.0, 2.0])})[NOVELTY].isna().all().all()


def test_history_survives_a_round_trip():
    past = History.empty().update(build({"flows": together(flows([1.0]), flows([2.0], app=None))}, 86400))
    assert History.from_arrow(past.to_arrow()).to_arrow().equals(past.to_arrow())


@pytest.mark.parametrize("text", ["", "5h", "0h", "-6h", "24", "h", "1w", "25h", "1.5h", "²h"])
def test_other_windows_are_refused(text):
    with pytest.raises(AppcadenceError, match="such as 1h"):
        window_seconds(text)
