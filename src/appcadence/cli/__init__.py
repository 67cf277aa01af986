"""The command line: each command is a few lines over a public function."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from appcadence._address_space import check_address_space
from appcadence._version import VERSION
from appcadence.cli.log import aloud
from appcadence.cli.options import sentence
from appcadence.cli.terminal import be_quiet, complain
from appcadence.errors import AppcadenceError

_UsageError: Any = typer.BadParameter.__bases__[0]
"""Click's, which some versions of Typer hold and others import."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"appcadence {VERSION}")
        raise typer.Exit


COMMANDS = (
    *("demo", "simulate", "convert", "readiness", "features", "train", "evaluate"),
    *("score", "report", "explain", "drift", "phone", "weekly", "serve", "deliver"),
    *("formats", "inventory", "exceptions", "models", "evidence", "verdict"),
)
"""Each is a function, or a group of commands, of its own name in a module of its own name."""


class _Commands(TyperGroup):
    """Imports a command only when it is used, so that no command waits for the imports of others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)


app = typer.Typer(
    name="appcadence",
    cls=_Commands,
    help="Finds iOS apps whose network rhythm is explained neither by the user nor by the app's purpose.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print stages and counts to standard error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only errors and the output of --json.")
    ] = False,
) -> None:
    if verbose and quiet:
        raise AppcadenceError("give --verbose or --quiet, not both")
    be_quiet(quiet)
    check_address_space()
    if verbose:
        context.with_resource(aloud())


def main() -> NoReturn:
    """Run a command; bad input ends in one sentence on standard error and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except _UsageError as error:
        if type(error).show is not _UsageError.show:  # the help, since no command was given
            error.show()
        else:
            command = error.ctx.command_path if error.ctx else "appcadence"
            complain(f"{error.format_message().rstrip('.')}; see {command} --help")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except UnicodeEncodeError as error:  # Arrow's, of a path
        complain(f"the name {error.object} is not valid UTF-8, which Parquet files need; choose another name")
        sys.exit(2)
    except Exception as error:  # whatever else a library raises is one sentence too
        known = isinstance(error, AppcadenceError | OSError | MemoryError)
        if not known and {"-v", "--verbose"} & set(sys.argv):
            raise
        complain(sentence(error))
        sys.exit(2)
