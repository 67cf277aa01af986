"""Laws that hold whatever the flows: what a change of the input may change in the table, and what not."""

from __future__ import annotations

import importlib
import random
import tempfile
from functools import partial
from itertools import permutations
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import DAY0, activity, flows, pushes, tasks, together, usage

from appcadence.features import History, extract
from appcadence.features.catalog import FAMILY_OF, FEATURES, INPUTS_OF, NAMES
from appcadence.features.extraction import INPUT_TABLES
from appcadence.telemetry.schema import INVENTORY, conform

module = importlib.import_module("appcadence.features.extraction")  # its function has the same name

COUNTS = ("observed_seconds", "n_flows", "n_sessions", "n_beats")
FLEET = ("destination_is_new_for_fleet", "destination_prevalence_ratio", "destination_other_apps")
FLEET += ("app_domain_share",)
windows = st.sampled_from(["24h", "6h", "1h"])


def family(*names):
    return [n for n in NAMES if FAMILY_OF[n] in names]


def cells(table, shift=0):
    """{window: {column: value}}; windows named by device, app, destination, start in seconds."""
    columns = [*COUNTS, *NAMES]
    values = np.column_stack([table[name].to_numpy(float) for name in columns])
    names = [table[key].astype(object).where(table[key].notna(), None) for key in ("device_id", "app_id")]
    start = table["window_start"].astype("int64") // 1_000_000 - shift
    keys = zip(*names, table["dest"].astype(object), start, strict=True)
    return {key: dict(zip(columns, row, strict=True)) for key, row in zip(keys, values, strict=True)}


def differing(a, b):
    """Columns in which windows of `a` differ from the same ones of `b`, by a bit."""
    return {
        name
        for key, row in a.items()
        for name, value in row.items()
        if not (value == b[key][name] or (np.isnan(value) and np.isnan(b[key][name])))
    }


def context(seed, shift=0.0):
    """All context tables of devices d1 and d2 and apps com.a and com.b, `shift` seconds later."""
    chance = random.Random(seed)
    tables = {"activity": [], "notifications": []}
    for device in ("d1", "d2"):
        for app, kind in (
            (None, "device_unlocked"),
            ("com.a", "app_foreground"),
            ("com.b", "app_foreground"),
        ):
            begin = [shift + chance.randrange(0, 86400) for _ in range(4)]
            spans = [(t, t + chance.choice([0, 5, 600, 7200])) for t in begin]
            tables["activity"].append(activity(spans, device, app, kind))
        times = [shift + chance.randrange(0, 86400) for _ in range(chance.randrange(1, 9))]
        tables["notifications"].append(pushes(times, device, "com.a", grid=chance.choice([0.001, 1.0, 60.0])))
    modes = [chance.choice([None, [], ["fetch"], ["audio"]]) for _ in range(2)]
    inventory = pa.table(
        {
            "app_id": ["com.a", "com.b"],
            "device_id": pa.array([None, "d1"]),
            "approved": pa.array([chance.choice([None, True, False]) for _ in range(2)], pa.bool_()),
            "category": ["Weather", "News"],
            "background_modes": pa.array(modes, pa.list_(pa.string())),
            "expected_hosts": pa.array([["a.example"], None], pa.list_(pa.string())),
            "expected_period_seconds": [900.0, None],
            "snapshot_time": pa.array([0, 0], pa.timestamp("us", tz="UTC")),
        }
    )
    return {name: together(*parts) for name, parts in tables.items()} | {
        "inventory": conform(INVENTORY, inventory)
    }


@given(hostile.telemetry(), windows, st.integers(-2000, 5000), st.integers(0, 99))
def test_shifting_by_whole_days_changes_no_bit(rows, window, days, seed):
    shift = 86400 * days
    moved = [row._replace(us=row.us + shift * 1_000_000) for row in rows]
    a = cells(extract({"flows": hostile.table(rows)} | context(seed), window))
    b = cells(extract({"flows": hostile.table(moved)} | context(seed, shift), window), shift)
    assert a.keys() == b.keys() and differing(a, b) == set()


@given(st.lists(st.integers(60_000, 700_000), min_size=1, max_size=60))
def test_twice_the_time_is_twice_the_period_and_the_same_rhythm(gaps):
    times = np.array([0, *gaps]).cumsum() / 1000  # at most 12 h
    a, b = (cells(extract({"flows": flows(times * k, duration=0.0)})) for k in (1, 2))
    scaled = {"session_median_interval_seconds", "beat_median_interval_seconds", "dominant_period_seconds"}
    rates = {"beats_per_hour", "hour_coverage_ratio", "longest_silence_ratio"}
    for key in a:
        for name in set(family("interval")) - rates:
            factor = 2 if name in scaled else 1
            hostile.same([b[key][name]], [factor * a[key][name]], [name], key)


@given(hostile.telemetry(), hostile.telemetry(), windows, st.integers(0, 99))
def test_another_device_changes_only_what_the_fleet_knows(rows, more, window, seed):
    more = [row._replace(device="other") for row in more]
    alone, joined = (
        cells(extract({"flows": hostile.table(r)} | context(seed), window, History.empty()))
        for r in (rows, rows + more)
    )
    assert differing(alone, joined) <= set(FLEET)


@given(hostile.telemetry(), hostile.telemetry(), windows, st.integers(0, 99))
def test_another_app_changes_only_companions_and_novelty(rows, more, window, seed):
    # Without an address: what it names would be known of the first app's flows to it, too.
    more = [row._replace(app="com.other", host="x.example", ip=None) for row in more]
    # Lookups every four hours, so that the other app's flows do not change how long the device was observed.
    days = {row.us // hostile.DAY + k for row in rows + more for k in range(-1, 33)}
    quiet = [
        hostile.Row(day * hostile.DAY + h * 14_400_000_000, 0.0, device, service="dns")
        for day in days
        for h in range(6)
        for device in {row.device for row in rows}
    ]
    alone, joined = (
        cells(extract({"flows": hostile.table(r + quiet)} | context(seed), window, History.empty()))
        for r in (rows, rows + more)
    )
    assert differing(alone, joined) <= set(family("companion", "novelty"))


@given(hostile.telemetry(), windows, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(rows, window, chance):
    shuffled = chance.sample(rows, len(rows))
    tables = context(0)
    a, b = (extract({"flows": hostile.table(r)} | tables, window, History.empty()) for r in (rows, shuffled))
    assert a.equals(b)


def test_the_order_of_a_continued_flow_and_one_on_the_border_changes_no_bit():
    # Equal inside the second day but for where they started.
    carried = flows([86390.0], duration=60.0, out=0, inn=0)
    sharp = flows([86400.0], duration=50.0, out=0, inn=0)
    later = flows([90000.0, 95000.0])
    a, b = (extract({"flows": together(*t)}) for t in ((carried, sharp, later), (sharp, carried, later)))
    assert a.equals(b)


def test_the_order_of_differently_attributed_flows_changes_no_bit():
    a, b = (
        extract({"flows": flows(start, app_attribution=how)})
        for start, how in (([1.0, 100.0], ["exact", "process"]), ([100.0, 1.0], ["process", "exact"]))
    )
    assert a.equals(b)


def test_the_order_of_overlapping_flows_changes_no_bit_of_the_observed_time():
    # (a - b) + (c - a) need not be c - b in floats.
    found = {
        extract({"flows": flows([524.324] * 3, duration=list(length))})["observed_seconds"].iloc[0]
        for length in permutations([208.823, 8902.614, 6396.159])
    }
    assert len(found) == 1


@settings(max_examples=20)
@given(hostile.telemetry(), windows, st.integers(1, 9), st.integers(1, 4))
def test_files_and_row_groups_change_no_bit(rows, window, group, files):
    table = hostile.table(rows)
    # Durations that no flow has are refused in a file, and take no part here.
    lasting = table["duration_seconds"]
    fits = pc.and_(pc.greater_equal(lasting, 0), pc.less_equal(lasting, 31 * 86400))
    place = table.schema.get_field_index("duration_seconds")
    table = table.set_column(place, "duration_seconds", pc.if_else(fits, lasting, None))
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "flows").mkdir()
        for i in range(files):
            lo, hi = len(rows) * i // files, len(rows) * (i + 1) // files
            pq.write_table(
                table.slice(lo, hi - lo), Path(directory) / f"flows/{i}.parquet", row_group_size=group
            )
        for name, other in context(1).items():
            pq.write_table(other, Path(directory) / f"{name}.parquet", row_group_size=group)
        split = extract(directory, window, History.empty())
    whole = extract({"flows": table} | context(1), window, History.empty())
    assert split.equals(whole)


@given(hostile.telemetry(), windows, st.integers(1, 60), st.booleans())
def test_small_blocks_change_no_bit(rows, window, block_flows, spilled):
    source = {"flows": hostile.table(rows)} | context(2)
    whole = extract(source, window, History.empty())
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        spill = Path(directory) if spilled else None
        patch.setattr(module, "prepare", partial(module.prepare, block_flows=block_flows, spill=spill))
        assert extract(source, window, History.empty()).equals(whole)


def eighths(rows):
    """Times in eighths of a second, which floats hold exactly; bytes that any cut divides."""
    for row in rows:
        duration = row.duration
        if duration is not None and 0 <= duration <= 1e7:
            duration = round(duration * 8) / 8
        us = row.us // 125_000 * 125_000
        known = duration is not None and 0 <= duration < 1e7
        part = [
            None if b is None or not known else (b % 1000) * round(duration * 8) for b in (row.out, row.inn)
        ]
        yield row._replace(us=us, duration=duration if known else None, out=part[0], inn=part[1])


def halves(rows, border):
    """The rows cut at a border (µs): those before, those after, and the devices with a flow across it."""
    before, after, cut = [], [], set()
    for row in rows:
        end = row.us + round((row.duration or 0) * 1_000_000)
        if row.us < border < end:
            n, first = round(row.duration * 8), (border - row.us) // 125_000
            out, inn = (None if b is None else b // n * first for b in (row.out, row.inn))
            before.append(row._replace(duration=first / 8, out=out, inn=inn))
            out, inn = (None if b is None else b // n * (n - first) for b in (row.out, row.inn))
            after.append(row._replace(us=border, duration=(n - first) / 8, out=out, inn=inn))
            cut.add(row.device)
        else:
            (before if row.us < border else after).append(row)
    return before, after, cut


@given(hostile.telemetry(), windows, st.integers(-4, 30))
def test_cutting_flows_at_a_border_changes_only_what_began_on_it(rows, window, hour):
    width = hostile.WINDOWS[window] * 1_000_000
    border = (DAY0 * 1_000_000 + hour * 3_600_000_000) // width * width
    rows = list(eighths(rows))
    before, after, cut = halves(rows, border)
    joined = cells(extract({"flows": hostile.table(before + after)}, window))
    parts = [cells(extract({"flows": hostile.table(part)}, window)) for part in (before, after) if part]
    # Each window holds all it needs: two telemetries, one before and one after the border, say the same.
    apart = {key: row for part in parts for key, row in part.items()}
    assert apart.keys() == joined.keys() and differing(apart, joined) == set()
    whole = cells(extract({"flows": hostile.table(rows)}, window))
    assert whole.keys() == joined.keys()
    for key, row in whole.items():
        # A second piece is a flow that starts in its window, where the whole one only went on: beats, gaps,
        # sizes and companions have one more start there. Time connected and bytes are the same.
        began = key[0] in cut and key[3] * 1_000_000 == border
        names = ["observed_seconds", "n_sessions", *family("session")] if began else [*COUNTS, *NAMES]
        hostile.same([joined[key][n] for n in names], [row[n] for n in names], names, key)


@given(hostile.telemetry(), windows, st.integers(0, 999), st.sampled_from(INPUT_TABLES[1:]))
def test_removing_a_context_table_blanks_what_declares_it_and_no_more(rows, window, seed, absent):
    tables = {"flows": hostile.table(rows)} | context(seed)
    full = extract(tables, window, History.empty())
    without = extract({k: v for k, v in tables.items() if k != absent}, window, History.empty())
    needing = [n for n in NAMES if absent in INPUTS_OF[n]]
    assert without[needing].isna().all().all()
    using = {feature.name for feature in FEATURES if absent in feature.uses}
    assert differing(cells(full), cells(without)) <= set(needing) | using


@pytest.mark.parametrize("absent", [name for name in INPUT_TABLES[1:] if name != "coverage"])
def test_every_feature_is_known_where_all_tables_are(absent):
    pushed = np.arange(3000, 80000, 4000.0)
    tables = {
        "flows": together(
            flows(pushed + 5, out=900),
            flows(pushed + 100),
            flows(np.arange(0, 86000, 900.0), host="b.example", app="com.b"),
            flows(np.arange(86400, 400000, 900.0)),
        ),
        "activity": together(
            activity([(30000, 33000)]),
            activity([(30000, 31000)], app="com.a", kind="app_foreground"),
        ),
        "notifications": pushes(pushed),
        "usage": usage([(30000, 30300, 900, 100)]),
        "tasks": tasks([(40000, 40010)]),
        "inventory": conform(
            INVENTORY,
            pa.table(
                {
                    "app_id": ["com.a"],
                    "approved": [True],
                    "background_modes": pa.array([[]], pa.list_(pa.string())),
                    "expected_hosts": [["a.example"]],
                    "expected_period_seconds": [900.0],
                    "snapshot_time": pa.array([0], pa.timestamp("us", tz="UTC")),
                }
            ),
        ),
    }
    full = extract(tables)
    known = full[[n for n in NAMES if "history" not in INPUTS_OF[n]]].notna().any()
    assert known.all(), known[~known].index.tolist()
    without = extract({k: v for k, v in tables.items() if k != absent})
    needing = [n for n in NAMES if absent in INPUTS_OF[n]]
    assert needing and without[needing].isna().all().all()
    using = [feature.name for feature in FEATURES if absent in feature.uses]
    rest = [n for n in NAMES if n not in (*needing, *using)]
    assert full[rest].equals(without[rest])
