"""A small scored fleet: one mail app polls every 15 minutes, and on one phone later every 15 s."""

from __future__ import annotations

from functools import cache

import numpy as np
from make import fleet, flows, together

from appcadence.config import Alerts, Config
from appcadence.serving import Scorer
from appcadence.serving.measures import measures_of, of_windows

DAY = 86_400
MAIL, HOST = "com.example.mail", "imap.mail.example"


def telemetry():
    rng = np.random.default_rng(1)

    def mail(phone, day, period):
        start = np.arange(0.0, DAY, period)
        return flows(day * DAY + start + rng.uniform(0, 2, len(start)), phone, MAIL, HOST, 1.0, 900, 900)

    new = fleet(devices=5, days=6, seed=3)["flows"]
    slow = [mail(phone, day, 900.0) for phone, day in (("phone-01", 4), ("phone-01", 5), ("phone-02", 4))]
    return {"flows": together(new, *slow, mail("phone-02", 5, 15.0))}


@cache
def scored(model, false_discovery_rate=None):
    """The scores table by a model, untouched by exceptions, and its measures."""
    result = Scorer.load(model).run(telemetry(), Config(Alerts(1.0, false_discovery_rate)))
    return result.scores, measures_of(of_windows(result.windows), result.scores)
