"""What is asked of a finished detector: implants looked for, the stress grid, health, and their pictures."""

import dataclasses
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from handmade import detector, windows
from make import activity, fleet, flows, pushes, table, together

from appcadence.cli.evaluate import print_health
from appcadence.errors import TelemetryError
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.schema import LABELS
from appcadence.telemetry.simulate.behaviours import steady
from appcadence.training.drift import drift
from appcadence.training.evaluate import json_ready
from appcadence.training.injection import past_and_future
from appcadence.training.probe import Probe, as_of, check_health, probe, scores_of
from appcadence.training.stress import COLUMNS, GRID, HOURS, LOSSES, Cell, _loss, stress
from appcadence.training.train import train
from appcadence.training.truth import Truth

HOSTILE = "com.$\\frac{x}$\x1b[31m\u202e\U0001f47e\n<b>chat"
DAY = 86_400


@pytest.fixture(scope="module")
def tables():
    """A fleet whose chat app has a hostile name, with some activity and pushes."""
    phones = [f"phone-{k:02d}" for k in range(6)]
    spans = [(d * DAY + h * 3600, d * DAY + h * 3600 + 600) for d in range(4) for h in (9, 12, 20)]
    times = [d * DAY + h * 3600.0 for d in range(4) for h in range(8, 22)]
    return fleet(devices=6, days=4, app=HOSTILE) | {
        "activity": together(
            *(activity(spans, name) for name in phones),
            *(activity(spans, name, HOSTILE, "app_foreground") for name in phones),
        ),
        "notifications": together(*(pushes(times, name, HOSTILE) for name in phones)),
    }


@pytest.fixture(scope="module")
def trained(tables):
    """As on a larger fleet, of which some devices are held out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appcadence.training.train.MIN_DEVICES", 6)
        return train(tables, "24h", 0)


@pytest.fixture(scope="module")
def later():
    """The same fleet, three days on."""
    whole = fleet(devices=6, days=8, seed=5, app=HOSTILE)["flows"]
    return {"flows": whole.filter(pc.greater_equal(micros_of(whole), day(5)))}


def micros_of(table):
    return table["start"].cast("int64")


def day(number):
    from make import DAY0

    return (DAY0 + number * DAY) * 1_000_000


def test_scores_are_those_of_the_scorer(trained, later):
    ours = scores_of(trained.detector, later)
    theirs = Scorer(trained.detector, "").score(later)
    judged = theirs["status"].astype(object) == "scored"
    np.testing.assert_array_equal(ours["score"], theirs["score"].where(judged).to_numpy(np.float64))
    assert ours["dest"].tolist() == theirs["dest"].tolist()


@pytest.fixture(scope="module")
def unusual(later):
    """The same, with many new apps that beat on one device, and with printers on the local network."""
    beats = np.arange(6 * DAY, 7 * DAY, 300.0)
    hosts = [flows(beats, "phone-00", f"com.new{k}", f"host{k}.example") for k in range(12)]
    printers = [flows(beats, f"phone-{k:02d}", "com.print", "192.168.1.9") for k in range(6)]
    return {"flows": together(later["flows"], *hosts, *printers)}


def test_what_scoring_lowers_or_never_ranks_is_no_alert_of_the_health_check(trained, unusual):
    theirs = Scorer(trained.detector, "").score(unusual)
    judged = theirs["status"].astype(object) == "scored"
    assert (theirs["device_shift"] < 0).any() and (theirs["status"] == "local_destination").any()
    ours = scores_of(trained.detector, unusual)
    np.testing.assert_array_equal(ours["score"], theirs["score"].where(judged).to_numpy(np.float64))
    reached = theirs[judged & (theirs["score"] >= 0)]
    units = reached.groupby(["device_id", "app_id", "window_start"], observed=True).ngroups
    assert drift(trained.detector, unusual).budget.units == units


def test_implants_do_not_make_a_day_unusual(trained, unusual):
    where = {"device_id": "phone-00", "label": "malicious", "start": 6.0 * DAY, "end": 7.0 * DAY}
    rows = [where | {"app_id": f"com.new{k}", "dest": f"host{k}.example"} for k in range(12)]
    ours = scores_of(trained.detector, unusual, labels=table(LABELS, rows))
    theirs = Scorer(trained.detector, "").score(unusual)
    unshifted = (theirs["score"] - theirs["device_shift"]).where(theirs["status"].astype(object) == "scored")
    np.testing.assert_allclose(ours["score"], unshifted.to_numpy(np.float64), atol=1e-9)


def test_only_the_past_is_known_and_every_implant_day_counts(trained, tables):
    detector, after = as_of(trained, tables)
    assert detector.reference.end_us == trained.cut_us <= micros(after["flows"]["start"]).min()
    assert detector.history.contacts["last_seen"].max() < trained.cut_us
    kinds = {"clear": steady(300.0, 0.1, 0.0), "rare": steady(40_000.0, 0.0, 0.0)}
    shown = probe(detector, after, 3, 1.0, devices=trained.held_out, kinds=kinds)
    days = shown.truth.days
    assert set(days["device_id"]) <= set(trained.held_out) == set(shown.windows["device_id"])
    clear, rare = (days.loc[days["kind"] == kind, "score"] for kind in kinds)
    assert len(clear) and len(rare), "chance drew none of a kind; choose another seed"
    assert (clear > 0).mean() > 0.7 and rare.mean() < clear.mean()
    again = probe(detector, after, 3, 1.0, devices=trained.held_out, kinds=kinds)
    pd.testing.assert_frame_equal(again.truth.days, days)


def test_losses_are_as_large_as_asked(tables):
    flows_of = tables["flows"]
    kept = _loss(Cell(lost_flows=0.5), 1)(flows_of)
    assert 0.45 < len(kept) / len(flows_of) < 0.55
    named = _loss(Cell(lost_names=0.25), 1)(flows_of)
    lost = named["app_id"].null_count - flows_of["app_id"].null_count
    assert len(named) == len(flows_of) and 0.2 < lost / (len(flows_of) - flows_of["app_id"].null_count) < 0.3
    assert (
        pc.sum(pc.equal(named["app_attribution"].cast("string"), "none")).as_py()
        == named["app_id"].null_count
    )
    assert named.schema == flows_of.schema


def test_stress_grid_shows_where_sight_ends_and_is_drawn(trained, tables, monkeypatch):
    from appcadence.training import figures

    # On a fleet as small as this one, what ends sight is a beat in half a day, half of which are missed.
    wide = (*GRID[:-12], *(dataclasses.replace(cell, period_seconds=43_200.0) for cell in GRID[-12:]))
    monkeypatch.setattr("appcadence.training.stress.GRID", wide)
    cells = stress(trained, load(tables))
    assert list(cells.columns) == list(COLUMNS) and len(cells) == len(GRID) + len(HOURS) + len(LOSSES)
    assert cells["implant_days"].sum() > 200
    by_period = cells.iloc[: len(GRID)].groupby("period_seconds")["recall"].mean()
    assert by_period.iloc[0] > by_period.iloc[-1]
    assert cells["false_units_per_device_day"].notna().sum() == len(LOSSES)
    png(figures.stress_map(cells))
    with pytest.raises(TelemetryError, match="train on 20 devices or more, not 6"):
        stress(dataclasses.replace(trained, held_out=None), tables)


def test_pictures_are_inert_under_hostile_names(trained, tables):
    from appcadence.training import figures

    figure = figures.rasters(trained, tables)
    png(figure)  # warnings are errors: a glyph that no font has, or markup that does not parse, would show
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert any(title.startswith("found, score") for title in titles)
    for title in titles:
        assert title.isascii() and title.count("\n") == 1 and "\x1b" not in title
    assert figures.inert(HOSTILE).startswith("com.$\\frac{x}$?[31m?\\U0001f47e?<b>chat"[:30])
    # Where channels were held out there are pictures of any device.
    assert figures.rasters(dataclasses.replace(trained, held_out=None), tables).axes


def test_reliability_and_precision_count_what_quality_counts(trained):
    from appcadence.training import figures

    counted = figures.reliability(trained).axes[0].lines[0]
    realised = trained.quality.realised
    for budget in (1.0, 3.0):
        at = np.searchsorted(counted.get_xdata(), budget)
        low, high = counted.get_ydata()[at - 1], counted.get_ydata()[at]
        assert low <= realised[budget] <= high
    curve = figures.precision_recall(trained).axes[0].lines[0]
    recall, precision = curve.get_xdata(), curve.get_ydata()
    assert -np.diff(recall) @ precision[:-1] == pytest.approx(trained.quality.average_precision, abs=0.02)


def test_health_without_labels(trained, tables, later):
    found = check_health(trained.detector, later)
    assert not found.seen_in_training and found.injected.implant_days >= 20
    assert found.raised[0.1] <= found.raised[1.0] <= found.raised[3.0]
    assert found.injected.recall[1.0] > 0.5 and found.ranked > 3
    assert check_health(trained.detector, later).metrics() == found.metrics()
    loud = together(
        later["flows"],
        *(
            flows(
                5 * DAY + np.arange(0, 3 * DAY, 240.0), f"phone-{k:02d}", "com.weather", f"c2-{k}-{n}.example"
            )
            for k in range(6)
            for n in range(2)
        ),
    )
    sick = check_health(trained.detector, {"flows": loud})
    assert sick.raised[1.0] > found.raised[1.0] + 0.5
    assert check_health(trained.detector, tables).seen_in_training


@pytest.mark.parametrize(
    "found",
    [
        flows([5.0, 6.0]),
        flows([5.0, 9.0], service="dns"),
        flows([5.0, 900.0, 3000.0]),
        together(flows([5.0, 6.0]), flows([7.0, 8.0], "d2")),
    ],
    ids=["one beat", "look-ups alone", "three beats", "two devices"],
)
def test_health_where_nothing_is_found_says_so(found, capsys):
    health = check_health(detector(), {"flows": found})
    assert health.injected.implant_days == health.ranked == 0 and math.isnan(health.rank_correlation)
    assert {health.injected.range(b) for b in health.injected.recall} == {"no implant-days"}
    print_health(health)
    printed = " ".join(capsys.readouterr().out.split())
    assert "nan" not in printed and "too few to tell (Spearman, n = 0" in printed
    json.dumps(json_ready(health.metrics()), allow_nan=False)


def test_health_of_one_quiet_device_is_unknown_not_an_error(trained, later):
    one = later["flows"].filter(pc.equal(later["flows"]["device_id"].cast("string"), "phone-00"))
    few = past_and_future({"flows": one}, day(5) + 9 * 3_600_000_000)[0]
    found = check_health(trained.detector, few)
    assert np.isnan(found.rank_correlation) and found.ranked == 0
    with pytest.raises(TelemetryError, match="empty"):
        check_health(trained.detector, {"flows": one.slice(0, 0)})


def test_health_where_implants_fit_in_no_round_or_are_too_short_to_be_found(trained):
    """Ten minutes of many devices: rounds without an implant, and implants of which none can be judged."""
    for minutes in (1, 10):
        times = 5 * DAY + np.arange(0, minutes * 60, 30.0)
        tables = {"flows": together(*(flows(times, f"new-{k}") for k in range(30)))}
        injected = check_health(trained.detector, tables).injected
        if minutes == 1:
            assert injected.implant_days == 0 and np.isnan(injected.recall[1.0])
        else:
            assert injected.implant_days > 0 and injected.first_found_days == np.inf
            assert injected.recall == {0.1: 0.0, 1.0: 0.0, 3.0: 0.0}


# By hand: windows of chosen scores instead of telemetry.


def shown(windows, kinds=(), scores=(), window=()):
    """A probe of these windows and one implant-day of each kind, which scores so; `window` shows them."""
    days = pd.DataFrame(
        {"device_id": "d1", "case_id": list(map(str, range(len(kinds)))), "kind": list(kinds)}
    )
    days = days.assign(day=pd.Timestamp("2026-03-02", tz="UTC"), score=np.array(scores, float))
    window = np.array(window, np.int64)
    return Probe(windows, Truth(days, window, np.arange(len(window))), None)


def judged(monkeypatch, windows, days=100, end=0.0):
    """The health of one implant-free telemetry that scores so; a round of injections brings so many days."""
    asked = []

    def injected(detector, tables, seed, rate):
        asked.append((seed, len(tables["flows"])))
        return shown(windows, ["beacon"] * days, [0.0] * days)

    monkeypatch.setattr("appcadence.training.probe.probe", injected)
    monkeypatch.setattr("appcadence.training.probe.scores_of", lambda detector, tables: windows)
    reference = dataclasses.replace(detector().reference, end_us=day(0) + round(end * 1e6))
    return check_health(detector(reference=reference), {"flows": flows([0.0, 50.0, 100.0])}), asked


@pytest.mark.parametrize(("days", "rounds"), [(100, 1), (99, 2), (50, 2), (1, 20), (0, 20)])
def test_by_hand_implants_are_injected_until_a_hundred_days(monkeypatch, days, rounds):
    found, asked = judged(monkeypatch, windows(4, score=[1.0, 2.0, 3.0, 4.0]), days)
    assert [seed for seed, _ in asked] == list(range(rounds))
    assert found.injected.implant_days == days * rounds and found.injected.device_days == rounds


@pytest.mark.parametrize(
    ("end", "seen", "flows_left"), [(100.0, True, 2), (99.0, False, 1), (49.0, False, 2), (50.0, False, 1)]
)
def test_by_hand_what_begins_after_the_training_is_judged(monkeypatch, end, seen, flows_left):
    found, asked = judged(monkeypatch, windows(1, score=1.0), end=end)
    assert (found.seen_in_training, asked[0][1]) == (seen, flows_left)


def test_by_hand_units_at_the_promised_score_are_raised(monkeypatch):
    # Of a hundred benign units in ten device-days, that of 89 is exceeded once a device-day, of 69 by three.
    frame = windows(
        5, app=["a", "a", "b", "c", "d"], score=[89.0, 90.0, 88.0, 69.0, np.nan], observed_seconds=43_200.0
    )
    assert judged(monkeypatch, frame)[0].raised == {0.1: 6.0, 1.0: 2.0, 3.0: 6.0}
    frame["score"] = [-math.log(0.1), 0.0, np.nextafter(-math.log(0.1), 0), 1.0, 1.0]
    assert judged(monkeypatch, frame)[0].raised[0.1] == 2.0


@pytest.mark.parametrize(
    ("apps", "correlation", "ranked"),
    [
        ([("a", 1, 1), ("b", 2, 2), ("c", 3, 3)], 1.0, 3),
        ([("a", 1, 3), ("b", 2, 2), ("c", 3, 1)], -1.0, 3),
        ([("a", 1, 1), ("b", 2, 2), ("c", 3, np.nan)], np.nan, 2),
        ([("a", 1, 1), ("b", 1, 2), ("c", 1, 3)], np.nan, 3),
    ],
)
def test_by_hand_three_apps_in_both_halves_have_ranks(monkeypatch, apps, correlation, ranked):
    # Two days: what begins at the very middle is the later half.
    rows = [(app, t, score) for app, *both in apps for t, score in zip((0, 1), both, strict=True)]
    app, at, score = zip(*rows, strict=True)
    found = judged(monkeypatch, windows(len(rows), app=list(app), day=list(at), score=list(score)))[0]
    assert found.rank_correlation == pytest.approx(correlation, nan_ok=True) and found.ranked == ranked


def test_by_hand_an_implant_day_of_the_stress_grid_is_found_at_score_nought(monkeypatch):
    asked = []
    frame = windows(4, app=["a", "b", "c", "d"], score=[0.0, -1e-9, 5.0, np.nan], observed_seconds=21_600.0)

    def injected(detector, tables, seed, rate, *, devices, kinds, lost):
        asked.append((seed, rate, len(kinds)))
        return shown(frame, ["0", "0", "0", "1"], [0.0, -1e-9, -np.inf, 9.0], [2, 2, 2, 2])

    later = {"flows": flows([0.0, 2.0 * DAY])}
    monkeypatch.setattr("appcadence.training.stress.probe", injected)
    monkeypatch.setattr("appcadence.training.stress.as_of", lambda training, tables: (None, later))
    training = SimpleNamespace(held_out=["d1"] * 50, params={"seed": 2, "devices": 150})
    cells = stress(training, later)
    # Twenty implant-days of each of 63 cells, three at a time on fifty devices in two days: five rounds.
    assert [seed for seed, *_ in asked] == list(range(2900, 2905 + len(LOSSES)))
    assert {rate for _, rate, _ in asked} == {1.5} and [n for *_, n in asked] == [63] * 5 + [1] * len(LOSSES)
    assert cells["implant_days"].tolist() == [15, 5] + [0] * 61 + [4] * len(LOSSES)
    recall = [1 / 3, 1.0] + [np.nan] * 61 + [0.5] * len(LOSSES)
    np.testing.assert_allclose(cells["recall"], recall)
    # Of two units at nought or more one shows an implant; a quarter of a device-day was observed.
    np.testing.assert_allclose(cells["false_units_per_device_day"].iloc[-len(LOSSES) :], 4.0)


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
