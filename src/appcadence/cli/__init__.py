"""The command line: each command is a few lines over a public function."""

from __future__ import annotations

import sys

import typer

from appcadence.cli.convert import convert
from appcadence.cli.demo import demo
from appcadence.cli.drift import drift
from appcadence.cli.evaluate import evaluate
from appcadence.cli.evidence import evidence
from appcadence.cli.exceptions import exceptions
from appcadence.cli.explain import explain
from appcadence.cli.features import features
from appcadence.cli.inventory import inventory
from appcadence.cli.models import models
from appcadence.cli.options import sentence
from appcadence.cli.phone import phone
from appcadence.cli.readiness import readiness
from appcadence.cli.report import report
from appcadence.cli.score import score
from appcadence.cli.serve import serve
from appcadence.cli.simulate import simulate
from appcadence.cli.terminal import complain
from appcadence.cli.train import train
from appcadence.cli.verdict import verdict
from appcadence.cli.weekly import weekly
from appcadence.errors import AppcadenceError

app = typer.Typer(
    name="appcadence",
    help="Finds iOS apps whose network rhythm neither the user nor the app's purpose explains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, simulate, convert, readiness, features, train, evaluate, score, report, explain):
    app.command()(command)
app.command()(drift)
app.command()(phone)
app.command()(weekly)
app.command()(serve)
app.add_typer(inventory, name="inventory")
app.add_typer(exceptions, name="exceptions")
app.add_typer(models, name="models")
app.add_typer(evidence, name="evidence")
app.add_typer(verdict, name="verdict")


def main() -> None:
    """Run a command; bad input ends in one sentence on standard error and exit code 2."""
    try:
        app()
    except (AppcadenceError, OSError) as error:
        complain(sentence(error))
        sys.exit(2)
