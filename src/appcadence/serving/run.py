"""The facts of one scoring run, and what its telemetry cannot show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import recover
from appcadence._inputs import read_json
from appcadence._parquet import read_file
from appcadence._types import HOUR_US
from appcadence.config import ATTACK_NAMES, Tunables
from appcadence.errors import TelemetryError
from appcadence.features.history import History
from appcadence.findings import Finding
from appcadence.telemetry.addresses import is_local
from appcadence.telemetry.names import value_of

FILE = "run.json"
_SAID = ("blind_spots", "fleet_events")


@dataclass(frozen=True)
class Run:
    """The facts of one batch run, as in `run.json` of its output."""

    model_version: str
    window: str
    devices: int
    device_days: float
    windows: int
    scored: int
    excepted: int
    alerts: int
    alerts_per_device_day: float
    false_discovery_rate: float | None
    """The limit of alerts that replaces the budget, if set."""
    blind_spots: list[Finding]
    fleet_events: list[Finding]
    """What many devices contacted for the first time together."""
    made_at: str = ""
    """When the run was made, ISO 8601 in UTC."""
    cases: dict[str, int] = field(default_factory=dict)
    """Number of cases by status (see `triage.cases`)."""
    inputs: str = ""
    """SHA-256 over the version of appcadence, the model, the settings and every input file; empty if the
    telemetry was in memory."""
    exceptions_sha256: str = ""
    """SHA-256 of the exceptions file; empty without one."""
    tunables: dict[str, float] = field(default_factory=dict)
    """Thresholds that were set, by ATT&CK's name; the others are `config.SHOWN_P` and suppress no alert."""
    signer: str | None = None
    """The public key that signed the model; None = nobody did."""

    @property
    def limit(self) -> str:
        """The limit of its alerts, in words."""
        return limit(self.alerts_per_device_day, self.false_discovery_rate, self.tunables)

    def as_dict(self) -> dict[str, Any]:
        """The facts for JSON; findings include their text."""
        said = {name: [finding.as_dict() for finding in getattr(self, name)] for name in _SAID}
        return asdict(self) | said

    def write(self, directory: Path) -> None:
        """Write `run.json`."""
        (directory / FILE).write_text(json.dumps(self.as_dict(), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Run:
        """The facts of an output directory.

        Raises:
            TelemetryError: they are missing or damaged.
        """
        file = directory / FILE
        recover(directory)
        try:
            facts = read_json(file)
            run = cls(**facts | {name: [*map(Finding.from_dict, facts[name])] for name in _SAID})
            counts = (run.devices, run.windows, run.scored, run.excepted, run.alerts)
            numbers = (*counts, run.device_days, run.alerts_per_device_day)
            texts = (run.model_version, run.window, run.inputs, run.exceptions_sha256)
            sound = all(isinstance(n, int | float) for n in numbers)
            sound = sound and all(isinstance(text, str) for text in texts)
            sound = sound and isinstance(run.false_discovery_rate, float | None)
            sound = sound and isinstance(run.signer, str | None)
            sound = sound and isinstance(run.tunables, dict) and all(map(_is_threshold, run.tunables.items()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise unreadable(file, error) from None
        if not sound:
            raise TelemetryError(f"{file} is not the file of a run; run 'appcadence score' again")
        return run


def last_run(out: Path) -> Run | None:
    """The facts of the run that made an output; None if there is none or they cannot be read."""
    recover(out)
    try:
        return Run.read(out) if (out / FILE).is_file() else None
    except TelemetryError:
        return None


def read_table(
    file: Path, columns: list[str] | None = None, filters: Any = None, read_dictionary: Sequence[str] = ()
) -> pa.Table:
    """A table of an output directory, or some of its columns; arguments as in `pq.read_table`.

    Raises:
        TelemetryError: the file is unreadable, or lacks a column.
    """
    try:
        found = read_file(file, columns=columns, filters=filters, read_dictionary=read_dictionary)
        return found if columns is None else found.select(columns)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable(file, error) from None


def unreadable(file: Path, error: Exception) -> TelemetryError:
    """The error for a file of an output directory that cannot be read, or for what is no output."""
    out = file.parent
    if isinstance(error, FileNotFoundError) and not (out / FILE).exists():
        found = f"holds no {FILE}" if out.exists() else "does not exist"
        return TelemetryError(f"{out} {found}; expected the output of 'appcadence score'")
    reason = " ".join(str(error).split())
    return TelemetryError(f"{file} is unreadable ({reason}); run 'appcadence score' again")


def _is_threshold(item: tuple[str, Any]) -> bool:
    name, value = item
    return name in ATTACK_NAMES.values() and isinstance(value, float) and 0 < value <= 1


def limit(budget: float, rate: float | None, tunables: Mapping[str, float]) -> str:
    """A budget or, if given, a false discovery rate, and thresholds by ATT&CK's name, in words."""
    kept = f"a budget of {budget:g} a device-day" if rate is None else f"a false discovery rate of {rate:g}"
    return ", ".join([kept, *(f"{name} {value:g}" for name, value in tunables.items())])


def out_of_reach(tunables: Tunables, benign: Mapping[str, Sized]) -> list[Finding]:
    """Thresholds below every p-value that a model can produce.

    Args:
        tunables: the thresholds.
        benign: by behaviour, the benign scores that its p-values are computed from.
    """
    least = {name: 1 / (len(scores) + 1) for name, scores in benign.items()}
    return [
        Finding(
            "threshold_out_of_reach",
            {
                "threshold": ATTACK_NAMES[name],
                "behaviour": name,
                "p_value": float(most),
                "min_p_value": least[name],
            },
        )
        for name, most in tunables.bounds.items()
        if ATTACK_NAMES[name] in tunables.chosen and most < least[name]
    ]


def unranked(code: str, windows: int, of: int) -> list[Finding]:
    """The finding on windows that are not ranked, if any; `code` gives the reason."""
    return [Finding(code, {"windows": windows, "of": of})] if windows else []


def blind_spots(
    channels: int, unattributed: int, devices: int, with_activity: int, with_pushes: int
) -> list[Finding]:
    """Findings on what the telemetry cannot show.

    Args:
        channels: number of channel windows; `unattributed` of them have no app.
        devices: number of devices with flows; `with_activity` and `with_pushes` of them have such telemetry.
    """
    found = []
    if unattributed:
        found.append(Finding("unattributed_windows", {"windows": unattributed, "of": channels}))
    for code, known in (("devices_without_activity", with_activity), ("devices_without_pushes", with_pushes)):
        if known < devices:
            found.append(Finding(code, {"devices": devices - known, "of": devices}))
    return [*found, Finding("multiplexed_requests")]


_RELAY = re.compile(r"mask(-[a-z0-9]+)?\.(icloud\.com|apple-dns\.net)")
"""Apple, "Prepare your network for iCloud Private Relay" (read 2026-11)."""


def relayed(scores: pa.Table) -> list[Finding]:
    """The finding on devices with windows to iCloud Private Relay, if there are any."""
    inside = value_of(scores["dest"], lambda dest: _RELAY.fullmatch(dest) is not None, False)
    devices, through = (
        pc.count_distinct(who).as_py()
        for who in (scores["device_id"], scores["device_id"].filter(pa.array(inside)))
    )
    return [Finding("private_relay", {"devices": through, "of": devices})] if through else []


COLUMNS = ("device_id", "dest_host", "dest_ip", "service")
MIN_LOOKUPS = 1000
MIN_LOOKUPS_PER_FLOW = 3.0
"""A flow needs up to three look-ups of its host name (two addresses, HTTPS)."""
MIN_NEW_NAMES = 5000
"""Within an hour; the busiest hour of a phone in use has some hundreds."""
_MAX_SAID = 10


def lookup_findings(pieces: Iterable[Callable[[], pa.Table]]) -> list[Finding]:
    """Findings on DNS look-ups: possible channels, and the number of devices without any other flows.

    A possible channel is a destination beyond the local network that only one device asks, at least a
    thousand times and more often than its other flows need names. At most ten are given, most asked first.
    `pieces` read the columns `COLUMNS` of a flows table, in parts.
    """
    counts = [_counts(piece()) for piece in pieces]
    if not counts:
        return []
    keys = ["device_id", "dest"]
    whole = pa.concat_tables(counts).group_by(keys, use_threads=False).aggregate([("n", "sum")]).to_pandas()
    lookups = whole["dest"].notna()
    flows = whole[~lookups].set_index("device_id")["n_sum"]
    asked = whole[lookups]
    asked = asked.assign(flows=flows.reindex(asked["device_id"]).fillna(0).to_numpy(np.int64))
    alone = ~asked["dest"].duplicated(keep=False)
    many = (asked["n_sum"] >= MIN_LOOKUPS) & (asked["n_sum"] > MIN_LOOKUPS_PER_FLOW * asked["flows"])
    remote = np.array([not is_local(dest) for dest in asked["dest"]], np.bool_)
    devices, without = whole["device_id"].nunique(), set(asked["device_id"]) - set(flows.index)
    only = [Finding("lookups_only", {"devices": len(without), "of": devices})] if without else []
    order = ["n_sum", "device_id", "dest"]
    found = asked[alone & many & remote].sort_values(order, ascending=[False, True, True])
    return only + [
        Finding(
            "dns_channel",
            {
                "device": row.device_id,
                "dest": row.dest,
                "lookups": int(row.n_sum),
                "other_flows": int(row.flows),
            },
        )
        for row in found.head(_MAX_SAID).itertuples()
    ]


def _counts(flows: pa.Table) -> pa.Table:
    """Counts of look-ups by device and destination, and of other flows by device with a null destination."""
    text = pa.string()
    host, address = (flows[name].cast(text) for name in ("dest_host", "dest_ip"))
    lookup = pc.fill_null(pc.equal(flows["service"].cast(text), "dns"), False)
    dest = pc.if_else(lookup, pc.coalesce(host, address, pa.scalar("unknown")), pa.scalar(None, text))
    table = pa.table({"device_id": flows["device_id"].cast(text), "dest": dest})
    counted = table.group_by(["device_id", "dest"], use_threads=False).aggregate([([], "count_all")])
    return counted.rename_columns(["device_id", "dest", "n"])


def made_up_names(after: History, since_us: int) -> list[Finding]:
    """Findings on devices with at least `MIN_NEW_NAMES` new destinations in one clock hour, most first.

    Args:
        after: the history that includes the scored windows.
        since_us: microseconds since the epoch; earlier contacts were reported by earlier runs.
    """
    rows = after.contacts.loc[after.contacts["first_seen"] >= since_us, ["device_id", "dest", "first_seen"]]
    met = rows.groupby(["device_id", "dest"], as_index=False)["first_seen"].min()
    met["hour"] = met["first_seen"].to_numpy(np.int64) // HOUR_US
    hours = met.groupby(["device_id", "hour"]).size().reset_index(name="names")
    hours = hours[hours["names"] >= MIN_NEW_NAMES]
    hours = hours.sort_values(["names", "device_id"], ascending=[False, True]).drop_duplicates("device_id")
    return [
        Finding(
            "new_names",
            {
                "device": row["device_id"],
                "names": row["names"],
                "hour": f"{pd.Timestamp(row['hour'] * HOUR_US, unit='us'):%Y-%m-%d %H:%M} UTC",
            },
        )
        for row in hours.head(_MAX_SAID).to_dict("records")
    ]
