"""Writes docs/api.md, the page of what may be imported, from the docstrings; `make docs` runs it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import appcadence

BESIDE = "Beside the rooms"
ROOMS = (BESIDE, "telemetry", "features", "models", "serving", "triage", "training", "cli")
SOURCES = Path(__file__).resolve().parents[1] / "src"
HEAD = """# What may be imported

Written by `make docs` from the docstrings, which say more: `help(appcadence.Scorer)`.

## The public face
`import appcadence` offers these names, and imports what is behind one when it is first used. Until version
1.0, changing one takes a new minor version and a line in `CHANGELOG.md`; from then on, a new
major version. `train` takes the extra `train`, the others take none.

"""
MODULES = """
## Modules, room by room
These may be imported for what the face does not offer, and may change with every minor version, with a line
in the changelog. A module or name that begins with an underscore may change any day. So may `appcadence.cli`:
what can be relied on there is the command line itself.

Rooms import one way: telemetry <- features <- models <- serving <- triage, with training beside serving and
triage; `appcadence.nightly` composes serving and triage, and the command line may use all.
"""


def module_names() -> dict[str, Path]:
    """Every module and package without a part that begins with an underscore, and its file."""
    names = {}
    for file in sorted(SOURCES.rglob("*.py")):
        parts = file.relative_to(SOURCES).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            names[".".join(parts)] = file
    return names


def page() -> str:
    faces = [(name, inspect.getdoc(getattr(appcadence, name))) for name in appcadence.__all__]
    text = HEAD + _rows("name", faces) + MODULES
    rooms: dict[str, list[tuple[str, str | None]]] = {title: [] for title in ROOMS}
    for name, file in module_names().items():
        _, *rest = name.split(".")
        room = rest[0] if rest and rest[0] in ROOMS else BESIDE
        rooms[room].append((name, ast.get_docstring(ast.parse(file.read_text()))))
    return text + "".join(f"\n### {room}\n{_rows('module', found)}" for room, found in rooms.items())


def _rows(kind: str, documented: list[tuple[str, str | None]]) -> str:
    lines = [f"| {kind} | what it is |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {_first(doc)} |" for name, doc in documented]) + "\n"


def _first(docstring: str | None) -> str:
    """The first paragraph on one line."""
    return " ".join((docstring or "").split("\n\n")[0].split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
