"""Training, bundle and scoring from end to end on a small fleet."""

import json

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from handmade import windows
from make import DAY0, fleet, flows, together

from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.features.columns import micros
from appcadence.models import bundle
from appcadence.models.eligibility import STRATA, strata
from appcadence.nightly import read_history, score_directory
from appcadence.serving import Scorer
from appcadence.serving.run import FILE as RUN
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import LabelledWindows, change, labelled, past_and_future
from appcadence.training.train import train


@pytest.fixture(scope="module")
def tables():
    return fleet(devices=6, days=4)


@pytest.fixture(scope="module")
def saved(fleet_model):
    """The bundle of a training on `tables`."""
    return fleet_model


@pytest.fixture(scope="module")
def attacked(tables):
    """A later day on which one chat app also beacons, every five minutes, to a new host."""
    later = dict(fleet(devices=6, days=5, seed=9).items())
    day = past_and_future(later, (DAY0 + 4 * 86400) * 1_000_000)[1]["flows"]
    start = 4 * 86400 + np.arange(0, 86400, 300.0)
    beacon = flows(start, "phone-03", "com.chat", "c2.example", 0.5, 310, 180)
    return {"flows": together(day, beacon)}


def test_the_beacon_is_found_and_explained(saved, attacked):
    scores = Scorer.load(saved).score(attacked).sort_values("rank")
    first = scores.iloc[0]
    assert (first["device_id"], first["app_id"]) == ("phone-03", "com.chat")
    assert first["alert"] and first["score"] > 0 and "structured_cadence" in first["behaviours"]
    assert len(first["reasons"]) >= 3 and any("one benign window in" in reason for reason in first["reasons"])
    assert any(
        "user was present" in reason for reason in first["reasons"]
    )  # said, since it could not be checked


def test_contributions_sum_to_the_score(saved, attacked):
    scorer = Scorer.load(saved)
    frame = extract(attacked, history=scorer.detector.history)
    parts, raw = scorer.detector.parts(frame)
    for stratum, rows in strata(frame).items():
        c = scorer.detector.calibration[stratum]
        want = scorer.detector.constant(stratum) + parts[rows].sum(axis=1) / c.spread
        np.testing.assert_allclose(want, c.scale(raw[rows]), rtol=0, atol=1e-9)


def test_a_slow_channel_is_judged_by_its_days(saved):
    """Two flows a day are too few for a day, and enough from the third day on."""
    starts = (np.arange(4, 9)[:, None] * 86400 + np.array([40000.0, 60000.0])).ravel()
    scores = Scorer.load(saved).score({"flows": flows(starts)})
    mine = scores[scores["dest"] == "a.example"].sort_values("window_start")
    assert mine["status"].tolist() == ["insufficient_evidence"] * 2 + ["scored"] * 3
    # Its cadence within a day is still not judged.
    assert all(part["score"] is None for part in mine["structured_cadence"])


@pytest.mark.slow
def test_training_goes_on_from_an_earlier_model(tables, saved):
    earlier = bundle.load(saved)[0]
    more = fleet(devices=6, days=8, seed=0)
    warm = train(more, "24h", 0, before=earlier)
    later = past_and_future(more, earlier.reference.end_us + 1)[1]
    assert warm.params["flows"] == len(later["flows"]) < len(more["flows"])
    # First contacts of the earlier weeks are still known, and so is every group.
    assert warm.detector.history.contacts["first_seen"].min() == earlier.history.contacts["first_seen"].min()
    assert set(earlier.baseline.keys) <= set(warm.detector.baseline.keys)
    cold = train(later, "24h", 0)
    assert cold.detector.history.contacts["first_seen"].min() > earlier.reference.end_us
    assert warm.detector.baseline.count.max() > cold.detector.baseline.count.max()
    with pytest.raises(TelemetryError, match="learned all of these flows already"):
        train(tables, "24h", 0, before=earlier)
    with pytest.raises(TelemetryError, match="train with the same"):
        train(more, "6h", 0, before=earlier)


@pytest.mark.slow
def test_a_device_of_another_month_is_in_the_past_that_implants_are_tried_on(tables):
    flows, device = tables["flows"], tables["flows"]["device_id"].cast("string")
    later = pc.equal(device, "phone-00").cast("int64")
    moved = pc.add(flows["start"].cast("int64"), pc.multiply(later, 30 * 86_400_000_000))
    place = flows.schema.get_field_index("start")
    moved = flows.set_column(place, flows.schema.field("start"), moved.cast(flows.schema.field("start").type))
    found = train({"flows": moved}, "24h", 0)
    assert set(found.history.contacts["device_id"]) == set(pc.unique(device).to_pylist())


@pytest.mark.slow
def test_equal_telemetry_gives_an_equal_detector_in_whatever_form(tmp_path):
    tables = simulate(6, 3, 1).tables
    write_directory(tmp_path / "telemetry", tables)
    frames = {name: table.to_pandas() for name, table in tables.items() if name != "labels"}
    forms = (tmp_path / "telemetry", tables, frames)
    one, *others = (bundle.save(train(form).detector, tmp_path / f"{i}") for i, form in enumerate(forms))
    assert others == [one] * 2


def test_benign_changes_are_injected_as_benign(tables):
    cut = (DAY0 + 2 * 86400) * 1_000_000
    past, future = past_and_future(tables, cut)
    hosts = set(pc.unique(future["flows"]["dest_host"].cast("string")).to_pylist())
    moved = late = 0
    for seed in range(20):
        old, new = change(past["flows"], future["flows"], np.random.default_rng(seed))
        assert len(new) == len(future["flows"]) and new.schema == future["flows"].schema
        assert new["start"].equals(future["flows"]["start"])
        moved += len(set(pc.unique(new["dest_host"].cast("string")).to_pylist()) - hosts)
        late += len(past["flows"]) - len(old)
    assert moved > 0 and late > 0
    rows, _ = labelled(tables, cut, "24h", 3, 0.0, changed=True)
    again, _ = labelled(tables, cut, "24h", 3, 0.0, changed=True)
    assert not rows.malicious.any() and rows.frame.equals(again.frame)


def test_equal_input_gives_equal_bytes(simulated_model, tmp_path):
    again = train(simulate(8, 4, 1).tables, "24h", 0)
    assert bundle.save(again.detector, tmp_path / "again") == bundle.load(simulated_model)[1]
    for part in simulated_model.iterdir():
        assert (tmp_path / "again" / part.name).read_bytes() == part.read_bytes()
        assert part.suffix not in (".pkl", ".joblib")


def test_library_equals_batch_job(saved, attacked, tmp_path):
    write_directory(tmp_path / "telemetry", attacked)
    scorer = Scorer.load(saved)
    run = score_directory(tmp_path / "telemetry", scorer, tmp_path / "out")
    batch = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert batch.equals(scorer.run(attacked).scores)
    features = extract(attacked, history=scorer.detector.history)
    shuffled = features[[*reversed(features.columns)]]  # columns are matched by name
    assert scorer.score_windows(shuffled)["score"].equals(scorer.score(attacked)["score"])
    assert run.alerts == pc.sum(batch["alert"]).as_py() and json.loads((tmp_path / "out" / RUN).read_text())
    rows = pd.read_csv(tmp_path / "out" / "alerts.csv")
    assert rows["rank"].dropna().is_monotonic_increasing and rows["id"].is_unique
    rolled = read_history(tmp_path / "out" / "history.parquet")
    assert "c2.example" in set(rolled.contacts["dest"]) and len(rolled.contacts) > len(
        scorer.detector.history.contacts
    )
    score_directory(tmp_path / "telemetry", scorer, tmp_path / "out")  # replaces its own output
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    with pytest.raises(TelemetryError, match="no output of"):
        score_directory(tmp_path / "telemetry", scorer, tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["precious"]


@pytest.mark.slow
def test_excluded_families_are_never_seen(tables, attacked):
    detector = train(tables, "24h", 0, exclude_families=("novelty", "size")).detector
    frame = extract(attacked, history=detector.history)
    hidden = [n for n in NAMES if n.startswith(("out_size", "in_size", "channel_", "destination_"))]
    garbage = frame.assign(**dict.fromkeys(hidden, 1e6))
    assert detector.score(frame)["score"].equals(detector.score(garbage)["score"])
    with pytest.raises(TelemetryError, match="no feature family 'rhythm'"):
        train(tables, exclude_families=("rhythm",))


def test_one_device_and_twelve_hours_is_enough_and_says_how_rough(tables):
    half = past_and_future(tables, (DAY0 + 20 * 3600) * 1_000_000)[0]["flows"]
    half = half.filter(pc.equal(half["device_id"].cast("string"), "phone-00"))
    half = half.filter(pc.greater(half["start"].cast("int64"), (DAY0 + 8 * 3600) * 1_000_000))
    assert micros(half["start"]).max() - micros(half["start"]).min() < 12 * 3600e6
    result = train({"flows": half}, "6h", 0)
    assert (
        result.params["held_out"] == "channels" and "for want of devices" in result.detector.card["roughness"]
    )
    assert set(result.detector.calibration) == set(STRATA)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "held_out"), [(5, "channels"), (20, "7 devices")])
def test_one_day_of_many_devices_in_one_window_each_is_enough(devices, held_out):
    result = train(fleet(devices=devices, days=1), "24h", 0)
    assert result.params["held_out"] == held_out and result.quality.implant_days > 0


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_little_is_one_clear_sentence(count):
    with pytest.raises(AppcadenceError) as error:
        train({"flows": flows(np.arange(count) * 100.0)})
    assert "\n" not in str(error.value)


def test_features_are_recomputed_and_contacts_counted_alike(tables):
    cut = (DAY0 + 2 * 86400) * 1_000_000
    clean, _ = labelled(tables, cut, "24h", 1, 0.0)
    mixed, specs = labelled(tables, cut, "24h", 1, 2.0)
    assert not clean.malicious.any() and mixed.malicious.sum() > 3
    bad, good = mixed.frame[mixed.malicious], mixed.frame[~mixed.malicious]
    # A destination that only the implant's own device contacts counts for nobody else, injected or real.
    own = bad[bad["channel_is_new"] == 1]
    fresh = own[own["destination_is_new_for_fleet"] == 1]
    assert (fresh["destination_prevalence_ratio"] == 0).all() and len(fresh)
    # About half of the implants bring nothing new.
    assert 0.2 < specs["new_destination"].mean() < 0.8
    assert set(good["device_id"]) == set(clean.frame["device_id"])


def test_a_session_that_goes_on_overnight_stays_the_implants(tables):
    cut = (DAY0 + 86400) * 1_000_000
    rows, specs = labelled(tables, cut, "6h", 3, 8.0)
    assert (specs["kind"] == "long_session").any()
    assert (rows.frame["n_flows"][rows.malicious] == 0).any()


# What is asked of the injection, before anything is learned: cuts, devices, rounds and rates.

HOUR = 3600.0


class Enough(Exception):
    """The rounds are over."""


def rounds(monkeypatch, starts, devices=4, benign=4000, window="24h", seed=7):
    """The calls that training makes for its rounds, each of which brings so many benign windows."""
    calls = []

    def asked(tables, cut, window, seed, rate, **more):
        calls.append({"cut": cut, "seed": seed, "rate": rate} | more)
        implant = np.append(np.full(benign, -1), 0)
        kind = pd.Series([None] * benign + ["beacon"], dtype=object)
        return LabelledWindows(windows(benign + 1, implant_kind=kind, verdict=None), implant), pd.DataFrame(
            {"x": [0]}
        )

    def fitted(*parts):
        raise Enough

    monkeypatch.setattr("appcadence.training.rounds.labelled", asked)
    monkeypatch.setattr("appcadence.training.train.fit", fitted)
    table = together(*(flows(starts, f"d{k}") for k in range(devices)))
    with pytest.raises(Enough):
        train({"flows": table}, window, seed)
    return calls


@pytest.mark.parametrize(("devices", "held_out"), [(19, None), (20, 7), (21, 7), (22, 7), (23, 8)])
def test_a_third_of_twenty_devices_or_more_is_held_out(monkeypatch, devices, held_out):
    learn, *others = rounds(monkeypatch, [0.0, 3 * 86_400], devices)
    if held_out is None:
        assert learn["devices"] is None and len(others) == 1
        return
    clean, check = others[:2]
    assert learn["changed"] and len(learn["devices"]) == devices - held_out
    assert clean["devices"] == check["devices"] and len(check["devices"]) == held_out
    assert sorted(learn["devices"] + check["devices"]) == sorted(f"d{k}" for k in range(devices))
    assert (clean["seed"], clean["rate"]) == (0, 0.0) and (learn["seed"], check["seed"]) == (7000, 7500)
    assert "changed" not in clean and "changed" not in check


@pytest.mark.parametrize(
    ("window", "last", "border"),
    [
        # Of three windows two are past, of four two, of five three.
        ("24h", 2 * 86_400, 2 * 86_400),
        ("24h", 4 * 86_400 - 1, 2 * 86_400),
        ("24h", 4 * 86_400, 3 * 86_400),
        ("6h", 12 * HOUR, 12 * HOUR),
        ("6h", 18 * HOUR, 12 * HOUR),
    ],
)
def test_the_past_ends_at_the_middle_border(monkeypatch, window, last, border):
    calls = rounds(monkeypatch, [100.0, last], window=window)
    assert {call["cut"] for call in calls} == {(DAY0 + int(border)) * 1_000_000}


def test_fewer_than_three_windows_are_cut_at_eight_moments(monkeypatch):
    first, last = 100.0, 2 * 86_400 - 1.0
    calls = rounds(monkeypatch, [first, last], devices=1, benign=400)
    cuts = [(call["cut"] / 1e6 - DAY0 - first) / (last - first) for call in calls]
    assert len(set(cuts[:8])) == 8 and cuts[8:] == cuts[: len(cuts) - 8]
    assert 0.35 <= min(cuts) < 0.45 and 0.55 < max(cuts) <= 0.65
    assert rounds(monkeypatch, [first, last], devices=1, benign=400, seed=8)[0]["cut"] != calls[0]["cut"]


@pytest.mark.parametrize(
    ("benign", "n"),
    [(5000, 1), (4999, 2), (2000, 2), (1999, 3), (1000, 4), (999, 5), (1, 40)],
)
def test_rounds_go_on_until_four_thousand_benign_windows(monkeypatch, benign, n):
    monkeypatch.setattr("appcadence.training.rounds._BENIGN_ENOUGH", 5000)
    calls = rounds(monkeypatch, [0.0, 3 * 86_400], devices=1, benign=benign)
    assert [call["seed"] for call in calls] == list(range(7000, 7000 + n))
    # Fewer than two thousand in the first make it a small baseline: benign windows vary, implants abound.
    small = benign < 2000
    assert [call["varied"] for call in calls] == [False] + [small] * (n - 1)
    assert calls[0]["rate"] == 1.5 and {call["rate"] for call in calls[1:]} <= {40.0 if small else 1.5}


@pytest.mark.parametrize(
    ("devices", "last", "rate"),
    [
        (1, 6 * 86_400, 20.0),  # forty implants a round, on two device-days after the cut at the fourth
        (3, 6 * 86_400, 40 / 6),
        (20, 2 * 86_400, 40 / 13 * 24),  # thirteen of twenty devices learn, an hour as of an hour
        (6, 20 * 86_400, 1.5),  # no fewer than on a fleet
        (1, 2 * 86_400, 960.0),  # of less than an hour as of an hour
    ],
)
def test_implants_of_a_small_baseline(monkeypatch, devices, last, rate):
    assert rounds(monkeypatch, [0.0, last], devices, benign=1000)[-1]["rate"] == pytest.approx(rate)


def test_a_round_of_a_held_out_fleet_is_clean_once_a_cut(monkeypatch):
    calls = rounds(monkeypatch, [0.0, 3 * 86_400], devices=20, benign=1500)
    assert [call["seed"] for call in calls] == [7000, 0, 7500, 7001, 7501, 7002, 7502]
    assert [call.get("varied") for call in calls[1:3]] == [None, None]


def test_what_lasts_too_long_is_thinned_and_implants_and_verdicts_are_kept(monkeypatch):
    monkeypatch.setattr("appcadence.training.rounds._BENIGN_ENOUGH", 10)
    learned = []
    monkeypatch.setattr("appcadence.training.train.fit", lambda learn, *more: learned.append(learn) or 1 / 0)
    implant = np.array([-1] * 14 + [0] * 3)
    verdict = pd.Series([None] * 12 + ["benign"] * 2 + [None] * 3, dtype=object)
    frame = windows(17, implant_kind=None, verdict=verdict)
    monkeypatch.setattr(
        "appcadence.training.rounds.labelled",
        lambda *asked, **more: (LabelledWindows(frame, implant), pd.DataFrame()),
    )
    with pytest.raises(ZeroDivisionError):
        train({"flows": flows([0.0, 3 * 86_400])})
    ((first,),) = learned
    assert (first.implant >= 0).sum() == 3 and first.frame["verdict"].notna().sum() == 2
    assert len(first.frame) == 15


def test_the_card_says_how_rough_its_promises_are(saved):
    card = bundle.load(saved)[0].card
    n, days = card["calibration_windows"], card["calibration_device_days"]
    assert f"Calibrated on {n} windows over {days:.2f} device-days" in card["roughness"]
    assert f"below {1 / (n + 1):.2g};" in card["roughness"]
    assert f"about {100 / days**0.5:.0f}%" in card["roughness"]
    assert (card["devices"], card["held_out"], card["cuts"]) == (6, "channels", 1)
