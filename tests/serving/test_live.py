"""Open windows by hand: when they close, and what is kept for those that close later."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import DAY0, activity, flows, together

from appcadence.features.columns import micros
from appcadence.features.history import History
from appcadence.serving.stream import Live
from appcadence.telemetry.passive_names import HORIZON_SECONDS

HOUR = 3600


class Closed:
    """An hourly stream, and what it gives to be scored: tables and spans."""

    def __init__(self):
        self.live, self.calls, self.fails = Live(History.empty(), HOUR), [], False

    def give(self, until=None, **tables):
        return self.live.advance(tables, until, self._score)

    def _score(self, tables, span_us):
        if self.fails:
            raise MemoryError
        self.calls.append((tables, tuple((us - DAY0 * 1_000_000) // 1_000_000 for us in span_us)))
        return pa.table({"n": [len(tables["flows"])]}), History.empty()


def starts(table, column="start"):
    return sorted((micros(table[column]) // 1_000_000 - DAY0).tolist())


def test_an_hour_is_scored_once_however_often_it_has_closed():
    closed = Closed()
    assert closed.give(flows=flows([0, 3590], duration=20.0)) is None and not closed.calls
    assert closed.give(flows=flows([HOUR])).to_pydict() == {"n": [2]}
    # What began in it and goes on is of the next hour too, and of no other call before that closes.
    assert closed.give(flows=flows([HOUR + 1])) is None and closed.give() is None
    assert closed.give(flows=flows([2 * HOUR])).to_pydict() == {"n": [3]}
    assert [span for _, span in closed.calls][1:] == [(HOUR, 2 * HOUR)]
    assert starts(closed.calls[1][0]["flows"]) == [3590, HOUR, HOUR + 1]


def test_of_the_use_before_the_last_hour_the_latest_of_each_kind_is_kept():
    closed = Closed()
    use = [(-9000, -8000), (-8000, -100), (0, 10), (3000, 3010), (3590, 3600), (-5000, 3700)]
    other = activity([(-7000, -6990), (-6000, -5990)], kind="app_foreground", app="com.a")
    closed.give(flows=flows([1]), activity=together(activity(use), other, activity([(-9500, -9400)], "d2")))
    closed.give(flows=flows([2 * HOUR]))
    closed.give(flows=flows([3 * HOUR]))
    assert starts(closed.calls[0][0]["activity"]) == [-9500, -8000, -6000, -5000, 0, 3000, 3590]
    # At two o'clock an hour back reaches to one, and use that ended before it is the last of its kind.
    assert starts(closed.calls[1][0]["activity"]) == [-9500, -6000, -5000, 3590]


@pytest.mark.parametrize(
    ("before", "host"),
    [(HORIZON_SECONDS - 1, "a.example"), (HORIZON_SECONDS, "a.example"), (HORIZON_SECONDS + 1, None)],
)
def test_a_connection_that_goes_on_keeps_its_name(before, host):
    closed = Closed()
    named = flows([3500 - before], host="a.example", dest_ip="93.184.216.34", duration=1.0)
    closed.give(flows=together(named, flows([3500], host=None, dest_ip="93.184.216.34", duration=9000.0)))
    for hour in (1, 2, 3):
        closed.give(flows=flows([hour * HOUR], host="z.example", dest_ip="93.184.216.9"))
        table = closed.calls[-1][0]["flows"]
        assert table["dest_host"].to_pylist()[starts(table).index(3500)] == host


def test_what_fails_is_given_again_as_if_nothing_had_been():
    closed = Closed()
    closed.give(flows=flows([10, 20]), activity=activity([(0, 5)]))
    closed.fails = True
    late = together(flows([-2 * HOUR]), flows([HOUR]))
    for _ in range(2):
        with pytest.raises(MemoryError):
            closed.give(flows=late, activity=activity([(6, 7)]))
    closed.fails = False
    closed.give(flows=late, activity=activity([(6, 7)]))
    ((tables, _),) = closed.calls
    assert starts(tables["flows"]) == [10, 20] and starts(tables["activity"]) == [0, 6]
    assert closed.live.late_flows == 1


def test_what_the_caller_changes_later_is_not_what_was_given():
    closed = Closed()
    table = flows([10, 20], duration=5.0)
    frame = table.to_pandas().assign(start=lambda rows: rows["start"].dt.as_unit("us"))
    seconds = np.array([1.0, 2.0])
    arrow = table.set_column(
        table.column_names.index("duration_seconds"), "duration_seconds", pa.array(seconds)
    )
    use = activity([(0, 5)]).to_pandas()
    closed.give(flows=frame, activity=use)
    closed.give(flows=arrow)
    frame.loc[:, "duration_seconds"] = 99.0
    frame.loc[:, "start"] += pd.Timedelta(1, "s")
    use.loc[:, "start"] += pd.Timedelta(1, "s")
    seconds[:] = 99.0
    closed.give(flows=flows([HOUR]))
    ((tables, _),) = closed.calls
    assert tables["flows"]["duration_seconds"].to_pylist() == [5.0, 5.0, 1.0, 2.0]
    assert starts(tables["flows"]) == [10, 10, 20, 20] and starts(tables["activity"]) == [0]


def test_a_flow_is_late_for_each_closed_window_and_in_time_for_the_open_ones():
    closed = Closed()
    closed.give(flows=flows([10]))
    closed.give(flows=flows([HOUR]))
    assert closed.live.late_flows == 0
    # Of the first hour alone; of it and the open one; of the open one alone.
    closed.give(flows=together(flows([20]), flows([3000], duration=1000.0), flows([HOUR + 5])))
    assert closed.live.late_flows == 2
    closed.give(flows=flows([2 * HOUR]))
    assert starts(closed.calls[1][0]["flows"]) == [3000, HOUR, HOUR + 5]


def test_windows_close_while_the_fleet_is_silent():
    closed = Closed()
    assert closed.give(activity=activity([(0, 5)])) is None and closed.live.closed_until is None
    for hour in range(1, 6):
        now = pd.Timestamp(DAY0 + hour * HOUR + 1, unit="s", tz="UTC")
        use = activity([(hour * HOUR - 20, hour * HOUR - 10)])
        assert closed.give(until=now, activity=use) is None
        assert closed.live.closed_until == now.floor("h")
        # An hour back and the last before it, as while flows come.
        assert sum(map(len, closed.live._open["activity"])) <= 2
    closed.give(flows=together(flows([4 * HOUR]), flows([5 * HOUR + 5])))
    assert closed.live.late_flows == 1
    assert closed.give(flows=flows([6 * HOUR])).to_pydict() == {"n": [1]}
    assert closed.calls[0][1] == (5 * HOUR, 6 * HOUR)
