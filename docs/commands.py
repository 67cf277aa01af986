"""Writes docs/commands.md, every command and option, from the commands' own help; `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from appcadence.cli import app

HEAD = """# Commands

Written by `make docs` from the commands' own help; `appcadence COMMAND --help` says the same. Bad input
ends in one sentence and exit code 2.
"""


def page() -> str:
    return HEAD + "".join(_sections("appcadence", typer.main.get_command(app)))


def _sections(name: str, command: Any) -> Iterator[str]:
    """A section for the command, or for each below it."""
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield f"\n## {name}\n\n{_text(command.help)}\n\n| argument or option | |\n|---|---|\n"
        shown = (parameter for parameter in command.params if not getattr(parameter, "hidden", False))
        yield from map(_row, shown)
    for part in command.list_commands(None) if hasattr(command, "commands") else ():
        yield from _sections(f"{name} {part}", command.get_command(None, part))


def _text(text: str) -> str:
    """Paragraphs of one line each; an example as code."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(
        f"Example: `{part.removeprefix('Example: ')}`" if part.startswith("Example: ") else _escaped(part)
        for part in paragraphs
    )


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    name = ", ".join(names) if parameter.param_type_name == "option" else parameter.name.upper()
    default = parameter.default
    notes = " Required." if parameter.required else ""
    if default not in (None, (), []) and not isinstance(default, bool) and not callable(default):
        notes = f" Default: `{default}`."
    return f"| `{name}` | {_escaped(' '.join((parameter.help or '').split()))}{notes} |\n"


def _escaped(text: str) -> str:
    for mark in ("\\", "|", "*", "_", "<", "["):
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
