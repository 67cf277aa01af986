"""What to copy once a window is understood: an exception entry, or the command that records a verdict."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path

from appcadence.triage.report_data import Row, utc_text

_TERM = timedelta(days=90)


def exception_entry(row: Row) -> str:
    """An entry of `exceptions.toml` for a window, with the texts an owner must write.

    It holds from the window's day on for 90 days. What the entry would be refused for, such as a name that
    is no host, is refused where the file is read.
    """
    day = row["window_start"]
    fields = [
        ("id", _quoted(f"window-{utc_text(day, '%Y-%m-%d')}-{row['rank']}")),
        ("owner", _quoted("WHO ANSWERS FOR IT")),
        ("reason", _quoted("WHY THE APP DOES THIS")),
        ("business_justification", _quoted("WHY IT IS WANTED")),
        ("created", utc_text(day, "%Y-%m-%d")),
        ("expires", utc_text(day + _TERM // timedelta(microseconds=1), "%Y-%m-%d")),
        ("device_id", _quoted(row["device_id"])),
    ]
    if row["app_id"] is not None:
        fields.append(("app_id", _quoted(row["app_id"])))
    if row["dest"] != "*":
        fields.append(("destination", _quoted(row["dest"])))
    if row["behaviours"]:
        fields.append(("behaviours", f"[{', '.join(map(_quoted, row['behaviours']))}]"))
    return "\n".join(["[[exception]]", *(f"{name} = {value}" for name, value in fields)])


def verdict_command(out: Path, rank: int) -> str:
    """The command that records a decision on the window of a rank."""
    return (
        f"appcadence verdict add {shlex.quote(str(out))} --rank {rank} "
        '--verdict VERDICT --analyst NAME --justification "WHY"'
    )


def _quoted(value: str) -> str:
    """A TOML basic string; what does not print is spelled out."""
    spelled = "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in value)
    return f'"{spelled}"'
