"""score: the batch job."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer

from appcadence._extras import require, require_java
from appcadence._files import scratch
from appcadence.cli.deliver import (
    AllowRemote,
    SpoolOption,
    SyslogOption,
    WebhookOption,
    delivered,
    receivers_of,
    say_delivered,
    warn,
)
from appcadence.cli.evidence import anchored
from appcadence.cli.loading import load_scorer, signed_by
from appcadence.cli.log import logged
from appcadence.cli.options import AnchorOption, ExpectModel, Json, Log, check_directories, check_files
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import line, program, say
from appcadence.config import Config, locate, read
from appcadence.errors import AppcadenceError
from appcadence.nightly import score_directory
from appcadence.serving.batch import Engine, local
from appcadence.serving.run import Run, last_run
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import many
from appcadence.telemetry.times import stated
from appcadence.triage.audit_log import append as append_evidence
from appcadence.triage.audit_report import recorded, run_facts
from appcadence.triage.case_state import CASES_FILE, read_cases
from appcadence.triage.cases import STATUSES
from appcadence.triage.output import in_force
from appcadence.triage.output import reapply as reapply_exceptions
from appcadence.triage.report_data import Output

_MAX_EVENTS = 10
"""Most fleet events to print; all of them are in the output."""
_MAX_CASES = 10
_REFERENCE = (
    "No --model was given, so the reference model was used. It was trained on simulated fleets and knows "
    "nothing about these devices: the ranking is a first look and the alert budget may not hold. Train on "
    "your own logs."
)
_REPORTED = "App Privacy Reports are judged separately, as weekly sums: appcadence weekly"


def score(
    out: Annotated[Path, typer.Option(help="The output directory.")],
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="A telemetry directory.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A bundle directory, or an MLflow URI such as models:/appcadence@champion.  [default: the "
            "reference model, which knows nothing about your apps]"
        ),
    ] = None,
    expect_model: ExpectModel = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings, as TOML; other options override them.  [default: appcadence.toml in DIR "
            "or beside it]"
        ),
    ] = None,
    alerts_per_device_day: Annotated[
        float | None, typer.Option(help="Alert budget: benign alerts per device-day.  [default: 1.0]")
    ] = None,
    false_discovery_rate: Annotated[
        float | None, typer.Option(help="Instead of the budget: the share of alerts that may be benign.")
    ] = None,
    exceptions: Annotated[Path | None, typer.Option(help="Documented exceptions, as TOML.")] = None,
    reapply: Annotated[
        bool, typer.Option("--reapply", help="Only apply other exceptions to OUT; without DIR and --model.")
    ] = False,
    history: Annotated[
        Path | None, typer.Option(help="OUT of the previous run, or its history.parquet.")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="A verdicts file; what it calls benign counts as known.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Score windows that begin at this time or later: 2026-03-02, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Score windows that begin before this time.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="The evidence file to add to.  [default: OUT.evidence.jsonl]")
    ] = None,
    anchor: AnchorOption = None,
    engine: Annotated[
        Literal["local", "spark"], typer.Option(help="Where to compute: this machine, or Spark.")
    ] = "local",
    syslog: SyslogOption = None,
    webhook: WebhookOption = None,
    allow_remote: AllowRemote = False,
    spool: SpoolOption = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Score the windows of a telemetry directory.

    Writes to OUT, completely or not at all: scores.parquet, cases.parquet, the alerts (CSV for all cases; ECS
    and OCSF JSON lines for cases that are new or more severe since the run given by --history),
    history.parquet, and the data for 'appcadence report'. Start a killed run again to resume it. An output
    that was made with the same telemetry, model and settings is left unchanged. Memory: about 80 MB per core,
    140 bytes per channel and 60 per window; scratch beside OUT: 60 bytes per flow, 1 kB per window.

    --engine spark uses the session given by spark-submit or PYSPARK_SUBMIT_ARGS, or else this machine's
    cores; every worker must see DIR under the same path. The output is identical byte for byte,
    but for the time at which it was made. A killed Spark run starts from the beginning.

    Example: appcadence score telemetry --model model --out scored
    """
    if reapply == (directory is not None) or (reapply and (model or expect_model)):
        raise AppcadenceError("give a telemetry directory, or --reapply without a directory and --model")
    asked = (config, alerts_per_device_day, false_discovery_rate, history, verdicts, since, until)
    if reapply and (engine != "local" or any(option is not None for option in asked)):
        raise AppcadenceError("--reapply keeps the settings of OUT; give only --exceptions with it")
    file = evidence or out.with_name(f"{out.name}.evidence.jsonl")
    check_directories(out=out)
    receivers, place = receivers_of(syslog, webhook, allow_remote, spool, out)
    check_files(evidence=file, anchor=anchor)
    before = last_run(out)
    notes = []
    with logged(log), progress_bar() as progress:
        if directory is None:
            run, _ = reapply_exceptions(out, exceptions)
        else:
            weekly = _has_reports(directory)
            given = config or locate(directory)
            settings = Config() if given is None else read(given)
            alerts = settings.alerts.over(alerts_per_device_day, false_discovery_rate)
            scorer = load_scorer(model, expect_model, settings.model.trusted_keys)
            run = score_directory(
                directory,
                scorer,
                out,
                alerts_per_device_day=alerts.alerts_per_device_day,
                false_discovery_rate=alerts.false_discovery_rate,
                tunables=settings.tunables,
                local_destinations=settings.ranking.local_destinations,
                history=history,
                verdicts=verdicts,
                since=_moment("--since", since),
                until=_moment("--until", until),
                exceptions=exceptions,
                engine=local if engine == "local" else _spark(),
                progress=progress,
            )
            notes += [] if given is None else [f"Settings from {given}."]
            notes += [_REFERENCE if model is None else signed_by(scorer)]
        head = _record(out, run, file, anchor, model, exceptions)
    sent = delivered(out, receivers, place) if receivers else None
    if as_json:
        more = {} if sent is None else {"delivered": asdict(sent)}
        typer.echo(json.dumps(run.as_dict() | {"out": str(out), "evidence_head": head} | more))
        if sent is not None:
            warn(sent)
        return
    for note in notes:
        say(note)
    if run == before:
        say(f"{out} was made from the same telemetry, model and settings; nothing to do.")
    print_run(run, out)
    if directory is not None and weekly:
        say(f"{_REPORTED} {directory}")
    if head is not None:
        say(f"Evidence added to {file}; its head:")
        say(head)
    if sent is not None:
        say_delivered(sent, place)


def _has_reports(directory: Path) -> bool:
    """Whether telemetry holds App Privacy Reports beside its flows; a directory without flows is refused."""
    tables = TelemetryDirectory(directory).tables()
    reports = "contact_summaries" in tables
    if reports and "flows" not in tables:
        raise AppcadenceError(f"{directory} holds no flows. {_REPORTED} {directory}")
    return reports


def _record(
    out: Path, run: Run, evidence: Path, anchor: Path | None, model: str | None, exceptions: Path | None
) -> str | None:
    """Add a run to the evidence, and return the new head; None if it was recorded before.

    The next run thus records one that was killed right after its output.
    """
    with scratch(evidence, wait=True):
        if recorded(evidence, out):
            return None
        facts = run_facts(
            out,
            model=model or run.model_version,
            exceptions=in_force(out, exceptions),
            exceptions_file=exceptions,
        )
        if last_run(out) != run:
            raise AppcadenceError(f"{out} was replaced by another run before this one was recorded")
        head = append_evidence(evidence, "run", facts, datetime.now(UTC))
        anchored(anchor, evidence, head)
    return head


def _spark() -> Engine:
    require("spark", "pyspark")
    if not os.environ.keys() & {"SPARK_REMOTE", "PYSPARK_GATEWAY_PORT"}:
        require_java()
    from appcadence.serving.spark import engine

    return engine()


def _moment(option: str, text: str | None) -> pd.Timestamp | None:
    """A day or moment, in UTC unless it names a zone."""
    if text is None:
        return None
    return pd.Timestamp(stated(text, option), unit="us", tz="UTC")


def print_run(run: Run, out: Path) -> None:
    """The facts of a run and its first ten cases."""
    cases = read_cases(out / CASES_FILE)
    alerts = Output(out).alerts(cases.select(["kind", "status", "alerting_devices"]).to_pylist())
    excepted = f", {run.excepted:,} more are under exceptions" if run.excepted else ""
    say(
        f"{many(run.windows, 'window')} of {many(run.devices, 'device')} over {run.device_days:,.1f} "
        "device-days; "
        f"{run.scored:,} had enough evidence{excepted}; {alerts} at {run.limit}."
    )
    for finding in run.fleet_events[:_MAX_EVENTS]:
        say(finding.text)
    if len(run.fleet_events) > _MAX_EVENTS:
        say(f"... and {many(len(run.fleet_events) - _MAX_EVENTS, 'more fleet event')}.")
    for finding in run.blind_spots:
        say(finding.text)
    by_status = [many(run.cases[name], f"{name} case") for name in STATUSES if run.cases.get(name)]
    shown = f"; the first {_MAX_CASES}:" if len(cases) > _MAX_CASES else ":" if len(cases) else "."
    say(f"{', '.join(by_status) or 'No case'}{shown}")
    columns = ["case", "severity", "status", "device_ids", "app_id", "summary"]
    for case in cases.select(columns).slice(0, _MAX_CASES).to_pylist():
        devices = case["device_ids"]
        device = devices[0] if len(devices) == 1 else many(len(devices), "device")
        app = case["app_id"] or ("(unknown app)" if len(devices) == 1 else "")
        say(f"{case['case']:>4}  {case['severity']:<6}  {case['status']:<10}  {device}  {app}".rstrip())
        say(case["summary"], "      ")
    say(f"Written to {out}; next:")
    line(f"  {program()} report {shlex.quote(str(out))} --html report.html")
