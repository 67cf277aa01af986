"""Windows that have no rank: what of a fleet event alerts, and what stays on the local network."""

import numpy as np
import pytest
from handmade import N, staircase, windows
from handmade import detector as handmade

from appcadence.config import Alerts, Config, Ranking
from appcadence.features.catalog import NAMES
from appcadence.models.eligibility import push_connection, shared_process


def made(behaviour="structured_cadence", **parts):
    return handmade(behaviour, tuple(k + 0.5 for k in range(100)), **parts)


@pytest.mark.parametrize("alerts", [(1.0, None), (1.0, 0.5)])
def test_of_an_event_what_is_only_new_raises_nothing(alerts):
    # The score is the age, of which no behaviour is made; the other window shows cadence.
    age = staircase(NAMES.index("channel_age_days"), tuple(k + 0.5 for k in range(100)), 2 * N)
    frame = windows(2, dest=list("ab"), app=["com.a", "com.b"], channel_age_days=99.0)
    settings, event = Config(Alerts(*alerts)), np.array([True, False])
    aged = made(classifier=age).score(frame, settings, fleet_event=event)
    assert aged["alert"].to_pylist() == [False, True]
    frame = windows(2, dest=list("ab"), app=["com.a", "com.b"], beats_per_hour=99.0)
    assert made().score(frame, settings, fleet_event=event)["alert"].to_pylist() == [True, True]


def test_windows_to_local_destinations_are_ranked_only_where_asked():
    dests = ["192.168.1.9", "a.example", "printer.local", "fe80::1%en0", "*"]
    frame = windows(5, dest=dests, beats_per_hour=[99, 98, 97, 96, 95], n_beats=[20, 20, 20, 5, 20])
    event = np.array([True, False, False, True, True])
    scores = made().score(frame, fleet_event=event).to_pandas()
    local = "local_destination"
    assert scores["status"].tolist() == [local, "scored", local, "insufficient_evidence", "fleet_event"]
    assert scores["rank"].fillna(0).tolist() == [0, 1, 0, 0, 0]
    assert scores["alert"].tolist() == [False, True, False, False, True]
    assert scores["score"].tolist()[:3] == [99, 98, 97] and not any(map(len, scores["behaviours"][[0, 2]]))
    asked = made().score(frame, Config(ranking=Ranking(local_destinations=True))).to_pandas()
    assert asked["rank"].fillna(0).tolist() == [1, 2, 3, 0, 4] and asked["alert"].sum() == 4


def test_a_process_is_shared_in_a_phones_own_log_alone():
    frame = windows(
        3, app_attribution=["process", "process", "exact"], destination_known=[True, False, False]
    )
    assert shared_process(frame).tolist() == [False, True, False]
    assert not shared_process(frame.drop(columns="destination_known")).any()


def test_a_phones_connection_to_the_push_service_is_no_apps():
    apsd, courier = "com.apple.apsd", "31-courier.push.apple.com"
    whose = {
        (None, courier): True,
        (apsd, courier): True,
        (None, "17.57.145.9"): True,
        (None, "2620:149:a44::5"): True,
        (apsd, "*"): True,
        ("com.a", courier): False,  # no app has business there
        ("com.a", "*"): False,
        (None, "api.push.apple.com"): False,  # where servers push
        (None, "17.253.1.1"): False,
        (None, "courier.push.apple.com.example"): False,
        (apsd, "a.example"): False,
    }
    app, dest = zip(*whose, strict=True)
    frame = windows(len(whose), app=list(app), dest=list(dest), beats_per_hour=99.0)
    assert push_connection(frame).tolist() == [*whose.values()]
    status = made().score(frame)["status"].to_pylist()
    assert [one == "push_connection" for one in status] == [*whose.values()]
    # By that name at an address of somebody else's.
    frame = windows(2, app=[None, apsd], dest=[courier] * 2, foreign_push_port_share=1.0)
    assert not push_connection(frame).any()
