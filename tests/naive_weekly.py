"""Weekly sums in plain loops: the slow twin of `features.weekly`."""

import math
from collections import defaultdict

DAY, HOUR = 86_400_000_000, 3_600_000_000


def judged_reports(rows):
    """(device, start, end) of the reports that are judged, the newest chosen first."""
    chosen = []
    for device in {row["device_id"] for row in rows}:
        spans = {(row["report_end"], row["report_start"]) for row in rows if row["device_id"] == device}
        later = max(spans)[0]
        for end, start in sorted(spans, reverse=True):
            if end - start >= 2 * DAY and end <= later + DAY:
                chosen.append((device, start, end))
                later = start
    return sorted(chosen)


def contact_weeks(rows, awake_hours=None):
    """By (device, start, end, app, host), the quantities of `features.weekly.contact_weeks`.

    `awake_hours` is, by (device, start, end), the hours that activity telemetry tells.
    """
    rows = [dict(items) for items in {tuple(sorted(row.items(), key=str)) for row in rows}]
    out = {}
    for device, start, end in judged_reports(rows):
        own = [row for row in rows if row["device_id"] == device]
        first_end = min(row["report_end"] for row in own)
        known_until = max(first_end, end - 28 * DAY)
        here = [row for row in own if (row["report_start"], row["report_end"]) == (start, end)]
        for app, host in sorted({(row["app_id"], row["dest_host"]) for row in here}):
            pair = [row for row in here if (row["app_id"], row["dest_host"]) == (app, host)]
            since = min(r["first_seen"] for r in own if (r["app_id"], r["dest_host"]) == (app, host))
            app_since = min(r["first_seen"] for r in own if r["app_id"] == app)
            first, last = min(r["first_seen"] for r in pair), max(r["last_seen"] for r in pair)
            found = {"contacts": sum(r["hits"] for r in pair if r["initiated"] == "app")}
            found["user_contacts"] = sum(r["hits"] for r in pair if r["initiated"] == "user")
            found["is_new"] = math.nan if end == first_end else float(since > known_until)
            found["app_is_new"] = math.nan if end == first_end else float(app_since > known_until)
            found["spread_ratio"] = (last - first) / (end - start)
            hours = (awake_hours or {}).get((device, start, end), (end - start) / HOUR * 2 / 3)
            if found["is_new"] == 1:
                hours = max(hours * (end - first) / (end - start), 16.0)
            found["contacts_per_hour"] = found["contacts"] / hours
            n = max(found["contacts"], 1)
            silent = (end - last) + (0 if first == since else first - start)
            interval = max((last - first) / max(n - 1, 1), 60_000_000)
            found["steadiness_octaves"] = math.log2(n) - math.log2(1 + silent / interval)
            owners = [r["dest_owner"] for r in pair if r["dest_owner"]]
            found["owner"] = owners[0] if owners else None
            out[device, start, end, app, host] = found
    _compare(out)
    return out


def _compare(out):
    for (device, start, end, app, host), found in out.items():
        domain = host.split(".", host.count(".") - 1)[-1]
        others = {(d, a) for d, _, _, a, h in out if h.endswith(domain)} - {(device, app)}
        found["is_rare"] = float(not others and found["owner"] is None)
        before = defaultdict(float)
        known = 0.0
        for (d, s, e, a, _), other in out.items():
            if (d, a) == (device, app):
                if e < end:
                    before[e] += other["contacts_per_hour"]
                elif e == end and s == start and other["is_new"] != 1:
                    known += other["contacts_per_hour"]
        usual = sum(before.values()) / max(len(before), 1)
        lost = usual - known if known < usual / 2 else 0.0
        found["replaces"] = float(
            found["is_new"] == 1 and lost > 0 and lost >= found["contacts_per_hour"] / 2
        )
        rates = [
            (key, math.log2(other["contacts_per_hour"])) for key, other in out.items() if other["contacts"]
        ]
        pair = (device, app, host)
        beside = [(key, rate) for key, rate in rates if (key[0], *key[3:]) != pair]
        level = _shrunk([rate for _, rate in beside], 0.0, 0)
        level = _shrunk([rate for key, rate in beside if key[3] == app], level, 3)
        level = _shrunk([rate for key, rate in beside if key[4] == host], level, 3)
        level = _shrunk([rate for key, rate in beside if key[3:] == (app, host)], level, 3)
        own = [rate for key, rate in rates if (key[0], *key[3:]) == pair and key[1] < start]
        found["usual_per_hour"] = 2 ** _shrunk(own if found["is_new"] != 1 else [], level, 3)


def _shrunk(rates, towards, weight):
    return (sum(rates) + weight * towards) / (len(rates) + weight) if len(rates) + weight else 0.0
