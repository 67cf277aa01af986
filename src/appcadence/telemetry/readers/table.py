"""Any table of flows (CSV or Parquet), or any other log with one flow per record, read with a mapping file:
`--format table --map map.toml`.

    [columns]                      # ours = the file's; only these are read
    start = "begin_time"
    end = "end_time"               # or duration_seconds
    device_id = "client"
    dest_host = "fqdn"             # of a URL only the host is kept
    dest_port = "port"
    bytes_out = "tx"
    outcome = "action"

    [constants]                    # ours = the value for all rows
    transport = "tcp"
    source = "gateway"

    [values.outcome]               # word in the file = ours
    allow = "established"
    deny = "failed"

    [time]
    format = "iso"                 # iso, epoch (a count from 1970), cocoa (a count from 2001, as in Core
                                   # Data), or a strptime pattern such as "%d.%m.%Y %H:%M:%S"
    unit = "s"                     # of epoch and cocoa: s, ms, us, ns
    offset = "+00:00"              # for times without one of their own
    resolution_seconds = 1.0       # default: what the times show

    [units]
    bytes = "B"                    # B, kB, MB, KiB, MiB
    duration = "s"                 # s, ms, us, ns, min, h

    [file]
    delimiter = ","

These are the keys of the declared formats (docs/formats.md has all of them), so a mapping may also say that
the file is JSON, key=value, CEF or LEEF (`[file] syntax`).

CSV has one header line and no line ends inside values; it may be packed with gzip. `device_id` is used as it
is (`--devices` maps it) and all rows count. With `--local-net` it must hold addresses, and only those inside
the networks count. A missing outcome is "unknown". The format is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from appcadence._parquet import open_parquet
from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.readers import Batches, ReadOptions, _declared, _flows, _lines
from appcadence.telemetry.readers._declaration import Declaration
from appcadence.telemetry.readers._lines import Rows

NAME = "table"

_EXPECTED = "a table as CSV with a header line, or as Parquet"
_BATCH_ROWS = 250_000


def sniff(path: Path, start: bytes) -> bool:
    """Never: a table is only read with a mapping file."""
    return False


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows and rejected rows (for Parquet, the line is the row number).

    Raises:
        TelemetryError: there is no mapping, or it is faulty.
        UnusableFile: a file is missing, empty, damaged, lacks a column of the mapping, or is older than any
            iPhone.
    """
    if options.mapping is None:
        raise TelemetryError("the format 'table' needs a mapping file; give one in TOML", "mapping")
    mapped = Declaration.read(options.mapping)
    if options.device_id is None and "device_id" not in {*mapped.columns, *mapped.constants}:
        raise TelemetryError(f"{options.mapping}: [columns] must say which column is device_id")
    if mapped.one_direction:
        raise TelemetryError(f"{options.mapping}: rules.one_direction is for built-in formats only")
    for path in paths:
        start = _lines.head(path, _EXPECTED)
        if start.startswith(b"PAR1"):
            found, parsed = mapped, _parquet(path, mapped)
        else:
            layout = next(
                (one for one in mapped.layouts if not _declared.why_not(one, start)), mapped.layouts[0]
            )
            found, parsed = _declared.parse(path, _EXPECTED, mapped, layout, start)
        finish = partial(_declared.finished, declared=found, options=options, name=NAME)
        yield from _flows.flows_of(path, parsed, finish, options, first=_flows.FIRST_IPHONE)


def _parquet(path: Path, mapped: Declaration) -> Iterator[Rows]:
    try:
        with open_parquet(path) as file:
            chosen = _declared.choose(path, "", mapped, file.schema_arrow.names)
            size, row = path.stat().st_size, 1
            for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(set(chosen.values()))):
                table = pa.table({ours: batch[theirs] for ours, theirs in chosen.items()})
                table.validate(full=True)  # nothing has checked yet that its text is valid
                yield Rows(table, np.arange(row, row + len(batch)), len(batch), size=size)
                row, size = row + len(batch), 0
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise UnusableFile(f"{path} is not a readable Parquet file ({reason})", path) from None
