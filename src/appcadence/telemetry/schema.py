"""The canonical tables, declared once; validation, empty tables and documentation derive from here.

All times are UTC with microsecond resolution. A nullable column may be absent from a file; it then
reads as all null. Null means "not known", never zero and never "no".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import SchemaError

TIME = pa.timestamp("us", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
"""Type of identifiers and enumerations: few distinct values, many rows."""
MAX_NAME = 255
"""Characters of the longest identifier; readers reject longer ones, and files with them are refused."""
_END_OF_TIME = 4_102_444_800_000_000
"""The year 2100, in microseconds; times in logs lie between 1970 and this."""
_RANGES = {
    "duration_seconds": (0.0, 31 * 86_400.0),
    "time_resolution_seconds": (0.0, 2.0**31),
    **dict.fromkeys(("dest_port", "device_port"), (0, 65_535)),
    **dict.fromkeys(("bytes_out", "bytes_in", "size_bytes", "hits"), (0, 2**63 - 1)),
}
"""Ranges of numbers, by column."""
_IDENTIFIERS = ("device_id", "app_id", "source_app_id", "dest_host", "dest_ip", "dest", "service", "source")


@dataclass(frozen=True)
class Column:
    """One column of a canonical table."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    values: tuple[str, ...] = ()
    """Allowed values of an enumeration; empty = any."""


@dataclass(frozen=True)
class Table:
    """One canonical table: its name, what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @property
    def when(self) -> str:
        """The name of its first time column."""
        return next(c.name for c in self.columns if c.type == TIME)

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)

    def empty(self) -> pa.Table:
        return self.schema.empty_table()

    def of(self, columns: Mapping[str, Sequence[object]]) -> pa.Table:
        """The table made from columns of plain values; times may be microseconds since 1970."""
        types = {c.name: pa.string() if c.type == NAME else c.type for c in self.columns}
        arrays = {name: pa.array(column, types[name]) for name, column in columns.items()}
        return conform(self, pa.table(arrays))

    def of_rows(self, rows: Sequence[Mapping[str, object]]) -> pa.Table:
        """The table made from rows of plain values, each with all columns; see `of`."""
        return self.of({c.name: [row[c.name] for row in rows] for c in self.columns})


_DEVICE = Column("device_id", NAME, "the monitored device")
_APP = Column("app_id", NAME, "bundle id of the app; null where the source cannot attribute", nullable=True)
_SOURCE_APP = Column(
    "source_app_id",
    NAME,
    "id as the source gave it, if it is that of a part of the app (an extension, a topic); else null",
    nullable=True,
)
_SOURCE = Column("source", NAME, "the kind of log the row comes from")
_RESOLUTION = Column("time_resolution_seconds", pa.float64(), "resolution of the source's times", "s")

FLOWS = Table(
    "flows",
    "one connection or datagram exchange opened by a monitored device",
    (
        Column("start", TIME, "when the flow started"),
        Column("duration_seconds", pa.float64(), "how long it lasted", "s", nullable=True),
        _DEVICE,
        _APP,
        Column(
            "app_attribution",
            NAME,
            "how the source knows the app",
            values=("exact", "process", "display_name", "none"),
        ),
        Column("dest_host", NAME, "destination host name, lower case", nullable=True),
        Column(
            "dest_host_source",
            NAME,
            "observed in the flow itself, or passive: tied to the address by other records",
            nullable=True,
            values=("observed", "passive"),
        ),
        Column("dest_ip", NAME, "destination address", nullable=True),
        Column("dest_port", pa.int32(), "destination port", nullable=True),
        Column("device_port", pa.int32(), "the device's own port", nullable=True),
        Column("transport", NAME, "transport protocol", nullable=True, values=("tcp", "udp")),
        Column("service", NAME, "application protocol: tls, quic, http, apns, dns, ntp ...", nullable=True),
        Column("outcome", NAME, "whether it succeeded", values=("established", "failed", "unknown")),
        Column("bytes_out", pa.int64(), "payload bytes sent by the device", "bytes", nullable=True),
        Column("bytes_in", pa.int64(), "payload bytes received by the device", "bytes", nullable=True),
        _RESOLUTION,
        _SOURCE,
        Column("source_uid", pa.string(), "the source's own id of the flow", nullable=True),
        _SOURCE_APP,
    ),
)

ACTIVITY = Table(
    "activity",
    "one interval of device or app state",
    (
        _DEVICE,
        _APP,
        Column(
            "kind",
            NAME,
            "the state",
            values=("app_foreground", "device_unlocked", "screen_on", "low_power", "charging"),
        ),
        Column("start", TIME, "when it began"),
        Column("end", TIME, "when it ended; null = it still holds", nullable=True),
        _SOURCE,
        _RESOLUTION,
        _SOURCE_APP,
    ),
)

NOTIFICATIONS = Table(
    "notifications",
    "one push or notification event",
    (
        _DEVICE,
        _APP,
        Column("time", TIME, "when it happened; if coarse, the earliest time that the stamp can mean"),
        Column(
            "kind",
            NAME,
            "what happened",
            values=(
                "push_received",
                "notification_shown",
                "notification_opened",
                "apns_keepalive",
                "apns_connected",
                "background_transfer",
            ),
        ),
        Column("priority", pa.int8(), "APNs priority: 10 at once, 5 power-conserving", nullable=True),
        Column("content_available", pa.bool_(), "a silent (background) push", nullable=True),
        Column("size_bytes", pa.int64(), "size of the payload", "bytes", nullable=True),
        _SOURCE,
        _RESOLUTION,
        _SOURCE_APP,
    ),
)

INVENTORY = Table(
    "inventory",
    "what one app declares and who approved it, as of one snapshot",
    (
        Column("app_id", NAME, "bundle id"),
        Column("device_id", NAME, "device; null = fleet-wide", nullable=True),
        Column("app_name", NAME, "display name", nullable=True),
        Column("version", NAME, "app version", nullable=True),
        Column("managed", pa.bool_(), "installed by device management", nullable=True),
        Column("approved", pa.bool_(), "approved for use", nullable=True),
        Column("category", NAME, "App Store category", nullable=True),
        Column("declared_purpose", NAME, "purpose in the owner's words", nullable=True),
        Column("background_modes", pa.list_(pa.string()), "of extensions too; null = unknown", nullable=True),
        Column("push_entitled", pa.bool_(), "may register for pushes", nullable=True),
        Column("expected_hosts", pa.list_(pa.string()), "hosts it is expected to contact", nullable=True),
        Column(
            "expected_period_seconds",
            pa.float64(),
            "shortest period at which the app may talk by itself, above 0",
            "s",
            nullable=True,
        ),
        Column("snapshot_time", TIME, "time of the snapshot"),
    ),
)

USAGE = Table(
    "usage",
    "bytes of one app over one interval, all its destinations together",
    (
        _DEVICE,
        Column("app_id", NAME, "bundle id, or the name of a process that has none"),
        Column("start", TIME, "start of the interval"),
        Column("end", TIME, "end of the interval"),
        Column("bytes_out", pa.int64(), "bytes sent by the device", "bytes"),
        Column("bytes_in", pa.int64(), "bytes received by the device", "bytes"),
        _SOURCE,
    ),
)

TASKS = Table(
    "tasks",
    "one run of background work that iOS had scheduled for an app",
    (
        _DEVICE,
        Column("app_id", NAME, "bundle id, or the name of a process that has none"),
        Column("start", TIME, "when it began"),
        Column("end", TIME, "when it ended"),
        _SOURCE,
    ),
)

COVERAGE = Table(
    "coverage",
    "one span in which a log that shows no destinations would have recorded any flow",
    (_DEVICE, Column("start", TIME, "its start"), Column("end", TIME, "its end"), _SOURCE),
)

CONTACT_SUMMARIES = Table(
    "contact_summaries",
    "the App Privacy Report's aggregate of one app and host; never a flow",
    (
        _DEVICE,
        Column("app_id", NAME, "bundle id"),
        Column("dest_host", NAME, "host name or literal address"),
        Column("first_seen", TIME, "first contact of the report's span"),
        Column("last_seen", TIME, "most recent contact"),
        Column("hits", pa.int64(), "contacts in the span"),
        Column("initiated", NAME, "who started the contacts", values=("app", "user")),
        Column("dest_owner", NAME, "owner of the host", nullable=True),
        Column("report_start", TIME, "first time in the report, within its last 7 days", nullable=True),
        Column("report_end", TIME, "last time in the report", nullable=True),
    ),
)

ACCESSES = Table(
    "accesses",
    "one use of a sensor or of private data by an app: what and when, nothing else",
    (
        _DEVICE,
        Column("app_id", NAME, "bundle id"),
        Column("category", NAME, "what was used: location, microphone, camera, contacts, photos ..."),
        Column("start", TIME, "when it began"),
        Column("end", TIME, "when it ended; null = not known", nullable=True),
        _SOURCE,
    ),
)

_DEST = Column("dest", NAME, "destination: host name, else address; * = all of the app")

VERDICTS = Table(
    "verdicts",
    "one analyst's decision on one window",
    (
        _DEVICE,
        _APP,
        _DEST,
        Column("window_start", TIME, "start of the window"),
        Column("window_end", TIME, "end of the window"),
        Column("verdict", NAME, "the decision", values=("malicious", "benign", "unexplained")),
        Column("analyst", NAME, "who decided"),
        Column("justification", pa.string(), "why"),
        Column("decided_at", TIME, "when"),
    ),
)

LABELS = Table(
    "labels",
    "ground truth for one channel over one interval; kept outside telemetry directories",
    (
        _DEVICE,
        _APP,
        _DEST,
        Column("start", TIME, "start of the interval"),
        Column("end", TIME, "end of the interval"),
        Column("label", NAME, "the truth", values=("malicious", "benign", "ignore")),
        Column("kind", NAME, "kind of behaviour", nullable=True),
        Column("case_id", NAME, "labels with one case are one implant, over all its hosts", nullable=True),
    ),
)

REJECTED = Table(
    "rejected",
    "one input row that could not be used",
    (
        Column("file", NAME, "name of the file"),
        Column("line", pa.int64(), "line in the file, from 1"),
        Column("reason", NAME, "what was wrong"),
    ),
)

DIRECTORY_TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *(FLOWS, ACTIVITY, NOTIFICATIONS, USAGE, TASKS, COVERAGE, INVENTORY),
        *(CONTACT_SUMMARIES, ACCESSES, VERDICTS, REJECTED),
    )
}
"""The tables a telemetry directory may hold, by name."""


def conform(
    table: Table,
    data: pa.Table | pa.RecordBatch,
    origin: str = "",
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return `data` with exactly the declared columns, order and types; `columns` picks some of them.

    Absent nullable columns become null, undeclared ones are dropped. `origin` names the file in errors.

    Raises:
        SchemaError: a required column is absent or holds nulls, a type does not fit, an enumeration holds an
            undeclared value; or in a file, an identifier is too long, or a time or number is out of range.
    """
    where = f"{origin}: " if origin else ""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    wanted = [c for c in table.columns if columns is None or c.name in columns]
    arrays = []
    for column in wanted:
        if column.name not in data.column_names:
            if not column.nullable:
                raise SchemaError(f"{where}table {table.name} lacks the required column {column.name!r}")
            arrays.append(pa.nulls(len(data), pa.null()).cast(column.type))
            continue
        arrays.append(_fit(where, table, column, data[column.name]))
    return pa.Table.from_arrays(
        arrays, schema=pa.schema([table.schema.field(column.name) for column in wanted])
    )


def _fit(where: str, table: Table, column: Column, data: pa.ChunkedArray) -> pa.ChunkedArray:
    label = f"{where}table {table.name}, column {column.name!r}"
    if where:
        try:
            data.validate(full=True)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"{label} is damaged: {error}") from None
    if where and column.type == TIME and (pa.types.is_integer(data.type) or pa.types.is_floating(data.type)):
        raise SchemaError(f"{label} holds numbers ({data.type}), whose unit is unknown; write timestamps")
    if data.type != column.type:
        try:
            if column.type == NAME:
                if not pa.types.is_dictionary(data.type):
                    data = data.cast(pa.string()).dictionary_encode()
                data = data.cast(NAME)
            else:
                data = data.cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(f"{label}: {data.type} does not fit {column.type} ({error})") from None
    if not column.nullable and data.null_count:
        raise SchemaError(f"{label}: {data.null_count} of {len(data)} values are null, but none may be")
    if where and len(data):
        _check_range(label, column, data)
    if where and column.name in _IDENTIFIERS:
        longest = max((pc.max(pc.utf8_length(c.dictionary)).as_py() or 0 for c in data.chunks), default=0)
        if longest > MAX_NAME:
            raise SchemaError(f"{label}: a name has {longest:,} characters; at most {MAX_NAME} are read")
    if column.values:
        named = {name for chunk in data.chunks for name in chunk.dictionary.to_pylist()}
        # A dictionary may hold values that no row uses, so the rows themselves decide.
        if named - set(column.values):
            found = set(pc.unique(data.cast(pa.string())).to_pylist()) - {None} - set(column.values)
            if found:
                allowed = ", ".join(column.values)
                raise SchemaError(f"{label}: {sorted(found)[0]!r} is not one of {allowed}")
    return data


def _check_range(label: str, column: Column, data: pa.ChunkedArray) -> None:
    """Raise SchemaError if times or numbers lie outside what logs contain and would overflow later."""
    times = pa.types.is_timestamp(column.type)
    low, high = (0, _END_OF_TIME) if times else _RANGES.get(column.name, (None, None))
    if low is not None:
        values = data.cast(pa.int64()) if times else data
        outside = pc.or_(pc.less(values, low), pc.greater(values, high))  # NaN is neither; it means not known
        if pc.any(outside).as_py():
            first = values.filter(outside)[0].as_py()
            span = "1970 to 2100" if times else f"{low:,} to {high:,}"
            raise SchemaError(f"{label}: {first:,} is out of range; expected {span}")
