"""Two pasts: what a baseline or an analyst vetted is known, and nothing becomes known by staying."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, flows, together
from naive_context import DAY
from naive_novelty import Fleet
from strategies import agree, channels_of, fleets, flow_table

from appcadence.errors import SchemaError
from appcadence.features import History, extract
from appcadence.features.build import build
from appcadence.features.families import novelty
from appcadence.features.vetting import decided

ALL = [f.name for f in novelty.FEATURES]
STEADY = "steady_days_ratio"
BASELINE = together(
    *(
        flows(
            [DAY * day + at + device for day in range(3) for at in (100.0, 40_000.0)], f"d{device}", host=host
        )
        for device in range(3)
        for host in ("a.example", "cdn.a.example")
    )
)
BORDER = 3 * DAY


def after(tables, past, window="24h"):
    return build(tables, int(window[:-1]) * 3600, past).history


@pytest.fixture(scope="module")
def baseline():
    return replace(after({"flows": BASELINE}, History.empty()), vetting=False)


def night(table, day):
    """The flows of one day, counted from the end of the baseline."""
    start = table["start"].cast(pa.int64()).to_numpy() / 1e6 - DAY0 - BORDER
    return {"flows": table.filter(pa.array(start // DAY == day))}


def beacon(days=8, device="d0", host="c2.example", each=24):
    at = [BORDER + DAY * day + 300.0 + DAY / each * k for day in range(days) for k in range(each)]
    return flows(at, device, host=host, out=310, inn=180)


def usual(days=8):
    """The fleet goes on as it did."""
    return together(
        *(
            flows([BORDER + DAY * day + 500.0 for day in range(days)], f"d{d}", host="a.example")
            for d in range(3)
        )
    )


def nightly(table, past, days):
    """Features night by night, the history carried on through its file's form."""
    found = []
    for day in range(days):
        tables = night(table, day)
        found.append(extract(tables, history=past))
        past = History.from_arrow(after(tables, past).to_arrow())
    return pd.concat(found), past


def channel(frame, dest, device="d0"):
    mine = frame[(frame["dest"] == dest) & (frame["device_id"] == device)]
    return mine.sort_values("window_start").reset_index(drop=True)


@pytest.mark.parametrize("one_run", [True, False], ids=["one run", "night by night"])
@pytest.mark.parametrize("host", ["c2.example", "c2.a.example"])
def test_a_beacon_that_joined_is_as_new_on_the_seventh_day_as_on_the_first(baseline, one_run, host):
    table = together(usual(), beacon(host=host))
    frame = extract({"flows": table}, history=baseline) if one_run else nightly(table, baseline, 8)[0]
    got = channel(frame, host)
    assert len(got) == 8
    fixed = got[[name for name in ALL if name != STEADY]]
    assert fixed.eq(fixed.iloc[0]).all().all()
    news = ["channel_is_new", "destination_is_new_for_device", "destination_is_new_for_fleet"]
    assert got[news].eq(1).all().all() and got["channel_age_days"].eq(0).all()
    assert got["twin_distance_octaves"].gt(0.5).all()  # not itself, yesterday
    # The days it stayed are evidence, and grow.
    assert got[STEADY].tolist() == [0, 0, *[1] * 6]
    vetted = channel(frame, "a.example")
    assert vetted["channel_is_new"].eq(0).all() and vetted["channel_age_days"].is_monotonic_increasing


def test_a_known_channel_that_changes_does_not_become_its_own_twin(baseline):
    """An implant on a known host: its sizes of yesterday vet nothing."""
    table = beacon(host="a.example")
    got = channel(extract({"flows": table}, history=baseline), "a.example")
    assert got["channel_is_new"].eq(0).all()
    twin = got["twin_distance_octaves"]
    assert twin.eq(twin.iloc[0]).all() and twin.iloc[0] > 0.5


def test_other_devices_quieten_a_newcomer_and_staying_does_not(baseline):
    table = together(usual(), beacon(), beacon(days=1, device="d1"))
    got = channel(extract({"flows": table}, history=baseline), "c2.example")
    assert got["destination_is_new_for_fleet"].tolist() == [1, *[0] * 7]
    assert got["destination_prevalence_ratio"].eq(0.5).all() and got["channel_is_new"].eq(1).all()


def test_a_device_that_joined_has_no_vetted_past(baseline):
    got = channel(extract({"flows": beacon(device="d9")}, history=baseline), "c2.example", "d9")
    assert got[["channel_is_new", "channel_age_days", "twin_distance_octaves"]].isna().all().all()
    assert got[STEADY].tolist() == [0, 0, *[1] * 6]


@given(
    fleets,
    st.integers(1, 12).map(lambda day: DAY * day),
    st.integers(1, 4).map(lambda days: DAY * days),
    st.sampled_from([("24h", DAY), ("6h", DAY / 4)]),
)
def test_novelty_with_two_pasts_equals_its_twin_in_one_run_and_in_two(rows, border, more, window):
    edges = (border, border + more)
    rows = [f._replace(duration=_within(f, edges)) for f in rows]
    early, late = ([f for f in rows if (f.start < border) == first] for first in (True, False))
    if not early or not late:
        return
    past = replace(after({"flows": flow_table(early)}, History.empty(), window[0]), vetting=False)
    frame = extract({"flows": flow_table(late)}, window[0], past)
    fleet = Fleet(early + late, window[1], border)
    kept = [w for w in fleet.windows if w.begin >= border]
    expect = {w.key: fleet.novelty(w) for w in kept}
    channels = frame[channels_of(frame, kept)].reset_index(drop=True)
    agree(channels, kept, lambda w, _: expect[w.key], "novelty")

    first, then = ([f for f in late if (f.start < edges[1]) == early] for early in (True, False))
    if not first or not then:
        return
    between = after({"flows": flow_table(first)}, past, window[0])
    apart = extract({"flows": flow_table(then)}, window[0], between)
    joined = frame[frame["window_start"] >= pd.Timestamp(DAY0 + edges[1], unit="s", tz="UTC")]
    assert apart[ALL].to_numpy().tobytes() == joined[ALL].to_numpy().tobytes()
    once = after({"flows": flow_table(late)}, past, window[0]).contacts
    assert after({"flows": flow_table(then)}, between, window[0]).contacts.equals(once)


def _within(flow, edges):
    """Its duration, cut so that it lies over none of the edges."""
    left = [edge - flow.start for edge in edges if edge > flow.start]
    return flow.duration if flow.duration is None else min([flow.duration, *left])


def verdicts(*rows):
    """(app, dest, first day after the baseline, verdict, analyst), decided in that order."""
    start = [pd.Timestamp(DAY0 + BORDER + DAY * row[2], unit="s", tz="UTC") for row in rows]
    return pa.table(
        {
            "device_id": pa.array(["d0"] * len(rows)),
            "app_id": pa.array([row[0] for row in rows], pa.string()),
            "dest": pa.array([row[1] for row in rows]),
            "window_start": pa.array(start, pa.timestamp("us", tz="UTC")),
            "window_end": pa.array([s + pd.Timedelta("1D") for s in start], pa.timestamp("us", tz="UTC")),
            "verdict": pa.array([row[3] for row in rows]),
            "analyst": pa.array([row[4] for row in rows]),
            "justification": pa.array(["looked at"] * len(rows)),
            "decided_at": pa.array(
                [start[0] + pd.Timedelta(f"{k}h") for k in range(len(rows))], pa.timestamp("us", tz="UTC")
            ),
        }
    )


C2 = "com.a", "c2.example"
HELD = {"a.example", "cdn.a.example"}


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ([(*C2, 0, "benign", "ana")], HELD | {"c2.example"}),
        ([("com.a", "*", 0, "benign", "ana")], HELD | {"c2.example"}),
        ([("com.b", "*", 0, "benign", "ana")], HELD),
        ([(None, "c2.example", 0, "benign", "ana")], HELD),
        ([(*C2, 0, "unexplained", "ana")], HELD),
        # The last word of an analyst counts, whichever window it is about; analysts must agree.
        (
            [(*C2, 0, "malicious", "ana"), (*C2, 1, "benign", "ana")],
            HELD | {"c2.example"},
        ),
        ([(*C2, 0, "benign", "ana"), (*C2, 1, "malicious", "ana")], HELD),
        ([(*C2, 0, "malicious", "ana"), (*C2, 0, "benign", "ben")], HELD),
        # What a baseline held is known no longer once it is called malicious.
        ([("com.a", "a.example", 0, "malicious", "ana")], {"cdn.a.example"}),
        ([("com.a", "*", 0, "malicious", "ana")], {"cdn.a.example"}),  # not met since that window began
        ([(*C2, 5, "benign", "ana")], HELD),  # not met yet
    ],
)
def test_a_benign_verdict_vets_and_any_other_does_not(baseline, said, known):
    past = after({"flows": together(usual(2), beacon(2))}, baseline)
    rows = decided(past, verdicts(*said)).contacts
    mine = rows[rows["device_id"] == "d0"]
    assert set(mine.loc[mine["vetted"], "dest"]) == known
    others = rows[rows["device_id"] != "d0"]
    assert others["vetted"].all() and not past.vetting


def test_what_an_analyst_called_benign_is_known_from_then_on(baseline):
    table = together(usual(), beacon())
    first = {"flows": together(*(night(table, day)["flows"] for day in range(2)))}
    past = decided(after(first, baseline), verdicts((*C2, 1, "benign", "ana")))
    got = channel(extract(night(table, 2), history=past), "c2.example")
    assert got["channel_is_new"].item() == 0 and got["channel_age_days"].item() == pytest.approx(2)
    assert got["destination_is_new_for_fleet"].item() == 0 and got["twin_distance_octaves"].item() == 0
    assert np.isclose(got[STEADY].item(), 1)


def test_no_verdicts_change_nothing_and_other_tables_are_refused(baseline):
    assert decided(baseline, verdicts((*C2, 0, "benign", "ana")).slice(0, 0)).contacts.equals(
        baseline.contacts
    )
    with pytest.raises(SchemaError, match="verdict"):
        decided(baseline, pa.table({"device_id": ["d0"]}))
