"""Text on the terminal: 80 columns, and inert under hostile names."""

import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appcadence.cli.terminal import WIDTH, number, plain, print_table, program, say, text, word
from appcadence.telemetry.listing import many

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["\x1b[31mred\x1b[0m", "[bold]x[/]", "a\u202eb", "tail\\", "[/]", "\x9b2J", "\x07\x00\r"]
)
quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def printed(capsys):
    out = capsys.readouterr().out
    assert plain(out.replace("\n", "")) == out.replace("\n", "")
    return out.splitlines()


@quiet
@given(st.lists(NAMES, max_size=30))
def test_lines_are_folded_and_inert(capsys, names):
    capsys.readouterr()
    say(" ".join(names), "- ")
    for line in printed(capsys):
        assert len(line) <= WIDTH or " " not in line[2:].strip()


def test_a_path_or_a_hash_stays_whole(capsys):
    long = "/a-very-long/" + "path-" * 30
    say(f"Written to {long} and so on")
    assert f"{long}\n" in capsys.readouterr().out


@quiet
@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**9)), min_size=1, max_size=5))
def test_tables_fit_and_are_inert(capsys, rows):
    capsys.readouterr()
    print_table([text("device"), word("kind"), number("rows")], rows)
    lines = printed(capsys)
    # A character may be as wide as two, so columns are counted in characters as an upper bound.
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split() == ["device", "kind", "rows"]


def test_numbers_have_separators_and_names_no_markup(capsys):
    print_table([text(), number("")], [("[red]a[/red]", 1234567)])
    assert capsys.readouterr().out == "[red]a[/red]  1,234,567\n"
    assert (many(1, "row"), many(0, "row"), many(2000, "row")) == ("1 row", "0 rows", "2,000 rows")


@pytest.mark.parametrize("on_path", [True, False])
def test_what_to_type_next_names_the_program_where_the_shell_finds_it(tmp_path, monkeypatch, on_path):
    script = tmp_path / "bin" / "appcadence"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(script.parent) if on_path else "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert program() == ("appcadence" if on_path else "bin/appcadence")
    monkeypatch.setattr(sys, "argv", ["/usr/lib/python/appcadence/__main__.py"])
    assert program() == "appcadence"


def test_what_to_type_next_is_the_shorter_of_both_paths(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*["folder"] * 12)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["/opt/bin/appcadence"])
    assert program() == "/opt/bin/appcadence"
