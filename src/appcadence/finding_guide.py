"""The guide to findings: what each means, how it is computed, when it is wrong, what to do.

The report and the documents' pages show these texts; no decision reads them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from appcadence.findings import Finding

GUIDE_FILE = "finding_guide.toml"
OF_EXPERTS = ("expert", "weekly_expert")
"""Codes that have an entry for each expert."""


@dataclass(frozen=True)
class Guide:
    """What to know of one finding; plain text."""

    title: str
    means: str
    computed: str
    wrong: str
    act: str


@cache
def guides() -> dict[str, Guide]:
    """By key (see `key_of`), in the order of the file."""
    text = files("appcadence").joinpath(GUIDE_FILE).read_text("utf-8")
    return {key: Guide(**entry) for key, entry in tomllib.loads(text).items()}


def key_of(finding: Finding) -> str:
    """The finding's code, with its expert if it is of one: `expert:newness`."""
    return f"{finding.code}:{finding.parameters['expert']}" if finding.code in OF_EXPERTS else finding.code


def guide_of(finding: Finding) -> Guide:
    """What to know of a finding."""
    return guides()[key_of(finding)]
