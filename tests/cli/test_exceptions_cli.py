"""exceptions check as a person types it."""

import datetime
import json

import pyarrow.parquet as pq
import pytest
from two_rhythms import MAIL, scored
from typer.testing import CliRunner

from appcadence.cli import app, main

EVIL = "\\u001b]0;own\\u0007[bold]x[/]\\u202e"


def entry(name, expires="2099-01-01", owner="Mail team", **more):
    values = {"id": name, "owner": owner, "reason": "Polls", "business_justification": "Staff mail"} | more
    lines = [
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
        for key, value in values.items()
    ]
    return "\n".join(["[[exception]]", *lines, "created = 2026-03-01", f"expires = {expires}", ""])


def run(*words):
    done = CliRunner().invoke(app, ["exceptions", "check", *map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert not any(c in done.output for c in "\x1b\x07\u202e")
    return done.output


def fails(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["appcadence", "exceptions", "check", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and not any(c in error for c in "\x1b\x07\u202e")
    return error


@pytest.fixture
def place(fleet_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores, measures = scored(fleet_model)
    (tmp_path / "out").mkdir()
    pq.write_table(scores, tmp_path / "out" / "scores.parquet")
    pq.write_table(measures, tmp_path / "out" / "measures.parquet")
    soon = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=5)
    (tmp_path / "exceptions.toml").write_text(
        entry("mail-poll", app_id=MAIL, min_period_seconds=900, owner=EVIL)
        + entry("mail-again-with-a-rather-long-name-that-must-be-folded-somewhere", app_id=MAIL, expires=soon)
        + entry("gone", destination="gone.example", expires="2026-03-05")
    )
    return tmp_path


def test_a_file_is_checked_without_results(place):
    said = run("exceptions.toml")
    assert "3 exceptions, the file is valid" in said and "expires in 5 d" in said and "expired" in said
    assert "covers" not in said and "[bold]x[/]" in said.replace("\n", "")
    assert max(map(len, said.splitlines())) <= 80


def test_scores_tell_what_matches_and_overlaps(place):
    before = (place / "out" / "scores.parquet").read_bytes()
    said = run("exceptions.toml", "--scores", "out")
    assert max(map(len, said.splitlines())) <= 80
    words = " ".join(said.split())
    assert "bounds broken" in words and "matches no window" in words and "already" in words
    answer = json.loads(run("exceptions.toml", "--scores", "out", "--json"))
    mail, again, gone = answer["exceptions"]
    assert (mail["covered"], mail["bounds_broken"], mail["overlaps"]) == (6, 2, {})
    assert (again["covered"], again["overlaps"]) == (2, {"mail-poll": 6})
    assert gone["matched"] == 0 and gone["notes"] == ["expired", "matches no window"]
    assert (place / "out" / "scores.parquet").read_bytes() == before


def test_what_was_created_after_the_scored_days_says_so(place):
    late, soon = (entry(name, app_id=MAIL) for name in ("late", "soon"))
    (place / "late.toml").write_text(late.replace("created = 2026-03-01", "created = 2026-04-01") + soon)
    late, soon = json.loads(run("late.toml", "--scores", "out", "--json"))["exceptions"]
    assert late["matched"] == soon["matched"] > 0 and (late["covered"], late["created_later"]) == (0, True)
    assert (late["notes"], soon["notes"]) == (["created later"], [])
    assert "created later" in run("late.toml", "--scores", "out")


def test_bad_input_is_one_sentence(place, monkeypatch, capsys):
    assert "nowhere.toml cannot be read" in fails(monkeypatch, capsys, "nowhere.toml")
    (place / "bad.toml").write_text(entry("mail", destination="*.co.uk"))
    assert "exception mail: destination '*.co.uk'" in fails(monkeypatch, capsys, "bad.toml")
    (place / "evil.toml").write_text(entry(EVIL, app_id=MAIL))
    assert "number 1" in fails(monkeypatch, capsys, "evil.toml")
    (place / "evil.toml").write_text(entry("mail", app_id=MAIL, **{f'"{EVIL}"': "x"}))
    assert "unknown key" in fails(monkeypatch, capsys, "evil.toml")
    (place / "out" / "measures.parquet").write_bytes(b"PAR1")
    assert "run 'appcadence score' again" in fails(monkeypatch, capsys, "exceptions.toml", "--scores", "out")


def test_help_has_an_example():
    done = CliRunner().invoke(app, ["exceptions", "check", "--help"])
    assert done.exit_code == 0 and "Example: appcadence exceptions check" in done.output
