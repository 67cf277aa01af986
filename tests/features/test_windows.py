"""Windows, sessions, beats, joined flows and observed time against their slow twins."""

import math

import hostile
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, flows, together

from appcadence.features import extract
from appcadence.features.build import build

KEYS = ["observed_seconds", "n_flows", "n_sessions", "n_beats"]


def check(rows, window):
    got = hostile.extracted(rows, window, KEYS)
    found = naive.windows(rows, hostile.WINDOWS[window])
    assert got.keys() == found.keys()
    for key, one in found.items():
        fresh = sum(f.fresh for f in one.flows)
        hostile.same(got[key], [one.observed, fresh, len(one.sessions), len(one.beats)], KEYS, key)


@given(hostile.telemetry(most=16), st.sampled_from(["24h", "6h", "1h"]))
def test_the_keys_of_every_window_equal_their_twin(rows, window):
    check(rows, window)


@given(hostile.telemetry(most=16), st.sampled_from(["24h", "6h", "1h"]))
def test_the_flows_of_every_window_equal_their_twin(rows, window):
    seconds = hostile.WINDOWS[window]
    found = naive.windows(rows, seconds)
    w = build({"flows": hostile.table(rows)}, seconds)
    assert w.n == len(found)
    for i in range(w.n):
        app = None if w.app[i] < 0 else w.apps[w.app[i]]
        dest = "*" if w.dest[i] < 0 else w.dests[w.dest[i]]
        key = (w.devices[w.device[i]], app, dest, int(w.start_us[i]))
        want, mine = found[key], slice(w.offsets[i], w.offsets[i + 1])
        columns = (w.flow_start, w.flow_end, w.bytes_out, w.bytes_in)
        got = np.column_stack([column[mine] for column in columns])
        np.testing.assert_allclose(got, np.array([f[:4] for f in want.flows]), rtol=1e-9, atol=1e-9)
        assert sorted(w.fresh[mine]) == sorted(f.fresh for f in want.flows)
        assert ((w.flags[mine] & 1) != 0).tolist() == [f.failed for f in want.flows]
        s, own = w.sessions, slice(w.sessions.offsets[i], w.sessions.offsets[i + 1])
        got = list(zip(s.start[own], s.end[own], s.fresh[own], strict=True))
        np.testing.assert_allclose(np.array(got, float), np.array(want.sessions, float), atol=1e-9)
        assert w.beats[1][w.beats[0][i] : w.beats[0][i + 1]].tolist() == want.beats


def test_dns_is_context_and_no_channel():
    table = together(flows([100.0]), flows([40000.0], service="dns", host="dns.example"))
    got = extract({"flows": table})
    assert set(got["dest"]) == {"a.example", "*"}
    # Two flows of a second, and 100 s before them; the silences after are longer than four hours.
    assert got["observed_seconds"].tolist() == [102.0, 102.0]
    near = together(flows([100.0]), flows(np.arange(0, 86400, 14400.0), service="dns", host="dns.example"))
    assert extract({"flows": near})["observed_seconds"].tolist() == [86400.0, 86400.0]


def test_an_active_time_out_cuts_no_connection():
    start = [0.0, 1800.0, 3600.5, 5402.0]
    got = extract({"flows": flows(start, duration=1800.0)}).iloc[0]
    assert got["n_flows"] == 2 and got["longest_flow_seconds"] == 5400.5
    apart = extract({"flows": flows(start, duration=1800.0, dest_port=[443, 80, 443, 80])}).iloc[0]
    assert apart["n_flows"] == 4
    others = extract({"flows": flows(start, duration=1800.0, device_port=[50_000, 50_001, 50_001, None])})
    assert others.iloc[0][["n_flows", "longest_flow_seconds"]].tolist() == [3, 3600.5]
    failed = extract({"flows": flows(start, duration=1800.0, outcome="failed")}).iloc[0]
    assert failed["n_flows"] == 4
    brief = extract({"flows": flows(np.arange(0, 290, 29.0), duration=29.0)}).iloc[0]
    assert brief["n_flows"] == 10


def test_a_cut_connection_is_joined_however_many_others_began_before_its_end():
    long = flows([0.0, 1800.0], duration=1800.0)
    for others in (7, 8, 9):
        brief = flows(1700 + 4.0 * np.arange(others), duration=0.5)
        got = extract({"flows": together(long, brief)}).iloc[0]
        assert got["longest_flow_seconds"] == 3600, f"{others} short flows in between"


def test_a_session_over_the_border_begins_where_it_began():
    got = extract({"flows": flows([86000.0], duration=1000.0, out=1000)})
    got = got[got["dest"] == "*"]
    assert got["n_sessions"].tolist() == [1, 1] and got["n_flows"].tolist() == [1, 0]
    assert got["longest_session_seconds"].tolist() == [400, 600]
    hourly = got["bytes_per_hour"] * got["observed_seconds"] / 3600
    assert hourly.tolist() == pytest.approx([0.4 * 1200, 0.6 * 1200])


def test_a_session_that_a_flow_carries_over_the_border_did_not_begin_on_it():
    # A poll at midnight sharp, while a connection from yesterday is still open.
    carried = flows([86000.0], duration=1000.0)
    sharp = flows([86400.0, 90000, 100000.0], duration=1.0)
    w = build({"flows": together(carried, sharp)}, 86400)
    second = int(np.flatnonzero(w.start_us == (DAY0 + 86400) * 1_000_000)[0])
    own = slice(w.sessions.offsets[second], w.sessions.offsets[second + 1])
    assert w.sessions.fresh[own].tolist() == [False, True, True]


def test_absurd_values_are_unknown_or_bounded():
    table = flows([10, 20, 30, 86390.0], duration=[-5.0, 1e18, math.inf, 20.0], out=[2**53, 0, None, 5])
    frame = extract({"flows": table})
    assert np.isfinite(frame["longest_session_seconds"]).all()
    assert frame["window_start"].nunique() == 31  # the absurd duration is cut at 30 days
    assert build({"flows": table.slice(0, 0)}, 86400).n == 0
    assert frame["window_start"].min().timestamp() == DAY0


def test_no_flows_make_an_empty_table():
    assert len(extract({"flows": flows([1.0]).slice(0, 0)})) == 0
    assert len(extract({"flows": flows([1.0], service="dns")})) == 0


@pytest.mark.parametrize(("host", "dests"), [("unknown", ["*", "unknown"]), ("", ["*"])])
def test_an_empty_host_name_is_none(host, dests):
    got = extract({"flows": flows([1.0], host=host)})
    assert sorted(got["dest"].astype(str)) == dests and (got["n_flows"] == 1).all()


def test_no_destination_bears_the_name_of_all():
    got = extract({"flows": flows([1.0], host="*")})
    assert sorted(got["dest"].astype(str)) == ["*", "unknown"]
