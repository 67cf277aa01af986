"""Runs the notebooks and saves them with what they print and plot; `make notebooks` runs it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

PLACE = Path(__file__).resolve().parent


def executed(path: Path, place: Path) -> nbformat.NotebookNode:
    """The notebook as it is after a run in a directory, without what differs from run to run."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


if __name__ == "__main__":
    for path in sorted(PLACE.glob("*.ipynb")):
        with TemporaryDirectory() as place:
            nbformat.write(executed(path, Path(place)), path)
