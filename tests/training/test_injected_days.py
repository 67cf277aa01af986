"""Every day of an injected implant is kept, judged or not; one channel is too little to train on."""

import numpy as np
import pandas as pd
import pytest
from make import DAY0, flows, together

from appcadence.errors import TelemetryError
from appcadence.features import extract
from appcadence.models.calibration import device_days
from appcadence.training.evaluate import injected_quality
from appcadence.training.injection import labelled
from appcadence.training.train import train


@pytest.mark.parametrize(
    "at", [600.0 * np.arange(144), (3600 * np.arange(24)[:, None] + np.arange(14) / 20).ravel()]
)
def test_one_channel_alone_is_too_little_to_learn_from(at):
    with pytest.raises(TelemetryError, match=r"from too few channels to hold any out; .* longer capture"):
        train({"flows": flows(at)})


def test_days_of_an_implant_that_become_no_judged_window_are_kept(monkeypatch):
    grafted = together(flows(50.0 + 100.0 * np.arange(8), "d0"), flows([90_000.0], "d0"))
    specs = [
        ("d0", "com.a", ["a.example"], "beacon", len(grafted)),
        ("d0", "com.a", ["a.example"], "burst", 0),
    ]
    columns = ["device_id", "app_id", "dests", "kind", "flows"]
    found = grafted, pd.DataFrame(specs, columns=columns)
    monkeypatch.setattr("appcadence.training.injection.inject", lambda *asked, **kinds: found)
    own = {"flows": together(flows(100.0 * np.arange(7), "d0"), flows(100.0 * np.arange(2), "d1", "com.b"))}
    rows, injection = labelled(own, DAY0 * 1_000_000, "24h", 0, 1.0)
    assert len(set(rows.frame["window_start"])) == 1 and set(rows.frame["device_id"]) == {"d0"}
    assert injection["missed_days"].tolist() == [["2026-03-03"], []]
    # Two days of one device and one of another, which had nothing that could be judged.
    everything = extract({"flows": together(own["flows"], grafted)})
    assert injection["observed_device_days"].tolist() == [device_days(everything)] * 2
    assert device_days(rows.frame) < device_days(everything)


def test_an_implant_that_is_missed_first_and_found_later_is_one():
    frame = pd.DataFrame({"device_id": ["a", "b"], "app_id": None, "dest": "g", "implant": [0, -1]})
    start = [pd.Timestamp("2026-03-03", tz="UTC")] * 2
    known = {"window_start": start, "observed_seconds": 86400.0, "kind": ["beacon", None], "round": 0}
    tested = frame.assign(**known, score=[9.0, 1.0], unit=[0, 1])
    injection = pd.DataFrame({"device_id": ["a"], "app_id": None, "missed_days": [["2026-03-02"]]})
    injection = injection.assign(implant_id=5, kind="beacon", round=0, observed_device_days=10.0)
    for dests, days in ((["h", "g"], 1.0), (["h"], np.inf)):
        found = injected_quality(tested, injection.assign(dests=[dests]), None)
        assert found.implant_days == 2 and found.first_found_days == days
    app = injected_quality(
        tested.assign(app_id="com.a"), injection.assign(dests=[["h"]], app_id="com.a"), None
    )
    assert app.first_found_days == 1.0
