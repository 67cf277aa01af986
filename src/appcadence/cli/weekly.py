"""weekly: App Privacy Reports judged as weekly sums."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from appcadence._files import replacing
from appcadence.cli.options import Directory, Json, check_files
from appcadence.cli.terminal import say
from appcadence.features.weekly import short_reports
from appcadence.findings import EXPLANATION, Finding, of_row
from appcadence.models.weekly import FINDINGS_PER_PHONE_WEEK, judge_reports
from appcadence.telemetry.directory import TelemetryDirectory, read_tables
from appcadence.telemetry.listing import many

_REFERENCE = (
    "There are fewer than five other devices or twenty reports of them, so simulated phones are used "
    "instead: the ranking is a first look and the budget may not hold."
)
_MAX_FINDINGS = 10
"""Findings that are printed; all of them are in --out and --json."""


def weekly(
    directory: Directory,
    findings_per_phone_week: Annotated[
        float, typer.Option(help="Benign findings to accept per phone and week.")
    ] = FINDINGS_PER_PHONE_WEEK,
    out: Annotated[Path | None, typer.Option(help="Write all judged sums to this Parquet file.")] = None,
    as_json: Json = False,
) -> None:
    """Judge App Privacy Reports as weekly sums: which app has unusually many or new contacts with a host.

    A report holds totals of seven days, so rhythm and time of day cannot be judged. Successive reports of a
    device form one history. No model and no flows are needed.

    Example: appcadence weekly telemetry --out weekly.parquet
    """
    check_files(out=out)
    source = TelemetryDirectory(directory)
    judged = judge_reports(source, findings_per_phone_week)
    short = short_reports(read_tables(source, ["contact_summaries"]))
    if out is not None:
        with replacing(out) as staged:
            pq.write_table(judged, staged, compression="zstd")
    found = judged.filter(judged["finding"])
    if as_json:
        typer.echo(json.dumps(_facts(judged, found, short), default=datetime.isoformat))
        return
    say(
        f"{many(len(judged), 'sum')} of app and host in {many(_reports(judged), 'report')} of "
        f"{many(len(judged['device_id'].unique()), 'device')}; {many(len(found), 'finding')} at "
        f"{findings_per_phone_week:g} benign ones per phone-week."
    )
    if pc.any(pc.equal(judged["calibration"], "reference")).as_py():
        say(_REFERENCE)
    if short:
        say(Finding("short_reports", {"reports": short}).text)
    if len(judged) and not len(found):
        say("The highest score, which is not a finding:")
    for row in (found if len(found) else judged[:1])[:_MAX_FINDINGS].to_pylist():
        _print(row)
    if len(found) > _MAX_FINDINGS:
        say(f"{len(found) - _MAX_FINDINGS:,} more findings: see --out or --json.")
    if out is not None:
        say(f"Written to {out}")


def _reports(judged: pa.Table) -> int:
    return len(judged.group_by(["device_id", "report_end"]).aggregate([]))


def _print(row: dict[str, Any]) -> None:
    days = f"{row['report_start']:%Y-%m-%d} to {row['report_end']:%Y-%m-%d}"
    say()
    say(f"{row['device_id']}, {days}: {row['app_id']} -> {row['dest_host']}")
    say(
        f"score {row['score']:.1f}; {row['p_value']:.1%} of benign phone-weeks have one as high; "
        f"{row['contacts']:,} contacts by the app, {row['user_contacts']:,} by the user.",
        "  ",
    )
    for finding in of_row(row):
        benign = finding.kind == EXPLANATION
        say(f"Speaks for a benign reading: {finding.text}." if benign else finding.text, "  ")


def _facts(judged: pa.Table, found: pa.Table, short: int) -> dict[str, Any]:
    rows = found.to_pylist()
    for row in rows:
        row["findings"] = [finding.as_dict() for finding in of_row(row)]
    return {
        "reports": _reports(judged),
        "short_reports": short,
        "sums": len(judged),
        "findings": rows,
    }
