"""HTML from the templates beside this file: names are escaped, style and script are known by their hashes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from appcadence._files import write_text
from appcadence.triage.report_data import utc_text


def inert(value: Any) -> Any:
    """A text with its invisible and direction-changing characters spelled out; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)


_TEMPLATES = Environment(
    loader=PackageLoader("appcadence.triage.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=inert,
)
_TEMPLATES.filters["words"] = lambda name: name.replace("_", " ")
_TEMPLATES.filters["utc"] = utc_text
_TEMPLATES.filters["iso"] = lambda micros: utc_text(micros, "%Y-%m-%dT%H:%M:%SZ")
_TEMPLATES.filters["slug"] = lambda key: key.replace(":", "-").replace("_", "-")
_TEMPLATES.filters["lines"] = lambda lines: Markup("\n").join(map(inert, lines))


def render(template: str, **values: Any) -> Markup:
    """A part of a page; every value that is no `Markup` is escaped and inert."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def write_page(template: str, html: Path, **values: Any) -> None:
    """Write a page that extends base.html, whole or not at all.

    Style and script are known by their hashes; nothing else may load or run, whatever a name smuggles in.

    Raises:
        AppcadenceError: `html` is no regular file.
    """
    style, script = (Markup(_source(name)) for name in ("style.css", "script.js"))
    digests = {"style_digest": _digest(style), "script_digest": _digest(script)}
    page = render(template, style=style, script=script, **digests, **values)
    write_text(html, page + "\n")


def _source(name: str) -> str:
    loader = _TEMPLATES.loader
    return loader.get_source(_TEMPLATES, name)[0] if loader else ""


def _digest(content: str) -> Markup:
    return Markup("sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode())
