"""Analysts' decisions: who they speak for, and that training learns from them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import values, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from make import DAY0, fleet, flows, together

from appcadence.errors import SchemaError
from appcadence.serving import Scorer
from appcadence.training.fit import Sample, labelled_rows
from appcadence.training.injection import labelled, past_and_future
from appcadence.training.train import train
from appcadence.training.truth import verdict_of

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
        said = _verdicts([("phone-03", "com.chat", "poll.example", 2, 2, verdict, "ana")])
        training = train(tables, seed=1, verdicts=said)
        taught = {name: value for name, value in training.params.items() if name.startswith("verdict")}
        # The channel's windows and the app's, of two days.
        assert taught == {"verdicts": 1, "verdict_windows": 4, "verdict_windows_learned": 4}
        scores = Scorer(training.detector, "x").score(day)
        return scores.loc[scores["dest"] == "poll.example", "score"].item()

    assert score("malicious") > score("benign") + 0.1


def test_a_table_of_something_else_is_refused(tables):
    with pytest.raises(SchemaError, match="verdict"):
        train(tables, verdicts=pa.table({"x": [1]}))


# By hand: whom a verdict speaks for, and what it weighs.


def speaks(*rows):
    """Verdicts on nine windows: two destinations of an app and its own, on three days each."""
    frame = windows(9, dest=["x.example"] * 3 + ["y.example"] * 3 + ["*"] * 3, day=[0, 1, 2] * 3)
    said = verdict_of(frame, _verdicts([("d1", "com.a", *row) for row in rows]))
    return ["".join((word or "-")[0] for word in said[k : k + 3]) for k in (0, 3, 6)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ["---", "---", "---"]),
        # From midnight to midnight is one day; six hours more are two.
        ([("x.example", 1, 1, "malicious", "ana")], ["-m-", "---", "-m-"]),
        ([("x.example", 1, 1.25, "malicious", "ana")], ["-mm", "---", "-mm"]),
        ([("x.example", 0.5, 0.25, "malicious", "ana")], ["m--", "---", "m--"]),
        # On the app's own window: on all of the app's.
        ([("*", 2, 1, "benign", "ana")], ["--b", "--b", "--b"]),
        # Two who disagree leave it unexplained; two who agree do not.
        (
            [("x.example", 1, 1, v, who) for v, who in (("malicious", "a"), ("benign", "b"))],
            ["-u-", "---", "-u-"],
        ),
        ([("x.example", 1, 1, "benign", who) for who in "ab"], ["-b-", "---", "-b-"]),
        ([("x.example", 1, 1, "benign", "a"), ("y.example", 1, 1, "malicious", "a")], ["-b-", "-m-", "-u-"]),
        # Of one analyst's words on one window the last counts.
        (
            [("x.example", 1, 1, v, "a") for v in ("malicious", "unexplained", "benign")],
            ["-b-", "---", "-b-"],
        ),
    ],
)
def test_a_verdict_speaks_for_the_windows_that_it_overlaps(rows, said):
    assert speaks(*rows) == said


def test_a_verdict_on_an_unknown_app_speaks_for_no_known_one():
    frame = windows(3, app=["com.a", None, None], dest=["x.example", "x.example", "y.example"])
    said = verdict_of(frame, _verdicts([("d1", None, "x.example", 0, 1, "benign", "ana")]))
    assert said.tolist() == [None, "benign", None]


def sampled(rows):
    """(implant, round, verdict) of windows -> what is learned from."""
    implant, rounds, verdicts = zip(*rows, strict=True)
    kinds = ["beacon" if i >= 0 else None for i in implant]
    frame = windows(len(rows), verdict=list(verdicts), implant_kind=kinds)
    return Sample(frame, values(len(rows)), values(len(rows)), np.array(implant), np.array(rounds))


def weights_of(rows):
    """What each window weighs when a classifier is fitted."""
    _, target, weight = labelled_rows(sampled(rows))
    assert target.tolist() == [int(implant >= 0) for implant, *_ in rows]
    return weight


some = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(0, 1), st.sampled_from([None, None, "benign", "malicious"])),
    min_size=1,
    max_size=12,
)


@given(some)
@settings(max_examples=60)
def test_windows_weigh_as_their_twin_says(rows):
    """Each implant of a round one, each benign window one, five times that where an analyst decided; and both
    kinds as much as there are benign windows."""
    got = weights_of(rows)
    own = [5.0 if verdict else 1.0 for *_, verdict in rows]
    for k, (implant, number, _) in enumerate(rows):
        if implant >= 0:
            own[k] /= sum((implant, number) == row[:2] for row in rows)
    benign = sum(implant < 0 for implant, *_ in rows)
    total = sum(weight for weight, row in zip(own, rows, strict=True) if row[0] >= 0)
    want = [w * (benign / total if row[0] >= 0 else 1.0) for w, row in zip(own, rows, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_what_an_analyst_decided_weighs_five_times_as_much():
    rows = [(-1, 0, None), (-1, 0, "benign"), (0, 0, "malicious"), (1, 0, None), (1, 0, None)]
    assert weights_of(rows).tolist() == pytest.approx([1, 5, 2 * 5 / 6, 1 / 6, 1 / 6])
