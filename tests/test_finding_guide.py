"""The guide to findings: an entry for each code and expert, and none for codes that are never used."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from appcadence.finding_guide import OF_EXPERTS, Guide, guide_of, guides, key_of
from appcadence.findings import CATALOGUE, Finding
from appcadence.models import experts, weekly

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXPERTS = {"expert": [expert.name for expert in experts.EXPERTS], "weekly_expert": weekly.EXPERTS}


def test_every_code_and_expert_has_an_entry_and_nothing_else_has():
    assert set(EXPERTS) == set(OF_EXPERTS)
    said = {code for code in CATALOGUE if code not in EXPERTS}
    said |= {f"{code}:{name}" for code, names in EXPERTS.items() for name in names}
    assert set(guides()) == said


@pytest.mark.parametrize("key", guides())
def test_an_entry_is_plain_sentences_of_its_own(key):
    guide = guides()[key]
    texts = [getattr(guide, field.name) for field in fields(Guide)]
    assert len(set(texts)) == len(texts)
    for text in texts[1:]:
        assert text.endswith(".") and text == " ".join(text.split()) and not re.search("[<>]", text)
        assert len(text) <= 500, text


def test_a_finding_finds_its_entry_whatever_its_numbers():
    rhythm = Finding("expert", {"expert": "rhythm_of_new", "value": None, "one_in": 9})
    assert key_of(rhythm) == "expert:rhythm_of_new" and guide_of(rhythm) is guides()["expert:rhythm_of_new"]
    weekly_rhythm = Finding("weekly_expert", {"expert": "newness"})
    assert guide_of(weekly_rhythm) is not guides()["expert:newness"]
    assert guide_of(Finding("user_present")) is guides()["user_present"]


def test_titles_tell_findings_apart():
    titles = [guide.title for guide in guides().values()]
    assert len(set(titles)) == len(titles)


def test_the_pages_are_those_of_the_guide():
    pages = runpy.run_path(str(DOCS / "findings.py"))["pages"]()
    assert {path.name: path.read_text() for path in (DOCS / "findings").iterdir()} == pages
    assert len(pages) == len(guides()) + 1
