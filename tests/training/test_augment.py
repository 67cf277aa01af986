"""Benign telemetry changed into other benign telemetry, as often and as far as it is said to be."""

import numpy as np
import pandas as pd
from make import DAY0, flows

from appcadence.training.injection import change, vary


def lone(n, each=6):
    """So many apps on a device, each with flows of its own to a host of its own on two days."""
    app = np.repeat([f"app{k}" for k in range(n)], each)
    start = np.tile(np.arange(each) * 2 * 86_400.0 / each, n)
    return flows(start, app=app, host=[f"www.{a}.example" for a in app], out=1000)


def test_few_services_move_and_few_apps_are_installed_late():
    table = lone(3000, 1)
    past, moved = change(table, table, np.random.default_rng(0))
    assert 40 <= 3000 - len(past) <= 80  # 2% of the apps
    names = moved["dest_host"].cast("string").to_pylist()
    new = [name for name in names if name.startswith("moved-")]
    assert 65 <= len(new) <= 115 and len(set(new)) == len(new)  # 3% of the services
    away = [name for name in new if name.endswith(".invalid")]
    assert 0.35 < len(away) / len(new) < 0.65  # half of them to another domain


def test_another_day_changes_as_told():
    n = 1500
    table = lone(n)
    cut = (DAY0 + 86_400) * 1_000_000
    other = vary(table, cut, np.random.default_rng(0)).to_pandas()
    other["t"] = (other["start"] - pd.Timestamp(cut, unit="us", tz="UTC")).dt.total_seconds()
    by = other.groupby("app_id", observed=True)
    # Three in ten lose what lies before the cut (and some by thinning).
    forgotten = 1 - by["t"].min().lt(0).sum() / n
    assert 0.27 < forgotten < 0.37
    scaled = by["bytes_out"].first()
    assert 0.45 < (scaled != 1000).mean() < 0.55 and 0.4 < np.log(scaled[scaled != 1000] / 1000).std() < 0.6
    assert (other["duration_seconds"] * 1000 - other["bytes_out"]).abs().max() < 1
    # Those that still lie on the six moments of everybody are not stretched: two thirds.
    on_grid = by["t"].apply(lambda t: (np.abs(t % 28_800) < 1).all())
    assert 0.62 < on_grid.mean() < 0.72
    assert other["t"].min() >= -86_400 and other["t"].max() <= 57_600
