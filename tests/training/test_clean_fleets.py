"""Fleets where nothing changed, five days later: no app is said to have been updated."""

import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("hours", [0, 9])
def test_no_app_of_a_clean_fleet_moved(monkeypatch, hours):
    # All twenty: benchmarks/drift.py.
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import drift

    assert [shift.sentence() for seed in (0, 1) for shift in drift.false_causes(seed, hours)] == []
