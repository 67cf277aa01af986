"""Readiness: what each source can show, said per device."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import DAY0, activity, coverage, flows, inventory, pushes, table, together
from phones import quiet, slots

from appcadence._types import HOUR_US
from appcadence.errors import SchemaError, TelemetryError
from appcadence.telemetry.device_times import DeviceTimes, by_device, filled, gaps
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.passive_names import complete
from appcadence.telemetry.readiness import capability
from appcadence.telemetry.readiness.assess import CONNECTION_BLIND_SPOT, readiness
from appcadence.telemetry.readiness.capability import Level
from appcadence.telemetry.schema import CONTACT_SUMMARIES, FLOWS, NOTIFICATIONS, conform
from appcadence.telemetry.simulate.fleet import simulate

JUDGED, TOO_LITTLE, PER_DEVICE, BLIND = Level
DAY = 86_400.0


def answer(tmp_path, **tables):
    write_directory(tmp_path / "t", tables)
    return readiness(tmp_path / "t")


def levels(device):
    return tuple(found.level for found in device.behaviours.values())


def only(found):
    (device,) = found.devices
    return device


def test_zeek_alone_has_the_app_and_push_blind_spots(tmp_path, shared_data):
    logs = [shared_data / "zeek" / f"{name}.tsv.head40.log" for name in ("conn", "ssl")]
    convert(logs, tmp_path / "out")
    found = readiness(tmp_path / "out")
    device = only(found)
    assert levels(device) == (PER_DEVICE, PER_DEVICE, BLIND)
    assert device.attribution == {"exact": 0.0, "process": 0.0, "display_name": 0.0, "none": 1.0}
    assert "blind spot" in device.behaviours["structured_cadence"].reason
    assert device.behaviours["notification_burst"].reason == "no push telemetry: a blind spot"
    text = "\n".join(found.blind_spots)
    assert "most flows do not name their app" in text and "no push telemetry by app" in text
    assert found.blind_spots[-1] == CONNECTION_BLIND_SPOT
    assert all(spot.startswith("Blind spot: ") for spot in found.blind_spots)
    assert "sysdiagnose" in found.change("notification_burst")[0]
    assert "content filter" in found.change("structured_cadence")[0]


def test_nothing_reads_the_words(tmp_path, monkeypatch):
    """With every level worded as nonsense, all but the words is the same."""
    found = answer(tmp_path, **full(notifications=None)).as_dict()
    monkeypatch.setattr(capability, "WORDING", dict.fromkeys(Level, "gibberish"))
    other = readiness(tmp_path / "t").as_dict()
    for each in (found, other):
        texts = [said.pop("text") for said in each["devices"][0]["behaviours"].values()]
        assert texts == ["gibberish"] * 3 if each is other else len(set(texts)) == 2
    assert found == other


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    made = simulate(12, 3, 5, own_log_share=0.0)
    path = tmp_path_factory.mktemp("fleet") / "t"
    write_directory(path, made.tables)
    return readiness(path), made.tables


def test_every_device_of_a_mixture_is_judged_by_itself(fleet):
    found, tables = fleet
    frame = tables["flows"].to_pandas()
    source = frame.groupby(frame["device_id"].astype(str))["source"].first().astype(str).to_dict()
    assert set(source.values()) == {"content_filter", "gateway", "netflow"}
    for device in found.devices:
        expected = {
            "content_filter": (JUDGED, JUDGED, JUDGED),
            "gateway": (PER_DEVICE, PER_DEVICE, BLIND),
            "netflow": (PER_DEVICE, PER_DEVICE, BLIND),
        }[source[device.device_id]]
        assert levels(device) == expected, device
    n = list(source.values()).count("content_filter")
    assert found.levels("notification_burst") == {
        JUDGED: n,
        TOO_LITTLE: 0,
        PER_DEVICE: 0,
        BLIND: 12 - n,
    }
    assert found.change("structured_cadence")[1] == 12 - n


def test_counts_agree_with_pandas(fleet):
    found, tables = fleet
    frame = complete(tables["flows"]).to_pandas()
    frame["device_id"] = frame["device_id"].astype(str)
    for device in found.devices:
        mine = frame[frame["device_id"] == device.device_id]
        assert device.flows == len(mine)
        assert device.app_known == pytest.approx(mine["app_id"].notna().mean())
        assert device.host_known == pytest.approx(mine["dest_host"].notna().mean())
        assert device.host_passive == pytest.approx((mine["dest_host_source"] == "passive").mean())
        assert device.duration_known == device.bytes_known == 1.0
        assert pd.Timestamp(device.first) == mine["start"].min().floor("s")
        assert device.span_hours == pytest.approx(
            (mine["start"].max() - mine["start"].min()).total_seconds() / 3600
        )
        assert device.profiles.apps == mine["app_id"].nunique()
        assert (
            device.activity.records == (tables["activity"]["device_id"].to_pandas() == device.device_id).sum()
        )
        assert device.pushes.records == sum(device.pushes.kinds.values())
    assert found.flows == len(frame)
    assert found.share("app_known") == pytest.approx(frame["app_id"].notna().mean())
    json.dumps(found.as_dict())


def test_small_pieces_give_the_same_answer(tmp_path, fleet):
    found, tables = fleet
    write_directory(tmp_path / "t", {k: v for k, v in tables.items() if k != "flows"})
    (tmp_path / "t" / "flows").mkdir()
    import pyarrow.parquet as pq

    pq.write_table(tables["flows"], tmp_path / "t" / "flows" / "a.parquet", row_group_size=997)
    again = readiness(tmp_path / "t")
    assert again.devices == found.devices and again.blind_spots == found.blind_spots


def full(**more):
    """Telemetry of one device that shows everything, with some tables replaced."""
    tables = {
        "flows": flows(np.arange(0, DAY, 600.0)),
        "activity": activity([(t, t + 60) for t in np.arange(0, DAY, 3600)]),
        "notifications": pushes(np.arange(0, DAY, 7200.0)),
        "inventory": inventory(
            {"app_id": "com.a", "approved": True, "background_modes": [], "expected_hosts": ["a.example"]}
        ),
    }
    return {k: v for k, v in (tables | more).items() if v is not None}


# An hourly count of what was shown does not coarsen the log of pushes.
HOURLY = together(
    pushes(np.arange(0, DAY, 7200.0), grid=60.0),
    table(
        NOTIFICATIONS,
        [
            {"device_id": "d1", "time": 5.0, "kind": "notification_shown", "time_resolution_seconds": 3600.0},
        ],
    ),
)


def test_everything_known_needs_no_change(tmp_path):
    found = answer(tmp_path, **full())
    device = only(found)
    assert levels(device) == (JUDGED, JUDGED, JUDGED)
    assert {v.change for v in device.behaviours.values()} == {""}
    assert found.blind_spots == (CONNECTION_BLIND_SPOT,)
    assert (device.observed_hours, device.activity.hours, device.pushes.hours) == (24, 24, 23)
    assert device.pushes.hours_with_flows == 23 and device.activity.hours_with_flows == 24
    assert vars(device.profiles) == vars(found.profiles)
    assert tuple(vars(found.profiles).values()) == (1, 1, 1, 1, 1, 1) and not found.undeclared


@pytest.mark.parametrize(
    ("tables", "expected", "changes"),
    [
        ({"flows": flows(np.arange(0, DAY, 600.0), app=None)}, (PER_DEVICE, PER_DEVICE, BLIND), ("app",) * 3),
        (
            {"flows": flows(np.arange(0, DAY, 600.0), duration=np.nan)},
            (JUDGED, BLIND, JUDGED),
            ("", "duration", ""),
        ),
        ({"flows": flows(np.arange(0, DAY, 600.0), host=None)}, (JUDGED,) * 3, ("again",) * 3),
        (
            {"flows": flows(np.arange(0, DAY, 600.0), app=None, host=None)},
            (BLIND,) * 3,
            ("destination",) * 3,
        ),
        (
            {"flows": flows(np.arange(0, DAY, 600.0), time_resolution_seconds=300.0)},
            (BLIND,) * 3,
            ("time",) * 3,
        ),
        ({"flows": flows([1.0, 2.0])}, (BLIND,) * 3, ("flows",) * 3),
        ({"notifications": None}, (JUDGED, JUDGED, BLIND), ("", "", "push")),
        ({"notifications": pushes([1.0, 2.0, 3.0], app=None)}, (JUDGED, JUDGED, BLIND), ("", "", "push")),
        ({"notifications": pushes([1.0] * 9, grid=3600.0)}, (JUDGED, JUDGED, BLIND), ("", "", "push")),
        (
            {"notifications": pushes([9 * DAY + t for t in range(9)])},
            (JUDGED, JUDGED, BLIND),
            ("", "", "push"),
        ),
        ({"notifications": pushes([1.0, 2.0, 3.0], grid=60.0)}, (JUDGED,) * 3, ("", "", "push")),
        ({"notifications": HOURLY}, (JUDGED,) * 3, ("",) * 3),
        ({"activity": None}, (JUDGED,) * 3, ("activity",) * 3),
        ({"activity": activity([(0, DAY)], kind="charging")}, (JUDGED,) * 3, ("activity",) * 3),
        ({"inventory": None}, (JUDGED,) * 3, ("modes",) * 3),
    ],
)
def test_what_is_missing_is_named(tmp_path, tables, expected, changes):
    device = only(answer(tmp_path, **full(**tables)))
    assert levels(device) == expected
    assert tuple(v.change for v in device.behaviours.values()) == changes


def test_a_phones_own_log_is_judged_by_app_for_the_hours_it_was_kept(tmp_path):
    found = answer(tmp_path, **quiet())
    device = only(found)
    assert levels(device) == (JUDGED, JUDGED, BLIND)  # one push is no telemetry of pushes
    assert device.own_log and device.present and device.observed_hours == 73
    assert device.logged_hours == pytest.approx(72.0, abs=0.1) and device.gaps == 0
    assert "to 8 s" in device.behaviours["structured_cadence"].reason
    assert device.behaviours["structured_cadence"].change == "report"
    said = "There 2 of 3 behaviours can be judged by app, to 8 s, over 72.0 h."
    assert said in found.own_logs() and found.as_dict()["fleet"]["own_logs"] == found.own_logs()
    assert CONNECTION_BLIND_SPOT not in found.blind_spots
    assert "the phone's own log shows no destinations" in found.blind_spots[0]
    assert not answer(tmp_path / "other", **full()).own_logs()


@pytest.mark.parametrize(("hours", "level"), [(0.9, TOO_LITTLE), (5.9, TOO_LITTLE), (6.0, JUDGED)])
def test_too_short_a_log_of_its_own_is_too_little_to_judge_a_phone_by(tmp_path, hours, level):
    """As `phone` says of it."""
    starts = np.arange(0, hours * 3600, 60.0)
    tables = {"flows": slots(starts, "com.a"), "coverage": coverage([(0, hours * 3600)])}
    found = answer(tmp_path, **tables, notifications=pushes(starts, grid=1.0))
    device = only(found)
    assert levels(device) == (level,) * 3
    if level == TOO_LITTLE:
        assert {v.change for v in device.behaviours.values()} == {"again"}
        assert found.own_logs().startswith(
            "Phones seen through their own log (a sysdiagnose): 1. There 0 of 3"
        )


def test_coverage_counts_as_observed_and_once(tmp_path):
    kept = coverage([(0, 7200), (3600, 7200), (10 * 3600, 11 * 3600)])
    device = only(answer(tmp_path, flows=slots([60.0, 120.0], "com.a"), coverage=kept))
    assert device.logged_hours == pytest.approx(3.0, abs=0.1)
    assert (device.observed_hours, device.gaps, device.gap_hours) == (5, 1, 7)


def test_the_change_names_the_apps_without_background_modes(tmp_path):
    many = together(
        flows(np.arange(0, DAY, 600.0)), *(flows(np.arange(n), app=f"com.{n}") for n in range(1, 20))
    )
    found = answer(tmp_path, **full(flows=many))
    assert found.undeclared[0] == "com.19" and len(found.undeclared) == 19
    assert found.change("structured_cadence")[0].startswith(
        "declare background modes for these 19 apps (their IPA or Info.plist): com.19, com.18"
    )


def test_a_devices_own_profile_is_the_one_that_counts(tmp_path):
    known = inventory(
        {"app_id": "com.a", "background_modes": ["fetch"]}, {"app_id": "com.a", "device_id": "d1"}
    )
    assert only(answer(tmp_path, **full(inventory=known))).profiles.background_modes_known == 0


def test_gaps_and_long_flows(tmp_path):
    starts = np.r_[np.arange(0, 7200, 600.0), 12 * 3600 + np.arange(0, 7200, 600.0)]
    device = only(answer(tmp_path, **full(flows=flows(starts))))
    assert (device.gaps, device.gap_hours, device.observed_hours) == (1, 10, 4)
    long = together(flows(starts), flows([1800.0], duration=12 * 3600.0))
    write_directory(tmp_path / "long", {"flows": long})
    device = only(readiness(tmp_path / "long"))
    assert (device.gaps, device.observed_hours) == (0, 14)


def test_an_app_privacy_report_is_no_clock(tmp_path):
    rows = [
        {"device_id": "d9", "app_id": "com.a", "dest_host": "a", "hits": 3, "initiated": "app"}
        | {"first_seen": 0.0, "last_seen": 9.0}
    ]
    found = answer(tmp_path, flows=FLOWS.empty(), contact_summaries=table(CONTACT_SUMMARIES, rows))
    assert levels(only(found)) == (BLIND,) * 3
    assert "App Privacy Report" in found.reason("structured_cadence")
    assert "no flows on 1 of 1 device (d9)" in found.blind_spots[0]


def test_logs_without_flows_are_counted(tmp_path):
    found = answer(tmp_path, **full(flows=None))
    device = only(found)
    assert (device.activity.hours, device.activity.hours_with_flows, device.pushes_with_app) == (24, 0, 12)
    assert found.blind_spots == (
        "Blind spot: no flows on 1 of 1 device (d1): nothing can be said about their traffic.",
        CONNECTION_BLIND_SPOT,
    )


def test_an_empty_directory_has_an_answer(tmp_path):
    found = answer(tmp_path, flows=FLOWS.empty())
    assert not found.devices and found.blind_spots == (CONNECTION_BLIND_SPOT,)
    assert found.as_dict()["fleet"]["behaviours"]["structured_cadence"]["attack"]["analytic"] == "AN1682"
    with pytest.raises(TelemetryError, match="none does not exist; expected a directory made by"):
        readiness(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(TelemetryError, match="file is not a directory; expected a directory made by"):
        readiness(tmp_path / "file")


def test_durations_that_are_no_number_are_unknown(tmp_path):
    write_directory(tmp_path / "t", {"flows": flows(np.arange(9.0), duration=[0, np.nan, *[1] * 7])})
    device = only(readiness(tmp_path / "t"))
    assert device.flows == 9 and device.last.endswith("+00:00")


@pytest.mark.parametrize("start", [-(2**62), -1, 2**62])
@pytest.mark.parametrize("duration", [-1.0, 1e300, np.inf])
def test_broken_clocks_and_durations_are_refused(tmp_path, start, duration):
    whole = flows(np.arange(9.0), duration=[1] * 9)
    far = pa.array([start, *range(8)], pa.int64()).cast(whole.schema.field("start").type)
    for name, wild in (
        ("start", whole.set_column(0, "start", far)),
        ("duration_seconds", flows(np.arange(9.0), duration=[duration] * 9)),
    ):
        write_directory(tmp_path / name, {"flows": whole})
        (part,) = TelemetryDirectory(tmp_path / name).files("flows")
        pq.write_table(conform(FLOWS, wild), part)
        with pytest.raises(SchemaError, match=f"column '{name}': .* is out of range"):
            readiness(tmp_path / name)


def test_hours_by_hand():
    hours = DeviceTimes(HOUR_US)
    hour = 3_600_000_000
    hours.add(np.array([1, 0, 0]), np.array([5, 0, 9]) * hour, np.array([5, 2, 9]) * hour)
    keys, _ = hours.touched()
    assert by_device(keys, 3).tolist() == [4, 1, 0]
    assert by_device(filled(keys, 7), 3).tolist() == [10, 1, 0]
    assert [x.tolist() for x in gaps(keys, 4, 3)] == [[1, 0, 0], [6, 0, 0]]
    assert not len(DeviceTimes(HOUR_US).touched()[0]) and not len(
        filled(DeviceTimes(HOUR_US).touched()[0], 4)
    )


def test_the_directory_may_be_given_open(tmp_path):
    write_directory(tmp_path / "t", full())
    assert readiness(TelemetryDirectory(tmp_path / "t")).devices == readiness(str(tmp_path / "t")).devices
    assert pd.Timestamp(DAY0, unit="s", tz="UTC") == pd.Timestamp(readiness(tmp_path / "t").devices[0].first)


def test_reports_of_two_days_can_be_judged_in_weekly_sums_and_as_nothing_else(tmp_path):
    day = 86400.0
    row = {"device_id": "d9", "app_id": "com.a", "dest_host": "a", "hits": 3, "initiated": "app"}
    spans = [(0.0, 7 * day), (7 * day, 9 * day), (20 * day, 21 * day)]
    rows = [
        row | {"first_seen": start, "last_seen": end, "report_start": start, "report_end": end}
        for start, end in spans
        for _ in range(2)
    ]
    found = answer(tmp_path, flows=FLOWS.empty(), contact_summaries=table(CONTACT_SUMMARIES, rows))
    assert (only(found).contact_summaries, only(found).reports, found.weekly_sums()) == (6, 2, (1, 2))
    assert levels(only(found)) == (BLIND,) * 3
    assert "weekly sums" in found.reason("structured_cadence")
    assert "App Privacy Reports and no flows on 1 of 1 device (d9)" in found.blind_spots[0]
    assert found.as_dict()["fleet"]["weekly_sums"] == {"devices": 1, "reports": 2}
