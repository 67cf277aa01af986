"""Drift by hand: each bound met exactly and missed, and slow twins of its figures."""

import math

import numpy as np
import pytest
from handmade import calibration, windows
from handmade import detector as handmade
from hypothesis import given
from hypothesis import strategies as st
from make import flows, inventory, together

from appcadence.features.build import build
from appcadence.features.catalog import FAMILY_OF, NAMES
from appcadence.features.columns import micros
from appcadence.features.extraction import table_of
from appcadence.features.history import History
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import aligned, comparable
from appcadence.models.eligibility import STRATA
from appcadence.models.reference import Reference
from appcadence.training.app_shifts import app_shifts
from appcadence.training.drift import _scores, drift, psi

MODULE = "appcadence.training.drift"
BEFORE, AFTER = range(4), range(4, 8)
"""Days of training, and as many after it."""


def phones(names, days, gap=900.0, app=None, host="93.184.216.9", **more):
    """Flows every quarter of an hour to an address: what no app is known of, and no update explains."""
    start = np.concatenate([day * 86_400 + np.arange(0, 86_400, gap) for day in days])
    return together(*(flows(start, name, app, host, **more) for name in names))


def quiet(days):
    """Three connections an hour, on five phones: too few to tell drift of features from chance."""
    return phones(names(5), days, 1200.0)


def names(n):
    return [f"d{k:02d}" for k in range(n)]


def trained_on(table, **parts):
    """A detector to which these flows are usual, whose raw score is the connections an hour."""
    windows = build({"flows": table}, 86_400, History.empty())
    frame = table_of(windows)
    baseline = AppBaseline.fit(frame)
    compared = comparable(aligned(frame), baseline.distances(frame))
    reference = Reference.fit(frame, compared, int(micros(table["start"]).max()))
    return handmade(baseline=baseline, reference=reference, history=windows.history, **parts)


# Telemetry lost.


@pytest.mark.parametrize(
    ("later", "known", "loss"),
    [
        (5, 0, [(1, 1)]),  # five windows in which durations were to be expected
        (4, 0, []),  # four are too few
        (8, 1, [(1, 1)]),
        (8, 2, []),  # a quarter is left
    ],
)
def test_a_loss_is_more_than_three_quarters_of_five_windows_or_more(later, known, loss):
    after = list(range(4, 4 + later))
    blind = phones(["d00"], after[known:], duration=None)
    some = together(phones(["d00"], after[:known]), blind) if known else blind
    answer = drift(trained_on(phones(["d00"], BEFORE)), {"flows": some})
    assert [(x.devices, x.of) for x in answer.losses if x.what == "flow durations"] == loss


@pytest.mark.parametrize(("later", "lost"), [(4, 0), (5, 1)])
def test_windows_and_not_features_of_them_are_lost(later, lost):
    """Two features tell of bytes: of four windows they make no eight."""
    blind = phones(["d00"], range(4, 4 + later), out=None, inn=None)
    answer = drift(trained_on(phones(["d00"], BEFORE)), {"flows": blind})
    assert [x.devices for x in answer.losses if x.what == "flow bytes"] == [1] * lost
    # Each period's share of its own windows.
    row = answer.features.set_index("feature").loc["out_size_median_bytes"]
    assert (row["missing_before"], row["missing_now"]) == (0.0, 1.0)


@pytest.mark.parametrize(("devices", "verdict"), [(10, "retrain"), (11, "watch")])
def test_telemetry_lost_on_a_tenth_of_the_devices_calls_for_a_new_model(devices, verdict):
    some = names(devices)
    after = together(phones(some[1:], range(4, 10)), phones(some[:1], range(4, 10), out=None, inn=None))
    answer = drift(trained_on(phones(some, BEFORE)), {"flows": after})
    assert [(x.what, x.devices, x.of) for x in answer.losses] == [("flow bytes", 1, devices)]
    assert answer.verdict == verdict and "flow bytes, on 1 of" in answer.reasons[0]


def test_app_names_are_lost_like_any_telemetry():
    detector = trained_on(phones(names(3), BEFORE, app="com.a"))
    answer = drift(detector, {"flows": phones(names(3), range(4, 10))})
    assert [(x.what, x.devices, x.of) for x in answer.losses] == [("app names of flows", 3, 3)]


# The budget.


def slow_interval(units, counted, promised):
    """Of two counts the share of the first, by the binomial tails that leave 2.5% on either side."""
    n = units + counted

    def solved(wrong):
        low, high = 0.0, 1.0
        for _ in range(100):
            p = (low + high) / 2
            low, high = (p, high) if wrong(p) else (low, p)
        return low / (1 - low) * counted / promised

    def tail(p, first, last):
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(first, last))

    least = solved(lambda p: tail(p, units, n + 1) < 0.025) if units else 0.0
    return least, solved(lambda p: tail(p, 0, units + 1) > 0.025)


def busy(units):
    """The answer on forty device-days in which so many units reach score 0, while others lie one below."""
    calibrated = calibration(n=9, days=400.0, origin=4.0)
    detector = trained_on(quiet(BEFORE), calibration=dict.fromkeys(STRATA, calibrated))
    more = [phones([names(5)[k % 5]], [4 + k // 5 % 8], host=f"h{k}.example") for k in range(units)]
    return drift(detector, {"flows": together(quiet(range(4, 12)), *more)})


@pytest.mark.parametrize("units", [0, 1, 30])
def test_the_budget_is_counted_at_score_nought_and_its_interval_knows_both_counts(units):
    budget = busy(units).budget
    assert (budget.units, budget.promised) == (units, 40.0) and budget.ratio == units / 40
    assert (budget.low, budget.high) == pytest.approx(slow_interval(units, 400, 40), rel=1e-6)


def test_ranked_units_count_and_all_days_of_their_stratum_are_promised():
    rows = [
        ("d1", "com.a", "exact", True, False),
        ("d1", "com.b", "exact", True, True),  # a fleet event
        ("d2", "com.b", "exact", True, True),  # and nothing else on that phone
        ("d3", "com.c", "exact", False, False),
        ("d4", "nsurlsessiond", "process", False, False),  # in a phone's own log, of whatever app
    ]
    device, app, attribution, known, common = (list(column) for column in zip(*rows, strict=True))
    frame = windows(5, device, app, beats_per_hour=9.0, app_attribution=attribution, destination_known=known)
    detector = handmade(calibration=dict.fromkeys(STRATA, calibration(n=9, origin=4.0)))
    budget = _scores(detector, frame, np.array(common))[2]
    assert (budget.units, budget.promised) == (2, 4.0)


def test_units_of_an_unusual_day_count_once_it_is_lowered():
    frame = windows(40, app=[f"app{k}" for k in range(40)], beats_per_hour=np.arange(40.0))
    detector = handmade(calibration=dict.fromkeys(STRATA, calibration(n=9, origin=4.0)))
    # The fourth of them comes to lie at -1, the three above it at nought or more.
    index, _, budget = _scores(detector, frame, np.zeros(40, bool))
    assert budget.units == 3
    # Calibrated are 0 to 8; these are lowered by 33, from 6 down.
    assert index == pytest.approx(slow_psi([4] * 10, [0] * 4 + [1] * 5 + [35]))


def test_a_budget_is_broken_beyond_its_bound_and_watched_above_one(monkeypatch):
    sure, unsure = busy(55), busy(54)
    assert sure.budget.low > 1 > unsure.budget.low
    assert not [reason for reason in unsure.reasons if "promised" in reason]
    for most, verdict in ((sure.budget.low, "watch"), (np.nextafter(sure.budget.low, 0), "retrain")):
        monkeypatch.setattr(f"{MODULE}.MAX_OVERRUN", most)
        answer = busy(55)
        assert answer.verdict == verdict and "55 alerting units where 40 were promised" in answer.reasons[0]


# Features and scores.


def slow_psi(before, now):
    """The population stability index, half a window added to each bin."""
    p, q = ([(x + 0.5) / (sum(some) + 0.5 * len(some)) for x in some] for some in (before, now))
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=6))
def test_psi_equals_its_twin(bins):
    before, now = zip(*bins, strict=True)
    assert psi(np.array(before), np.array(now)) == pytest.approx(slow_psi(before, now))
    assert psi(np.array([before] * 2), np.array([now] * 2)).shape == (2,)


def binned(values, deciles):
    """Windows in each of 20 bins: below, at and between nine deciles, above, and unknown."""
    counts = [0] * 20
    for value in values:
        place = sum(value > d for d in deciles) + sum(value >= d for d in deciles)
        counts[19 if math.isnan(value) else place] += 1
    return counts


def moved(some, n=10):
    """A detector of n phones, and later flows of theirs: some connect three times as often."""
    often = [phones(names(some), AFTER, 300.0)]
    rest = [phones(names(n)[some:], AFTER)] if some < n else []
    return trained_on(phones(names(n), BEFORE)), {"flows": together(*often, *rest)}


def test_features_are_counted_by_device_and_bin():
    detector, tables = moved(6)
    answer = drift(detector, tables)
    frame = table_of(build(tables, 86_400, detector.history))
    now = comparable(aligned(frame), detector.baseline.distances(frame))
    found = answer.features.set_index("feature")
    assert set(found.index) == {n for n in NAMES if FAMILY_OF[n] != "novelty"}
    assert answer.features["psi"].is_monotonic_decreasing
    for name in ("beats_per_hour", "upload_ratio", "userless_share", "out_size_median_bytes"):
        f = NAMES.index(name)
        after = binned(now[:, f], detector.reference.deciles[f])
        before = detector.reference.counts[:, f].sum(axis=0).tolist()
        assert found.loc[name, "psi"] == pytest.approx(slow_psi(before, after))
        missing = np.isnan(now[:, f]).mean()
        assert (found.loc[name, "missing_now"], found.loc[name, "missing_before"]) == (
            missing,
            before[19] / 40,
        )
    # Of ten devices six moved: so many do by chance, too.
    assert found.loc["beats_per_hour", "p_adjusted"] > 0.05 and found.loc["upload_ratio", "p_adjusted"] == 1


def test_the_bins_of_a_reference_are_marked_by_the_fleets_deciles():
    shares = np.arange(1, 11) / 10
    frame = windows(10, device=["d1"] * 4 + ["d2"] * 6, app=["com.a"] * 3 + [None] * 7)
    compared = np.full((10, len(NAMES)), np.nan)
    own, apart = NAMES.index("unexpected_host_share"), NAMES.index("upload_ratio")
    compared[:, own], compared[:, apart] = shares, [-0.6, -0.5, -0.1, 0, 0.1, 0.49, 0.5, 0.99, 1.0, 7.0]
    reference = Reference.fit(frame, compared, 5)
    np.testing.assert_allclose(reference.deciles[own], shares[:9])
    # Of distances, the middles of a grid half a spread wide.
    want = [-0.75, -0.25, -0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 1.25]
    np.testing.assert_array_equal(reference.deciles[apart], want)
    assert reference.attributed.tolist() == [3, 0] and reference.end_us == 5
    for f in (own, apart):
        for device, rows in enumerate((slice(4), slice(4, None))):
            assert reference.counts[device, f].tolist() == binned(compared[rows, f], reference.deciles[f])
    assert (reference.counts[:, NAMES.index("alone_share"), 19] == [4, 6]).all()


def test_what_no_swap_of_periods_reaches_is_as_likely_as_one_in_two_thousand():
    features = drift(*moved(20, 20)).features
    sure = features["p_adjusted"] == features["p_adjusted"].min()
    assert sure.sum() > 8
    # Benjamini and Hochberg: times the features, by how many of them are as unlikely.
    assert features["p_adjusted"].min() == pytest.approx(len(features) / sure.sum() / 2000)


@pytest.mark.parametrize(("devices", "told"), [(5, False), (6, True)])
def test_drift_of_features_is_told_from_six_devices_on(devices, told):
    answer = drift(*moved(devices, devices))
    assert answer.features["p_adjusted"].notna().all() == told
    assert any("cannot be told from chance" in note for note in answer.notes) is not told


def test_features_drift_beyond_their_bounds_and_not_at_them(monkeypatch):
    detector, tables = moved(10)

    def told(**bounds):
        """The verdict, and how many features it is said to be of."""
        with monkeypatch.context() as patch:
            for name, value in bounds.items():
                patch.setattr(f"{MODULE}.{name}", value)
            answer = drift(detector, tables)
        return answer.verdict, [r.split()[0] for r in answer.reasons if "more devices than chance" in r]

    features = drift(detector, tables).features
    worst, p = float(features["psi"].max()), float(features["p_adjusted"].min())
    n = int((features["psi"] == worst).sum())
    assert n > 8 and (features["psi"] < 0.1).sum() == len(features) - n
    # All of them lie at one index and one p-value, and are a share of the features that can be met exactly.
    retrain, watch = ("retrain", [str(n)]), ("watch", [str(n)])
    assert told() == told(MAX_DRIFTED_SHARE=n / len(features)) == told(FALSE_DISCOVERIES=p) == retrain
    assert told(MAX_DRIFTED_SHARE=(n + 0.5) / len(features)) == told(PSI_DRIFTED=worst) == watch
    assert told(PSI_DRIFTED=np.nextafter(worst, 0)) == retrain
    assert told(PSI_DRIFTED=worst, PSI_WATCH=np.nextafter(worst, 0)) == watch
    assert told(PSI_DRIFTED=worst, PSI_WATCH=worst)[1] == told(FALSE_DISCOVERIES=np.nextafter(p, 0))[1] == []


def test_scores_drift_by_how_their_p_values_lie(monkeypatch):
    # Nine benign windows scored 0 to 8: five phones have p-values of 1, .7, .2, .1 and .1 on four days.
    detector = trained_on(quiet(BEFORE), calibration=dict.fromkeys(STRATA, calibration(n=9)))
    gaps = (7200.0, 1200.0, 450.0, 400.0, 300.0)
    tables = {"flows": together(*(phones([d], AFTER, gap) for d, gap in zip(names(5), gaps, strict=True)))}
    index = drift(detector, tables).scores_psi
    assert index == pytest.approx(slow_psi([2] * 10, [0, 8, 4, 0, 0, 0, 0, 4, 0, 4]))
    for bound, level, told in ((index, 1.0, False), (np.nextafter(index, 0), 1.0, True), (0.0, 0.05, False)):
        monkeypatch.setattr(f"{MODULE}.PSI_DRIFTED", bound)
        monkeypatch.setattr(
            f"{MODULE}.FALSE_DISCOVERIES", level
        )  # a calibration of nine windows proves nothing
        assert (
            any("differs from calibration: stability index" in r for r in drift(detector, tables).reasons)
            is told
        )


def test_a_version_is_new_from_the_end_of_training_on():
    table = phones(["d00"], BEFORE)
    end = 4 * 86_400 - 900.0  # when the last flow of training began
    detector, tables = trained_on(table), {"flows": phones(["d00"], AFTER)}

    def versions(*rows):
        keys = ["version", "snapshot_time", "device_id"]
        rows = [{"app_id": "com.a", **dict(zip(keys, row, strict=False))} for row in rows]
        return drift(detector, tables | {"inventory": inventory(*rows)}).versions

    assert versions(("1", 0.0), ("2", end)) == {"com.a": "from 1 to 2"}
    assert versions(("1", 0.0), ("2", end - 1)) == versions(("2", end)) == {}
    assert versions(("1", 0.0), ("2", end - 1), ("3", end + 1), ("2", end + 2)) == {}
    assert versions(("1", 0.0, "d00"), ("2", 1.0, "d01"), ("1", end, "d00")) == {}  # one lags behind


# Updates of apps: two apps on so many phones over ten days.


def shifted(moved, devices=20, features=("upload_ratio", "failed_ratio"), level=1.5, change=None, **columns):
    """The shifts where the first app's features lie so far out on some phones from the fifth day on."""
    rows = [(app, d, day) for app in ("com.a", "com.b") for d in range(devices) for day in range(10)]
    app, device, day = zip(*rows, strict=True)
    frame = windows(len(rows), device=[f"d{d}" for d in device], app=list(app), dest="*", day=day)
    distances = np.zeros((len(rows), len(NAMES)))
    late = [a == "com.a" and d < moved and t >= 4 for a, d, t in rows]
    distances[np.ix_(late, [NAMES.index(name) for name in features])] = level
    if change is not None:
        change(np.array(day), np.array(device), distances)
    return app_shifts(frame.assign(**columns), distances)


def test_an_app_that_moved_on_exactly_half_of_its_phones_is_an_update():
    (shift,) = shifted(20, devices=40)
    assert (shift.app, shift.devices, shift.of, shift.since) == ("com.a", 20, 40, "2026-03-06")
    assert sorted(shift.moved) == ["share of bytes sent higher", "share of failed connections higher"]
    assert shifted(19, devices=40) == []


def test_a_phone_moved_by_a_spread_and_a_half():
    assert shifted(20) and not shifted(20, level=np.nextafter(1.5, 0))
    (shift,) = shifted(20, level=-1.5)
    assert sorted(shift.moved) == ["share of bytes sent lower", "share of failed connections lower"]


def test_one_feature_is_no_update():
    assert shifted(20, features=("upload_ratio",)) == []


def test_what_another_app_does_too_is_no_update():
    def both(day, device, distances):
        distances[day >= 4] = 2.0

    assert shifted(20, change=both) == []


@pytest.mark.parametrize(("observed", "told"), [(43_200.0, True), (43_199.0, False)])
def test_half_a_window_is_enough_to_tell_of_an_app(observed, told):
    assert bool(shifted(20, observed_seconds=observed)) is told


@pytest.mark.parametrize(("calm", "since"), [(None, "2026-03-06"), (6, "2026-03-09"), (9, None)])
def test_a_shift_begins_with_the_run_of_days_that_lasts_until_now(calm, since):
    def change(day, device, distances):
        distances[day == calm] = 0.0

    assert [shift.since for shift in shifted(20, change=change)] == ([since] if since else [])


@pytest.mark.parametrize(("seen", "since"), [(3, "2026-03-06"), (4, "2026-03-09")])
def test_a_day_with_fewer_than_four_phones_neither_carries_nor_breaks_a_run(seen, since):
    def change(day, device, distances):
        distances[day == 6] = np.where(device[day == 6, None] < seen, 0.0, np.nan)

    assert [shift.since for shift in shifted(20, change=change)] == [since]


def test_features_are_counted_beyond_the_fourth():
    some = ["upload_ratio", "failed_ratio", "connected_ratio", "covered_ratio", "alone_share"]
    (four,), (five,) = shifted(20, features=some[:4]), shifted(20, features=some)
    assert " more" not in four.sentence() and five.sentence().endswith(" and 1 more.")
    assert five.sentence("from 1 to 2").startswith(
        "App update: com.a (from 1 to 2) moved since 2026-03-06 on 20"
    )


def test_an_app_is_followed_by_its_own_windows_and_an_unknown_one_by_its_domain():
    assert shifted(20, dest="a.example") == []
    hosts = ["x.example.com"] * 200 + ["y.example.org"] * 200
    assert [shift.app for shift in shifted(20, app_id=None, dest=hosts)] == ["example.com"]
    assert shifted(20, app_id=None, dest=["10.0.0.9"] * 200 + hosts[200:]) == []


@pytest.mark.parametrize(("days", "told"), [(1, False), (2, False), (3, True), (6, True)])
def test_a_sunday_or_a_weekend_is_no_update(days, told):
    def latest(day, device, distances):
        distances[day < 10 - days] = 0.0

    assert bool(shifted(20, change=latest)) is told
