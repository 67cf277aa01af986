"""Library errors name arguments, the command line options; and the two are told apart."""

import ast
import re
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import appcadence
from appcadence.cli import app
from appcadence.cli.options import option_of, sentence
from appcadence.errors import AppcadenceError, BundleError, EvidenceError, TelemetryError, UnusableFile

SOURCES = Path(appcadence.__file__).parent
LIBRARY = [file for file in SOURCES.rglob("*.py") if SOURCES / "cli" not in file.parents]
ERRORS = {error.__name__ for error in (AppcadenceError, BundleError, EvidenceError, TelemetryError)}


def options(command=None):
    """All options of all commands."""
    command = command or typer.main.get_command(app)
    found = {option for parameter in command.params for option in parameter.opts}
    names = command.list_commands(None) if hasattr(command, "commands") else ()
    return found.union(*(options(command.get_command(None, name)) for name in names))


def named_arguments():
    """(file, argument) of every error of the library that names an argument."""
    for file in LIBRARY:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = [word.value for word in node.keywords if word.arg == "argument"]
            if node.func.id in ERRORS:
                given += node.args[1:2]
            yield from ((file.name, value.value) for value in given if isinstance(value, ast.Constant))


def test_every_argument_that_an_error_names_has_an_option():
    known, named = options(), set(named_arguments())
    assert {("nightly.py", "out"), ("train.py", "search_trials"), ("_device_log.py", "device_id")} <= named
    assert not {(file, name) for file, name in named if option_of(name) not in known}


def test_no_error_of_the_library_names_an_option_of_the_command_line():
    known = options()
    for file in LIBRARY:
        raised = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Raise)]
        parts = (part for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant))
        for text in (str(part.value) for part in parts):
            found = re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
            assert known.isdisjoint(found), f"{file.name}: {text}"


def test_the_command_line_adds_the_option():
    assert (
        sentence(TelemetryError("out exists; choose another", "out")) == "out exists; choose another (--out)"
    )
    assert sentence(UnusableFile("no format", Path("f"), argument="mapping")) == "no format (--map)"
    assert sentence(AppcadenceError("no argument mends it")) == "no argument mends it"


def test_a_message_is_one_line_that_can_be_printed():
    assert str(AppcadenceError("a\u00a0b\u202ec\n\ue000d\udcff")) == "a?b?c ?d?"


@given(st.text())
def test_an_error_names_its_argument_whatever_it_quotes(name):
    assert sentence(TelemetryError(f"{name} --out", "until")).endswith(" --out (--until)")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.log"), "a.log: No such file or directory"),
        (OSError("two\nlines"), "two lines"),
    ],
)
def test_an_error_of_the_system_names_the_file(error, said):
    assert sentence(error) == said
