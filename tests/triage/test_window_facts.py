"""What is said of a window, counted by hand."""

import numpy as np
import pandas as pd
import pytest
from make import DAY0, activity, flows, together

from appcadence.features.build import build
from appcadence.features.history import History
from appcadence.triage.window_facts import facts, touched


def told(*parts, dest="a.example", **context):
    """The facts of the first day of d1's com.a."""
    table = together(*parts)
    windows = build({"flows": table} | context, 86_400, History.empty())
    wanted = pd.DataFrame({"device_id": ["d1"], "app_id": ["com.a"], "dest": [dest]})
    wanted["window_start"] = pd.to_datetime([DAY0 * 1_000_000], unit="us", utc=True)
    (fact,) = facts(windows, touched(table, wanted), wanted, windows.history).to_pylist()
    return fact


@pytest.mark.parametrize(
    ("gaps", "usual", "share"),
    [
        ([100, 100, 100], None, None),
        ([100, 100, 100, 100], 100.0, 1.0),
        ([80, 79, 100, 100, 100, 120, 121], 100.0, 5 / 7),  # within a fifth
    ],
)
def test_four_gaps_have_a_usual_length_and_a_fifth_beside_it_is_near(gaps, usual, share):
    fact = told(flows(np.cumsum([0, *gaps]), duration=0.5))
    assert (fact["gap_seconds"], fact["gap_share"]) == (usual, pytest.approx(share))


def test_other_devices_are_counted_without_this_one():
    fact = told(*(flows([60.0], f"d{k}") for k in (1, 2, 3)), flows([60.0], "d4", host="b.example"))
    assert (fact["other_devices"], fact["devices"]) == (2, 4)
    unnamed = flows([60.0], "d5", host=None)  # as a phone's own log has them
    fact = told(flows([60.0]), flows([60.0], "d2", host="b.example"), unnamed)
    assert (fact["other_devices"], fact["devices"]) == (0, 2)


def test_an_app_is_what_it_does_beyond_the_local_network():
    parts = flows([60.0, 70.0], outcome="failed"), flows([80.0], host="b.example")
    fact = told(*parts, flows([90.0], host="printer.local", outcome="failed"), dest="*")
    assert (fact["n_started"], fact["n_failed"], fact["other_devices"]) == (3, 2, None)


def test_use_lasts_from_its_start_to_before_its_end():
    used = activity([(100.0, 200.0), (300.0, 400.0)])
    fact = told(flows([99.0, 100.0, 199.0, 200.0, 250.0, 300.0, 400.0]), activity=used)
    assert (fact["n_started"], fact["n_unused"]) == (7, 4)
    assert told(flows([99.0]))["n_unused"] is None


def test_where_to_look_is_the_three_most_used_and_the_first_records_the_longest_and_the_last():
    ports = [443, 80, 80, 8443, 22, 22, 443, 443]
    start = 60.0 * np.arange(8)
    fact = told(flows(start, dest_port=ports, source_uid=[f"C{k}" for k in range(8)], dest_ip="192.0.2.1"))
    assert fact["ports"] == [443, 22, 80] and fact["addresses"] == ["192.0.2.1"]
    assert fact["record_ids"] == ["C0", "C1", "C2", "C3", "C7"]
    many = {
        "source_uid": [f"C{k}" for k in range(8)],
        "duration": [1.0, 2.0, 3.0, 4.0, np.nan, 50.0, 6.0, 7.0],
    }
    assert told(flows(start, **many))["record_ids"] == ["C0", "C1", "C2", "C5", "C7"]
