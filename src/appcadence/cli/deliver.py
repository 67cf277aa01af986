"""deliver: send alerts to a SIEM, as 'appcadence score' does after scoring."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from appcadence._inputs import open_input, parsed_json
from appcadence.cli.options import Json, Output, check_directories
from appcadence.cli.terminal import complain, say
from appcadence.errors import AppcadenceError
from appcadence.serving.run import unreadable
from appcadence.telemetry.listing import many
from appcadence.triage import receivers
from appcadence.triage.delivery import Delivered
from appcadence.triage.delivery import deliver as deliver_documents
from appcadence.triage.receivers import Receiver

_ALERTS = "alerts.ecs.jsonl"

SyslogOption = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="Send alerts by syslog, RFC 5424 over TCP; or udp://HOST:PORT."),
]
WebhookOption = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="POST alerts there as ECS JSON, one case per request.")
]
AllowRemote = Annotated[bool, typer.Option("--allow-remote", help="Allow receivers on other machines.")]
SpoolOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory for sent and waiting alerts.  [default: spool beside OUT]"),
]


def receivers_of(
    syslog: list[str] | None, webhook: list[str] | None, allow_remote: bool, spool: Path | None, out: Path
) -> tuple[list[Receiver], Path]:
    """The receivers and the spool that the options name, checked before any work.

    Raises:
        AppcadenceError: a receiver is invalid or remote, or the spool cannot be written.
    """
    found: list[Receiver] = [receivers.syslog(text, allow_remote=allow_remote) for text in syslog or ()]
    found += [receivers.webhook(text, allow_remote=allow_remote) for text in webhook or ()]
    place = spool or out.parent / "spool"
    if found:
        check_directories(spool=place)
    elif spool is not None or allow_remote:
        raise AppcadenceError("there is no receiver to send to; name one", "syslog")
    return found, place


def delivered(out: Path, to: list[Receiver], spool: Path) -> Delivered:
    """Send the alerts in an output. Failures are warnings, since the output is complete.

    Raises only what reading the output raises.
    """
    try:
        return deliver_documents(_alerts(out), to, spool)
    except AppcadenceError as error:
        return Delivered(problems=[str(error)])


def say_delivered(done: Delivered, spool: Path) -> None:
    """Print one line on the result, and a warning for each problem."""
    say(f"{many(done.sent, 'alert')} sent, {done.waiting:,} waiting in {spool}, {done.unsure:,} unsure.")
    warn(done)


def warn(done: Delivered) -> None:
    """Print to standard error what went wrong and what to do about it."""
    for problem in done.problems:
        complain(f"warning: {problem}")
    if done.unsure:
        complain(
            f"warning: {many(done.unsure, 'alert')} may or may not have reached the receiver; look there "
            "and send what is missing again: appcadence deliver OUT --resend-unsure"
        )


def deliver(
    out: Output,
    syslog: SyslogOption = None,
    webhook: WebhookOption = None,
    allow_remote: AllowRemote = False,
    spool: SpoolOption = None,
    resend_unsure: Annotated[
        bool,
        typer.Option(
            "--resend-unsure", help="Also send alerts that may have arrived before, so perhaps twice."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Send the new and raised cases of an output to a SIEM, after those that wait in the spool.

    Each case is sent to a receiver at most once, however often this runs. Sending takes at most a minute.
    Cases that could not be sent wait in the spool and are sent first the next time; the exit code is still 0.

    Example: appcadence deliver scored --syslog 127.0.0.1:6514
    """
    to, place = receivers_of(syslog, webhook, allow_remote, spool, out)
    if not to:
        raise AppcadenceError("there is no receiver to send to; name one", "syslog")
    done = deliver_documents(_alerts(out), to, place, resend_unsure=resend_unsure)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        warn(done)
    else:
        say_delivered(done, place)


def _alerts(out: Path) -> Iterable[dict[str, Any]]:
    """The ECS documents of an output."""
    file = out / _ALERTS
    try:
        with open_input(file) as stream:
            return [parsed_json(line) for line in stream]
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
