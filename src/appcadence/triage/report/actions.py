"""What to copy once a case is understood: an exception entry, or the command that records a verdict."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path

from appcadence.models.eligibility import BEHAVIOURS
from appcadence.telemetry.schema import VERDICTS
from appcadence.triage.report_data import Row, utc_text

_TERM = timedelta(days=90)


def exception_entry(case: Row) -> str:
    """An entry of `exceptions.toml` for a case, with the texts an owner must write.

    It holds from the case's first day on for 90 days. What the entry would be refused for, such as a name
    that is no host, is refused where the file is read.
    """
    begin, fleet = case["first_time"], case["kind"].startswith("fleet")
    dests = {part["dest"] for part in case["destinations"]}
    fields = [
        ("id", _quoted(f"case-{case['id'][:12]}")),
        ("owner", _quoted("WHO ANSWERS FOR IT")),
        ("reason", _quoted("WHY THE APP DOES THIS")),
        ("business_justification", _quoted("WHY IT IS WANTED")),
        ("created", utc_text(begin, "%Y-%m-%d")),
        ("expires", utc_text(begin + _TERM // timedelta(microseconds=1), "%Y-%m-%d")),
    ]
    if not fleet:
        fields.append(("device_id", _quoted(case["device_ids"][0])))
    if case["app_id"] is not None:
        fields.append(("app_id", _quoted(case["app_id"])))
    if len(dests) == 1:
        fields.append(("destination", _quoted(*dests)))
    if case["behaviours"]:
        named = ", ".join(map(_quoted, case["behaviours"]))
        fields.append(("behaviours", f"[{named}]  # of {', '.join(BEHAVIOURS)}"))
    return "\n".join(["[[exception]]", *(f"{name} = {value}" for name, value in fields)])


def verdict_commands(out: Path, case: int) -> dict[str, str]:
    """By verdict, the command that records it on a case's windows."""
    return {
        word: (
            f"appcadence verdict add {shlex.quote(str(out))} --case {case} --verdict {word} --analyst NAME "
            '--justification "WHY"'
        )
        for word in VERDICTS.column("verdict").values
    }


def _quoted(value: str) -> str:
    """A TOML basic string; what does not print is spelled out."""
    spelled = "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in value)
    return f'"{spelled}"'
