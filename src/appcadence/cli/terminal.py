"""Text on the terminal: 80 columns wide, without control characters from quoted names."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

WIDTH = 80
_NAME = "appcadence"
_MAX_SPACED = 8
"""Columns of a table that still have two blanks between them."""


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Turn the output of `say`, `line` and `print_table` off, or on again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def plain(value: object) -> str:
    """The text without control characters, since names may be hostile."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def program() -> str:
    """What to type for this program: its name, or its path if the shell would not find the name."""
    path = Path(sys.argv[0])
    found = shutil.which(_NAME)
    if path.name != _NAME or path.parent == Path() or (found and Path(found).samefile(path)):
        return _NAME
    return min(os.path.relpath(path), str(path.absolute()), key=len)


def complain(line: str) -> None:
    """Print a line to standard error, unwrapped."""
    typer.echo(f"appcadence: {plain(line)}", err=True)


def say(line: object = "", indent: str = "") -> None:
    """Print a line wrapped at 80 columns; a longer word, such as a path or a hash, is not split."""
    if _quiet:
        return
    later = " " * len(indent)
    folded = textwrap.fill(
        plain(line),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    typer.echo(folded)


def line(text: str) -> None:
    """Print a line unwrapped, without control characters."""
    if not _quiet:
        typer.echo(plain(text))


def text(name: str = "", *, ratio: int | None = None) -> Column:
    """A column of text, folded if too wide; `ratio` is its share of the width that other columns leave."""
    return Column(name, overflow="fold", ratio=ratio)


def word(name: str = "") -> Column:
    """A column of short texts that are never folded."""
    return Column(name, no_wrap=True)


def number(name: str) -> Column:
    """A column of numbers."""
    return Column(name, overflow="fold", justify="right")


def print_table(columns: list[Column], rows: Iterable[Iterable[object]]) -> None:
    """Print a table at most 80 characters wide; without column names it has no header."""
    if _quiet:
        return
    table = Table(
        *columns,
        box=None,
        pad_edge=False,
        header_style="",
        show_header=any(column.header for column in columns),
        padding=(0, 2 if len(columns) <= _MAX_SPACED else 1, 0, 0),
        width=WIDTH if any(column.ratio for column in columns) else None,
    )
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else Text(plain(cell)) for cell in row))
    Console(width=WIDTH, highlight=False).print(table)
