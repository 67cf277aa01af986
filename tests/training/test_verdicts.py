"""Analysts' decisions: who they speak for, and that training learns from them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import DAY0, fleet, flows, together

from appcadence.errors import SchemaError
from appcadence.serving import Scorer
from appcadence.training.injection import labelled, past_and_future
from appcadence.training.train import train
from appcadence.training.verdicts import verdict_of

CUT = (DAY0 + 2 * 86400) * 1_000_000


def _verdicts(rows):
    """(device, app, dest, first day, days, verdict, analyst) -> the verdicts table."""
    names = ("device_id", "app_id", "dest", "day", "days", "verdict", "analyst")
    frame = pd.DataFrame(rows, columns=names)
    frame["window_start"] = pd.to_datetime(DAY0 + frame.pop("day") * 86400, unit="s", utc=True)
    frame["window_end"] = frame["window_start"] + pd.to_timedelta(frame.pop("days"), unit="D")
    frame = frame.assign(justification="looked at", decided_at=frame["window_end"])
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture(scope="module")
def tables():
    """A fleet on which one phone polls a known host every ten minutes from the third day on."""
    base = fleet(devices=8, days=4)
    poll = flows(
        2 * 86400 + np.arange(0, 2 * 86400, 600.0), "phone-03", "com.chat", "poll.example", 0.5, 310, 180
    )
    return base | {"flows": together(base["flows"], poll)}


def _of(rows, dest="poll.example"):
    return rows.frame[(rows.frame["device_id"] == "phone-03") & (rows.frame["dest"] == dest)]


def test_a_verdict_speaks_for_its_windows_and_no_others(tables):
    said = _verdicts([("phone-03", "com.chat", "poll.example", 2, 1, "malicious", "ana")])
    rows, _ = labelled(tables, CUT, "24h", 1, 0.0, verdicts=said)
    mine = _of(rows)
    assert list(mine["verdict"].fillna("")) == ["malicious", ""]
    assert list(mine["implant_kind"].fillna("")) == ["verdict", ""]
    # The app's own window of that day holds those flows too.
    assert rows.frame.loc[rows.malicious, "dest"].isin(["poll.example", "*"]).all()


def test_analysts_who_disagree_leave_the_window_out(tables):
    both = [
        ("phone-03", "com.chat", "poll.example", 2, 2, verdict, who)
        for verdict, who in (("malicious", "ana"), ("benign", "ben"))
    ]
    rows, _ = labelled(tables, CUT, "24h", 1, 0.0, verdicts=_verdicts(both))
    assert not len(_of(rows)) and not rows.malicious.any()
    windows = labelled(tables, CUT, "24h", 1, 0.0)[0].frame
    said = verdict_of(windows, _verdicts(both))
    assert set(said[windows["dest"] == "poll.example"]) == {"unexplained"}


@pytest.mark.slow
def test_training_learns_from_them(tables):
    day = past_and_future(tables, (DAY0 + 3 * 86400) * 1_000_000)[1]

    def score(verdict):
        said = None
        if verdict:
            rows = [("phone-03", "com.chat", "poll.example", 2, 2, verdict, "ana")]
            said = _verdicts(rows)
        # All devices must be learners for the verdict to be seen: seed 1 holds out others.
        scores = Scorer(train(tables, seed=1, verdicts=said).detector, "x").score(day)
        return scores.loc[scores["dest"] == "poll.example", "score"].item()

    assert score("malicious") > score("benign") + 0.5


def test_a_table_of_something_else_is_refused(tables):
    with pytest.raises(SchemaError, match="verdict"):
        train(tables, verdicts=pa.table({"x": [1]}))
