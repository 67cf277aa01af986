"""One hand-made phone as its own log shows it: slots of 8 s, the user, pushes and scheduled work."""

import numpy as np
from make import activity, coverage, flows, pushes, tasks, together

DAY = 86_400
DAYS = 3
HOSTILE = "com.<script>alert(1)</script>\x1b[31m\u202e"


def slots(start, app, seconds=8.0, attribution="exact"):
    return flows(
        start,
        app=app,
        host=None,
        duration=seconds,
        out=None,
        inn=None,
        app_attribution=attribution,
        dest_port=None,
        transport=None,
        service=None,
        time_resolution_seconds=8.0,
        source="powerlog",
    )


def stretches():
    """When the phone is in use: nine stretches of ten minutes a day, at no fixed time."""
    rng = np.random.default_rng(0)
    hours = [day * 24 + hour for day in range(DAYS) for hour in range(8, 23)]
    begin = np.sort(rng.choice(hours, 9 * DAYS, replace=False)) * 3600 + rng.uniform(0, 2400, 9 * DAYS)
    return [(float(t), float(t + 600)) for t in begin]


def quiet():
    """A phone whose apps use the network only while it is in use."""
    rng = np.random.default_rng(1)
    used = stretches()
    apps = {"com.example.news": 5, "com.example.mail": 4, "com.apple.mobilesafari": 6}
    parts = [
        slots(np.sort(np.concatenate([rng.uniform(a, b - 30, n) for a, b in used])), app)
        for app, n in apps.items()
    ]
    return {
        "flows": together(*parts),
        "activity": activity(used),
        "notifications": pushes([used[0][0] + 60], app="com.example.mail", grid=60.0),
        "tasks": tasks([(3600, 3700)], app="com.example.mail"),
        "coverage": coverage([(0, DAYS * DAY)]),
    }


def with_beacon(app="com.example.torch", period=300):
    """The same phone with an app that uses the network every five minutes, day and night."""
    tables = quiet()
    return tables | {"flows": together(tables["flows"], slots(np.arange(60, DAYS * DAY, period), app))}


def push_driven(app="com.example.coupons"):
    """The same phone with an app that a server wakes by pushes, by day and by night."""
    tables, rng = quiet(), np.random.default_rng(2)
    at = np.sort(rng.uniform(0, DAYS * DAY, 24 * DAYS))
    return tables | {
        "flows": together(tables["flows"], slots(at + 8.0, app, 16.0)),
        "notifications": together(tables["notifications"], pushes(at // 60 * 60, app=app, grid=60.0)),
    }
