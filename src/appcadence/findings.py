"""Every statement on windows, telemetry and the fleet: a code with parameters, worded in one catalogue.

Findings are declared here and nowhere else, and no part of the package parses their words: changing a
sentence changes no alert, exception or summary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from appcadence._quantity import case_sentence, quantity
from appcadence._types import Mask
from appcadence.features.catalog import FEATURES, RELATIVE
from appcadence.features.feature import Feature
from appcadence.features.windows import APP_LEVEL

REASON, UNCHECKED, SUPPRESSION = "reason", "unchecked", "suppression"
EXPLANATION, NO_ALERT = "explanation", "no_alert"
BLIND_SPOT, FLEET_EVENT, CONTEXT = "blind_spot", "fleet_event", "context"
SUMMARY = "summary"
"""Kinds: why a window ranks where it does; what could not be checked; why an exception does not hold; what
speaks for a benign reading; why there is no alert; what the telemetry cannot show; what the fleet met for the
first time together; context that was not judged; and what happened."""

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Statement:
    """What a code means."""

    kind: str
    word: Callable[[Parameters], str]
    """The sentence, from the parameters."""
    label: str = ""
    """Prefix of the sentence where nothing else shows its kind."""


@dataclass(frozen=True)
class Finding:
    """One statement. Equal findings have equal codes and parameters, however they are worded."""

    code: str
    """A key of `CATALOGUE`."""
    parameters: Parameters = field(default_factory=dict)
    """Plain JSON values."""

    @property
    def kind(self) -> str:
        return CATALOGUE[self.code].kind

    @property
    def subject(self) -> tuple[str, ...]:
        """Code and named parameters: findings that differ in numbers alone share it."""
        named = (value for _, value in sorted(self.parameters.items()) if isinstance(value, str))
        return (self.code, *named)

    @property
    def sentence(self) -> str:
        """In words, for a place that says its kind."""
        said = self._said
        return said[:1].upper() + said[1:]

    @property
    def text(self) -> str:
        """In words, for any place."""
        label = CATALOGUE[self.code].label
        return f"{label}: {self._said}" if label else self._said

    @property
    def _said(self) -> str:
        said, dest = CATALOGUE[self.code].word(self.parameters), self.parameters.get("seen_at")
        if dest is None:
            return said
        return f"{said.removesuffix('.')} ({'all destinations together' if dest == APP_LEVEL else dest})."

    def seen_at(self, dest: str) -> Finding:
        """The same, said of a window of another destination than the one in focus; `*` = all of the app's."""
        return Finding(self.code, {**self.parameters, "seen_at": dest})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"code": self.code, "parameters": dict(self.parameters), "text": self.text}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Finding:
        """The inverse of `as_dict`; the text is ignored.

        Raises:
            ValueError: it is not a finding.
        """
        try:
            code, parameters = facts["code"], facts["parameters"]
            found = cls(code, json.loads(parameters) if isinstance(parameters, str) else dict(parameters))
            CATALOGUE[code].word(found.parameters)  # which fails where one is missing or of another type
        except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
            raise ValueError(f"no finding ({type(error).__name__}: {error})") from None
        return found


ARROW = pa.struct([("code", pa.string()), ("parameters", pa.string())])
"""A finding in a table; parameters are a JSON object."""
_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def codes_of(*kinds: str) -> pa.Array:
    """The codes of some kinds."""
    return pa.array([code for code, statement in CATALOGUE.items() if statement.kind in kinds])


def arrow(findings: Sequence[Finding]) -> pa.StructArray:
    """(n,) of type `ARROW`."""
    parameters = [_json(dict(f.parameters)) for f in findings]
    columns = [pa.array([f.code for f in findings], pa.string()), pa.array(parameters, pa.string())]
    return pa.StructArray.from_arrays(columns, fields=list(ARROW))


def columns(rows: Mask, said: Sequence[Sequence[Finding]]) -> tuple[pa.ListArray, pa.ListArray]:
    """Sentences and findings of n windows: only the `rows` (n,) have any, theirs are in `said`, in order."""
    count = np.zeros(len(rows), np.int64)
    count[rows] = [len(some) for some in said]
    offsets = pa.array(np.concatenate([[0], np.cumsum(count)]), pa.int32())
    flat = [finding for some in said for finding in some]
    texts = pa.array([finding.text for finding in flat], pa.string())
    return pa.ListArray.from_arrays(offsets, texts), pa.ListArray.from_arrays(offsets, arrow(flat))


def of_row(row: Mapping[str, Any]) -> list[Finding]:
    """The findings of a row of the scores or alerts table.

    Raises:
        ValueError: the row holds something else.
    """
    return [] if row["findings"] is None else [Finding.from_dict(one) for one in row["findings"]]


def of_kind(findings: Iterable[Finding], *kinds: str) -> list[Finding]:
    """Those of some kinds."""
    return [finding for finding in findings if finding.kind in kinds]


def sentences(codes: Iterable[str]) -> list[str]:
    """Codes without parameters, in words; unknown ones as they are."""
    return [CATALOGUE[code].word({}) if code in CATALOGUE else code for code in codes]


_FEATURE = {f.name: (f, relative) for f, relative in zip(FEATURES, RELATIVE, strict=True)}
_AGE = {"channel_is_new", "destination_is_new_for_device", "destination_is_new_for_fleet"}


def _phrase(feature: Feature) -> str:
    """What a feature is called, with a note that a session is measured within one window."""
    return feature.phrase + (" within one window" if feature.name == "longest_session_seconds" else "")


def _unusual(p: Parameters) -> str:
    feature, relative = _FEATURE[p["feature"]]
    phrase = _phrase(feature)
    phrase = phrase[0].upper() + phrase[1:]
    if feature.name in _AGE:
        return f"The destination is {feature.phrase}." if p["value"] else f"Not {feature.phrase}."
    here = quantity(p["value"], feature.unit)
    if not relative:
        return f"{phrase}: {here}."
    usual = float("nan") if p["expected"] is None else p["expected"]
    return f"{phrase}: {here}; usual here {quantity(usual, feature.unit)}."


_EXPERTS = {
    "newness": "never contacted before",
    "rhythm_of_new": "a new destination, contacted in a rhythm",
    "persistence_of_new": "a new destination, connected for long",
    "volume_of_new": "a new destination, contacted often",
    "unlike_any_known": "a new destination, unlike every service the device used before",
    "rhythm_against_own": "in a stricter rhythm than is usual here",
    "persistence_against_own": "connected for longer than is usual here",
    "volume_against_own": "contacted more often than is usual here",
    "push_coupling": "network bursts follow pushes",
    "push_coupling_against_own": "network bursts follow pushes more than is usual here",
    "unexplained_sessions": "active when neither the user, a push nor iOS's scheduler explains it",
    "rhythm_without_user": "in a rhythm while the device is locked",
}
"""By expert, what it says."""


def _expert(p: Parameters) -> str:
    phrase, shown = _EXPERTS[p["expert"]], ""
    if (name := p.get("feature")) is not None:
        feature = _FEATURE[name][0]
        shown = f" ({_phrase(feature)}: {quantity(p['value'], feature.unit)})"
    return f"{phrase[0].upper()}{phrase[1:]}{shown}: one benign window in {p['one_in']:,} shows as much."


_WEEKLY = {
    "newness": "the app had not contacted this host before",
    "rarity": "no other app and no other device contacts this domain",
    "volume_of_new": "a new host, contacted {rate} by the app itself",
    "steadiness_of_new": "a new host, contacted {contacts:,} times and until the report ends",
    "rise_of_new": "a new host, contacted {rate}; a host of this app usually {usual}",
    "excess_of_known": "contacted {rate} by the app itself; usual here {usual}",
}
"""By expert on weekly sums, what it says."""


def _weekly_expert(p: Parameters) -> str:
    rates = {name: f"{quantity(p[name], '1/h')} awake" for name in ("rate", "usual")}
    said = _WEEKLY[p["expert"]].format(contacts=p["contacts"], **rates)
    return f"{said[0].upper()}{said[1:]}: one benign host of an app in {p['one_in']:,} shows as much."


def _accessed(p: Parameters) -> str:
    alone = "" if p["unattended"] is None else f"; begun while the device was locked: {p['unattended']:,}"
    return f"uses of {p['category']} by the app in this report: {p['times']:,}{alone}."


def _broken(said: Callable[[Parameters], str]) -> Statement:
    return Statement(SUPPRESSION, lambda p: f"Exception {p['exception']} does not hold: {said(p)}.")


def _rounded(value: float | None, unit: str) -> str:
    return "an unknown volume" if value is None else quantity(value, unit).replace(".0 ", " ")


def _fleet_event(p: Parameters) -> str:
    first = datetime.fromisoformat(p["first_seen"])
    alerting = p["alerting_devices"]
    verb = "alerts by itself" if alerting == 1 else "alert by themselves"
    loud = f"; {alerting:,} of the devices {verb}" if alerting else ""
    return (
        f"{p['devices']:,} devices met the {p['kind']} {p['name']} for the first time together, from "
        f"{first:%Y-%m-%d %H:%M} UTC on; its windows are not ranked{loud}."
    )


def _of(kind: str, label: str, text: str) -> Statement:
    """A statement from a format string over the parameters."""
    return Statement(kind, text.format_map, label)


_unchecked = partial(_of, UNCHECKED, "Not checked")
_explains = partial(_of, EXPLANATION, "")
_silent = partial(_of, NO_ALERT, "No alert")
_blind = partial(_of, BLIND_SPOT, "Blind spot")

CATALOGUE: dict[str, Statement] = {
    "case": Statement(SUMMARY, case_sentence),
    "expert": Statement(REASON, _expert),
    "unusual_feature": Statement(REASON, _unusual),
    "app_unknown": _of(UNCHECKED, "Blind spot", "the telemetry does not say which app this is."),
    "weekly_expert": Statement(REASON, _weekly_expert),
    "weekly_sums": _unchecked("rhythm and hours of the contacts (the report holds sums of a week)."),
    "first_report": _unchecked("whether the host is new (no earlier report of this device)."),
    "accessed": Statement(CONTEXT, _accessed, "Context"),
    "presence_unknown": _unchecked(
        "whether the user was present (no activity telemetry, or no session began in the window)."
    ),
    "device_unusual": _of(
        UNCHECKED,
        "Unusual device",
        "more of this device's traffic is unusual at once than on the calibration days, so its scores are "
        "lowered by {lowered_by:.1f}; see whether its telemetry, identity or use changed.",
    ),
    "pushes_unknown": _unchecked("whether pushes started it (no push telemetry for this app)."),
    "durations_unknown": _unchecked("how long it stayed connected (no durations)."),
    "destinations_unknown": _unchecked("which hosts it contacted (the phone's own log does not name them)."),
    "slots_of_8_seconds": _unchecked(
        "a rhythm under about 16 s: the log has slots of 8 s, and such a rhythm looks like one long run."
    ),
    "exception_period": _broken(
        lambda p: (
            f"a flow every {_rounded(p['period_seconds'], 's')}, approved "
            f"{_rounded(p['min_period_seconds'], 's')} or more"
        )
    ),
    "exception_volume": _broken(
        lambda p: (
            f"{_rounded(p['bytes_per_day'], 'bytes')} a day, approved up to "
            f"{_rounded(p['max_bytes_per_day'], 'bytes')}"
        )
    ),
    "exception_hours": _broken(
        "connected in the hour from {hour:02}:00 UTC, approved {from_hour:02}:00-{to_hour:02}:00".format_map
    ),
    "exception_expired": _broken("expired on {expires}".format_map),
    "user_present": _explains("the user was present"),
    "approved_rhythm": _explains("the rhythm is approved"),
    "scheduled_by_ios": _explains("explained by iOS's scheduler"),
    "usual_for_app": _explains("usual for this app"),
    "known_to_fleet": _explains("known to the fleet"),
    "system_service": _explains("its name is that of a service of iOS or of the carrier"),
    "user_started": _explains("the user began {user_contacts:,} of {of:,} contacts"),
    "app_is_new": _explains("the app itself is new"),
    "takes_over": _explains("it replaces hosts that the app now contacts less"),
    "known_owner": _explains("the host belongs to {owner}"),
    "cadence_alone": _silent(
        "cadence alone, with under {min_beats} beats, never raises one, whatever its score."
    ),
    "below_threshold": _silent(
        "its score is below the level from which windows of its kind of telemetry alert in this run."
    ),
    "no_behaviour_stands_out": _silent(
        "it shows no behaviour within the thresholds that are set, so its score does not matter."
    ),
    "unattributed_windows": Statement(
        BLIND_SPOT,
        lambda p: (
            f"channel windows that cannot be attributed to an app: {p['windows']:,} of {p['of']:,} "
            f"({100 * p['windows'] / p['of']:.0f}%)."
        ),
        "Blind spot",
    ),
    "devices_without_activity": _blind(
        "devices that do not show whether the user was present: {devices:,} of {of:,}."
    ),
    "devices_without_pushes": _blind("devices that do not show which pushes arrived: {devices:,} of {of:,}."),
    "multiplexed_requests": _blind(
        "requests inside one HTTP/2 or QUIC connection cannot be told apart in flow records."
    ),
    "shared_processes": _blind(
        "windows of system processes that work for apps, which are not ranked: {windows:,} of {of:,}."
    ),
    "private_relay": _blind(
        "devices that use iCloud Private Relay, which hides whom they contact and how often: "
        "{devices:,} of {of:,}."
    ),
    "push_connections": _blind(
        "windows of phones' own connections to Apple's push service, one for all apps, which are not ranked: "
        "{windows:,} of {of:,}."
    ),
    "local_destinations": _blind("windows to local addresses, which are not ranked: {windows:,} of {of:,}."),
    "dns_channel": _blind(
        "{dest} got {lookups:,} DNS look-ups, all from {device}, which has {other_flows:,} other flows; "
        "look-ups are not judged, but may carry data (DNS tunnelling)."
    ),
    "new_names": _blind("{device} contacted {names:,} new hosts within an hour ({hour})."),
    "short_reports": _blind("App Privacy Reports of under two days, which cannot be judged: {reports:,}."),
    "lookups_only": _blind(
        "devices that show nothing but DNS look-ups, which are not judged: {devices:,} of {of:,}."
    ),
    "identity_changed": _of(
        BLIND_SPOT,
        "Identity changed",
        "devices whose ids changed: {renamed:,} of {of:,}; devices whose destinations lost their host names: "
        "{nameless:,}. What is new to them for that reason is no fleet event.",
    ),
    "threshold_out_of_reach": Statement(
        BLIND_SPOT,
        lambda p: (
            f"{p['threshold']} {p['p_value']:g} is below {p['min_p_value']:.2g}, the smallest p-value this "
            f"model can give, so no window can show {p['behaviour'].replace('_', ' ')}."
        ),
        "Blind spot",
    ),
    "fleet_event": Statement(FLEET_EVENT, _fleet_event, "Fleet event"),
}
"""By code."""
