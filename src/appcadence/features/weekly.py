"""App Privacy Reports -> quantities of each app, host and report: weekly sums, which show no rhythm.

A report covers at most the seven days before it was made. The reports of a device are one history: each says
since when a host was contacted, and reports that share more than a day with a later one are history alone, so
that no contact is judged twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, HOUR_US, Ints, Mask, Vector
from appcadence.features.domains import registrable_domain
from appcadence.telemetry.arrays import row_and_place
from appcadence.telemetry.readiness.counts import MIN_REPORT_US
from appcadence.telemetry.schema import CONTACT_SUMMARIES, conform

Tables = Mapping[str, pa.Table]

MAX_CONTACTS = 10**9
"""Larger counts are damage, and are clipped to this."""
MAX_OVERLAP_US = DAY_US
NEW_US = 28 * DAY_US
"""A host first contacted within this long before the end of a report is new, unless it is the device's first
report: contacting it again the week after does not make it known."""
AWAKE_SHARE = 2 / 3
"""Of a report's hours, where no activity telemetry says when the phone was used."""
MIN_EXPOSURE_HOURS = 16.0
"""A day awake: a new host is judged over the time since its first contact, but over no less."""
MIN_INTERVAL_US = 60_000_000
PRIOR_PAIRS = 3.0
"""Weight of the more general rate, as a number of observations of the more specific one."""
PRESENT = ("app_foreground", "device_unlocked", "screen_on")

PAIR = ["device_id", "app_id", "dest_host"]
REPORT = ["device_id", "report_start", "report_end"]


def contact_weeks(tables: Tables) -> pd.DataFrame:
    """What is to be judged, from the tables `contact_summaries` and, if there is one, `activity`.

    Returns:
        A row for each judged report (`report_start`, `report_end`, microseconds) and pair of app and host in
        it, whichever web sites they were contacted through, ordered by device, report, app and host:

        - `contacts`, `user_contacts`: those the app began by itself, and those the user began;
        - `first_seen`, `last_seen`: the first and last contact in the report, microseconds;
        - `contacts_per_hour`: of the app by itself, an hour awake (new hosts: since their first contact);
        - `presence_known`: whether activity telemetry says which hours those are;
        - `spread_ratio`: the time from first to last contact, as a share of the report's;
        - `is_new`: 1 where the app first contacted the host after the device's first report, and within 28
          days; NaN in a device's first report;
        - `app_is_new`: the same of the app as a whole;
        - `replaces`: 1 where the hosts that the app contacted before lost more than half of their contacts,
          and at least half as many as this new one got: the service has moved;
        - `steadiness_octaves`: log2 of the app's contacts over 1 + the time without them at the ends of the
          report, in mean intervals: many contacts, up to the last hour, score high. Before its first contact
          a host is not missed;
        - `is_rare`: 1 where no other device and no other app contacted the host's registrable domain, and its
          owner is not known; else 0;
        - `usual_per_hour`: what the rate usually is: by the same device before, by the same app and host on
          other devices, by the host, by the app, and by all, the more general the less it counts;
        - `owner`: of the host, None if it is not known.

    Raises:
        SchemaError: a table does not fit its declaration.
    """
    rows = _rows(conform(CONTACT_SUMMARIES, tables.get("contact_summaries", CONTACT_SUMMARIES.empty())))
    reports = _reports(rows)
    rows = rows.merge(reports[reports["judged"]], on=REPORT)
    by_app = rows["hits"].where(rows["initiated"] == "app", 0)
    rows = rows.assign(contacts=by_app, user_contacts=rows["hits"] - by_app)
    weeks = rows.groupby([*REPORT, *PAIR[1:]], as_index=False).agg(
        contacts=("contacts", "sum"),
        user_contacts=("user_contacts", "sum"),
        first_seen=("first_seen", "min"),
        last_seen=("last_seen", "max"),
        owner=("dest_owner", "first"),
        pair_since=("pair_since", "first"),
        app_since=("app_since", "first"),
        known_until=("known_until", "first"),
    )
    # A device's first report has nothing before it.
    first = weeks["known_until"] >= weeks["report_end"]
    for name, begun in (("is_new", "pair_since"), ("app_is_new", "app_since")):
        weeks[name] = (weeks[begun] > weeks["known_until"]).astype(float).mask(first)
    length = weeks["report_end"] - weeks["report_start"]
    weeks["spread_ratio"] = ((weeks["last_seen"] - weeks["first_seen"]) / length).clip(0.0, 1.0)
    hours, weeks["presence_known"] = _hours_awake(tables.get("activity"), weeks)
    since = (weeks["report_end"] - weeks["first_seen"]) / length
    exposure = np.where(weeks["is_new"] == 1, np.maximum(hours * since, MIN_EXPOSURE_HOURS), hours)
    weeks["contacts_per_hour"] = weeks["contacts"] / exposure
    weeks["replaces"] = _replaces(weeks)
    weeks["steadiness_octaves"] = _steadiness(weeks)
    weeks["is_rare"] = _rare(weeks)
    weeks["usual_per_hour"] = _usual(weeks)
    return weeks.drop(columns=["pair_since", "app_since", "known_until"])


def short_reports(tables: Tables) -> int:
    """How many reports cover too little time to be judged."""
    reports = _reports(_rows(conform(CONTACT_SUMMARIES, tables["contact_summaries"])))
    return int((reports["report_end"] - reports["report_start"] < MIN_REPORT_US).sum())


def _rows(summaries: pa.Table) -> pd.DataFrame:
    """The summaries, times in microseconds, but for those that do not say which report they are of."""
    told = pc.and_(pc.is_valid(summaries["report_start"]), pc.is_valid(summaries["report_end"]))
    summaries = summaries.filter(told)
    rows = pd.DataFrame(
        {
            name: summaries[name].cast(pa.int64() if pa.types.is_timestamp(kind) else kind).to_pandas()
            for name, kind in ((c.name, c.type) for c in CONTACT_SUMMARIES.columns)
        }
    )
    names = [*PAIR, "initiated", "dest_owner"]
    # The same report may have been converted as two files.
    rows = rows.astype(dict.fromkeys(names, object)).drop_duplicates(ignore_index=True)
    rows["hits"] = rows["hits"].clip(0, MAX_CONTACTS)
    rows["pair_since"] = rows.groupby(PAIR)["first_seen"].transform("min")
    rows["app_since"] = rows.groupby(PAIR[:2])["first_seen"].transform("min")
    return rows


def _reports(rows: pd.DataFrame) -> pd.DataFrame:
    """Each report with whether it is judged, and until when what its device contacted is known to it."""
    reports = rows[REPORT].drop_duplicates().sort_values(REPORT, ignore_index=True)
    first_end = reports.groupby("device_id")["report_end"].transform("min")
    reports["known_until"] = np.maximum(first_end, reports["report_end"] - NEW_US)
    reports["judged"] = False
    for _, own in reports.groupby("device_id"):
        later = own["report_end"].max()
        for at, start, end in own[REPORT[1:]].sort_values("report_end")[::-1].itertuples():
            if end - start >= MIN_REPORT_US and end <= later + MAX_OVERLAP_US:
                reports.loc[at, "judged"], later = True, start
    return reports


def _hours_awake(activity: pa.Table | None, weeks: pd.DataFrame) -> tuple[Vector, Mask]:
    """(n,) hours of the report in which the phone was used, and whether activity telemetry told them."""
    reports = weeks[REPORT].drop_duplicates(ignore_index=True)
    span = (reports["report_end"] - reports["report_start"]).to_numpy()
    awake, known = AWAKE_SHARE * span / HOUR_US, np.zeros(len(reports), np.bool_)
    if activity is not None and len(activity) and len(reports):
        used = _hours_used(activity)
        for at, (device, start, end) in enumerate(reports.itertuples(index=False)):
            hours = used.get(device, np.empty(0, np.int64))
            hours = hours[(hours >= start // HOUR_US) & (hours <= end // HOUR_US)]
            known[at] = 2 * DAY_US * len(np.unique(hours // 24)) >= span[at]
            awake[at] = max(len(hours), MIN_EXPOSURE_HOURS) if known[at] else awake[at]
    whole = weeks[REPORT].merge(reports.assign(awake=awake, known=known), on=REPORT, how="left")
    return whole["awake"].to_numpy(), whole["known"].to_numpy(np.bool_)


def _hours_used(activity: pa.Table) -> dict[str, Ints]:
    """By device, the hours since 1970 in which it was used, sorted."""
    used = present(activity)
    first = used["start"].to_numpy() // HOUR_US
    # A screen that was never seen to go off is not a day of use.
    row, later = row_and_place(np.clip(used["end"].to_numpy() // HOUR_US - first + 1, 1, 24))
    hours = pd.DataFrame({"device": used["device_id"].to_numpy()[row], "hour": first[row] + later})
    return {str(name): np.unique(part["hour"].to_numpy()) for name, part in hours.groupby("device")}


def present(activity: pa.Table) -> pd.DataFrame:
    """When devices were in use: device_id, start and end in microseconds; what has no end is a moment."""
    rows = activity.filter(pc.is_in(activity["kind"].cast(pa.string()), pa.array(PRESENT)))
    times = {"start": rows["start"], "end": pc.coalesce(rows["end"], rows["start"])}
    columns = {name: column.cast(pa.int64()).to_numpy() for name, column in times.items()}
    return pd.DataFrame({"device_id": rows["device_id"].cast(pa.string()).to_pandas()} | columns)


def _replaces(weeks: pd.DataFrame) -> Vector:
    """(n,) 1 where a new host takes over what the app's other hosts lost."""
    new, rate = weeks["is_new"] == 1, weeks["contacts_per_hour"]
    apps = weeks[[*REPORT, "app_id"]].assign(every=rate, known=rate.where(~new, 0.0))
    sums = apps.groupby([*REPORT, "app_id"], as_index=False)[["every", "known"]].sum()
    reports = sums.groupby(["device_id", "app_id"])
    before = (reports["every"].cumsum() - sums["every"]) / reports.cumcount().clip(lower=1)
    sums["lost"] = (before - sums["known"]).where(sums["known"] < before / 2, 0.0)
    lost = weeks[[*REPORT, "app_id"]].merge(sums, on=[*REPORT, "app_id"], how="left")["lost"].to_numpy()
    return np.asarray(new & (lost >= rate / 2) & (lost > 0), np.float64)


def _steadiness(weeks: pd.DataFrame) -> Vector:
    """(n,) log2 of contacts over 1 + the silent ends of the report in mean intervals."""
    contacts = np.maximum(weeks["contacts"].to_numpy(), 1)
    interval = (weeks["last_seen"] - weeks["first_seen"]).to_numpy() / np.maximum(contacts - 1, 1)
    begun = weeks["first_seen"] == weeks["pair_since"]
    silent = (weeks["first_seen"] - weeks["report_start"]).where(~begun, 0)
    silent = (silent + weeks["report_end"] - weeks["last_seen"]).clip(lower=0)
    missing = silent.to_numpy() / np.maximum(interval, MIN_INTERVAL_US)
    return np.asarray(np.log2(contacts) - np.log2(1 + missing))


def _rare(weeks: pd.DataFrame) -> Vector:
    """(n,) 1 where nobody else contacts the host's registrable domain and its owner is not known."""
    domain = weeks["dest_host"].map(registrable_domain)
    pairs = weeks[PAIR[:2]].assign(domain=domain).drop_duplicates()
    alone = domain.map(pairs["domain"].value_counts()) == 1
    return np.asarray(alone & weeks["owner"].isna(), np.float64)


def _usual(weeks: pd.DataFrame) -> Vector:
    """(n,) the usual rate: geometric means, each shrunk towards the one before, without what is judged."""
    told = weeks["contacts"] > 0
    rate = np.log2(weeks["contacts_per_hour"].where(told, 1.0))
    frame = weeks[PAIR].assign(rate=rate, told=told.astype(float), every=0)
    sums = ["rate", "told"]
    own = frame.groupby(PAIR)[sums].transform("sum")
    usual = np.zeros(len(frame))
    for level in ("every", "app_id", "dest_host", ["app_id", "dest_host"]):
        total, count = (frame.groupby(level)[sums].transform("sum") - own).to_numpy().T
        prior = 0.0 if level == "every" else PRIOR_PAIRS
        usual = (total + prior * usual) / np.maximum(count + prior, 1.0)
    # Its own weeks before count where the host is no longer new.
    before = frame.groupby(PAIR)[sums].cumsum() - frame[sums]
    total, count = before.where(weeks["is_new"] != 1, 0.0).to_numpy().T
    return np.asarray(2.0 ** ((total + PRIOR_PAIRS * usual) / (count + PRIOR_PAIRS)))
