"""The command line: each command is a few lines over a public function."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from appcadence._version import VERSION
from appcadence.cli.convert import convert
from appcadence.cli.deliver import deliver
from appcadence.cli.demo import demo
from appcadence.cli.drift import drift
from appcadence.cli.evaluate import evaluate
from appcadence.cli.evidence import evidence
from appcadence.cli.exceptions import exceptions
from appcadence.cli.explain import explain
from appcadence.cli.features import features
from appcadence.cli.formats import formats
from appcadence.cli.inventory import inventory
from appcadence.cli.log import aloud
from appcadence.cli.models import models
from appcadence.cli.options import sentence
from appcadence.cli.phone import phone
from appcadence.cli.readiness import readiness
from appcadence.cli.report import report
from appcadence.cli.score import score
from appcadence.cli.serve import serve
from appcadence.cli.simulate import simulate
from appcadence.cli.terminal import be_quiet, complain
from appcadence.cli.train import train
from appcadence.cli.verdict import verdict
from appcadence.cli.weekly import weekly
from appcadence.errors import AppcadenceError

_UsageError: Any = typer.BadParameter.__bases__[0]
"""Click's, which some versions of Typer hold and others import."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"appcadence {VERSION}")
        raise typer.Exit


app = typer.Typer(
    name="appcadence",
    help="Finds iOS apps whose network rhythm neither the user nor the app's purpose explains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell stages and counts on standard error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors and what --json asks for.")
    ] = False,
) -> None:
    if verbose and quiet:
        raise AppcadenceError("give --verbose or --quiet, not both")
    be_quiet(quiet)
    if verbose:
        context.with_resource(aloud())


for command in (demo, simulate, convert, readiness, features, train, evaluate, score, report, explain):
    app.command()(command)
app.command()(drift)
app.command()(phone)
app.command()(weekly)
app.command()(serve)
app.command()(deliver)
app.add_typer(formats, name="formats")
app.add_typer(inventory, name="inventory")
app.add_typer(exceptions, name="exceptions")
app.add_typer(models, name="models")
app.add_typer(evidence, name="evidence")
app.add_typer(verdict, name="verdict")


def main() -> None:
    """Run a command; bad input ends in one sentence on standard error and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except _UsageError as error:
        if type(error).show is not _UsageError.show:  # it is the help, for want of a command
            error.show()
        else:
            command = error.ctx.command_path if error.ctx else "appcadence"
            complain(f"{error.format_message().rstrip('.')}; see {command} --help")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:  # the last edge: whatever a file makes a library raise is one sentence, too
        known = isinstance(error, AppcadenceError | OSError | MemoryError)
        if not known and {"-v", "--verbose"} & set(sys.argv):
            raise
        complain(sentence(error))
        sys.exit(2)
