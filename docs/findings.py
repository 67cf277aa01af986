"""Writes docs/findings/, a page for each finding, from the guide in the package; `make docs` runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from appcadence.finding_guide import guides
from appcadence.findings import (
    BLIND_SPOT,
    CATALOGUE,
    CONTEXT,
    EXPLANATION,
    FLEET_EVENT,
    NO_ALERT,
    REASON,
    SUMMARY,
    SUPPRESSION,
    UNCHECKED,
)

PAGES = Path(__file__).with_suffix("")
KINDS = {
    SUMMARY: "What happened",
    REASON: "Why a window ranks where it does",
    UNCHECKED: "What could not be checked",
    EXPLANATION: "What speaks for the benign reading",
    SUPPRESSION: "Why an exception does not hold",
    NO_ALERT: "Why there is no alert",
    CONTEXT: "Context, which is not judged",
    BLIND_SPOT: "What the telemetry cannot show",
    FLEET_EVENT: "What the fleet met together",
}
HEAD = """# A page for each finding

Written by `make docs` from `appcadence/finding_guide.toml`. Codes and parameters, for programs:
[findings.md](../findings.md).
"""


def pages() -> dict[str, str]:
    """By file name, every page."""
    out, index = {}, [HEAD]
    for kind, title in KINDS.items():
        index.append(f"\n## {title}\n")
        for key, guide in guides().items():
            code = key.partition(":")[0]
            if CATALOGUE[code].kind != kind:
                continue
            name = f"{key.replace(':', '-')}.md"
            index.append(f"- [{guide.title}]({name}): `{key}`")
            out[name] = (
                f"# {guide.title}\n\n`{key}`: {title[:1].lower()}{title[1:]}.\n\n{guide.means}\n\n"
                f"## How it is computed\n\n{_linked(guide.computed)}\n\n"
                f"## When it is wrong\n\n{guide.wrong}\n\n## What to do\n\n{_linked(guide.act)}\n\n"
                "[All findings](index.md)\n"
            )
    return out | {"index.md": "\n".join(index) + "\n"}


def _linked(text: str) -> str:
    return text.replace("features.md", "[features.md](../features.md)")


if __name__ == "__main__":
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir()
    for name, text in pages().items():
        (PAGES / name).write_text(text)
