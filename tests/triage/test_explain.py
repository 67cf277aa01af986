"""explain: the whole card of a window in 80 columns, inert, and one sentence where there is none."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hostile_output import DAY, HOSTILE, HOUR, written
from make import flows
from typer.testing import CliRunner

from appcadence.cli import app, main
from appcadence.errors import AppcadenceError
from appcadence.findings import Finding
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.triage.explain import case_lines, explain, facts, lines
from appcadence.triage.next_steps import contain, look
from appcadence.triage.report.page import write_report


@pytest.fixture
def out(tmp_path):
    return written(tmp_path / "out")


def run(*words):
    done = CliRunner().invoke(app, ["explain", *map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_says_all_that_is_known_in_80_columns(out):
    said = run(out, "--rank", 1)
    rows = said.splitlines()
    assert max(map(len, rows)) <= 80 and "\u202e" not in said
    assert rows[0].startswith("Rank 1: <script>alert(1)</script>")
    together = " ".join(said.split())
    for fact in (
        "Score 3.20, p 0.004, alert",
        "288 flows in 288 beats and 288 sessions; observed for 24.0 h; app known from: exact.",
        "structured cadence (p 0.01)",
        "Speaks for a benign reading: - known to",
        "Reasons: - Median of the gaps between session starts: 5.0 min; usual here 60.0 min.",
        "Could not be checked: - Not checked: whether pushes started it",
    ):
        assert fact in together
    assert said.count("Not checked") == 1
    assert any(line.split() == ["session_mode_share", "10%", "90%", "+2.50"] for line in rows)
    assert [line.split() for line in rows if "device_shift" in line] == [["device_shift", "-1.50"]]
    # 12 sessions an hour; in front from 8 to 9, unlocked from 7 to the end.
    assert f"{'+' * 24}  sessions" in said
    assert f"{'.' * 8}={'.' * 15}  foreground" in said
    assert f"{'.' * 7}{'=' * 17}  unlocked" in said
    assert f"1+++{'.' * 20}  pushes" in said
    for fact in (
        "36 of 36 pushes were followed by a session start within 31 s (24 by chance, too many to tell",
        "App in the inventory: <script>alert(1)</script>",
        "managed, not approved. Declared purpose: <script>alert(1)</script>",
        "Ask the owner of the managed app <script>alert(1)</script>",
        "whether it is meant to contact <script>alert(1)</script>",
        "alone declares) on a steady beat.",
    ):
        assert fact in together


def test_unknown_app_and_device_without_activity(out):
    said = run(out, "--rank", 2)
    assert "device_shift" not in said  # it was not lowered
    assert said.startswith("Rank 2: (unknown app) -> 203.0.113.9\n")
    assert f"...{'1' * 21}  sessions" in said and "No activity telemetry" in said


def test_a_week_has_a_line_a_day_and_long_names_are_wrapped(out):
    window = explain(out, 1)
    sessions = [(DAY + 25 * HOUR, DAY + 26 * HOUR), (DAY + 25 * HOUR, DAY + 25 * HOUR)]
    row = window.row | {"window_end": DAY + 7 * 24 * HOUR, "dest": "x" * 300}
    week = replace(window, row=row, sessions=sessions, starts=[], presence={}, context={})
    said = lines(week)
    days = [line for line in said if line.endswith("  sessions")]
    assert len(days) == 7 and days[1] == f"  2026-03-03 00:00  .2{'.' * 22}  sessions"
    assert max(map(len, said)) <= 80
    assert lines(replace(week, sessions=[]))[-1] == "No sessions are kept of this window."
    assert facts(week)["pushes"] is None and facts(week)["push_lag"] is None and facts(week)["app"] == {}


def test_json_holds_the_row_the_sessions_and_presence(out):
    found = json.loads(run(out, "--rank", 1, "--json"))
    assert found["device_id"] == HOSTILE and found["rank"] == 1 and found["alert"] is True
    assert found["window_start"] == "2026-03-02T00:00:00.000000Z"
    assert len(found["sessions"]) == 288
    assert found["sessions"][0] == ["2026-03-02T00:00:00.000000Z", "2026-03-02T00:00:02.000000Z"]
    assert len(found["pushes"]) == 36 and found["pushes"][0] == "2026-03-02T00:59:59.000000Z"
    assert found["push_lag"] == {"pushes": 36, "answered": 36, "by_chance": 24.0, "reach_seconds": 31.0}
    assert found["app"]["declared_purpose"] == HOSTILE and found["ask"].startswith(
        "Ask the owner of the managed"
    )
    assert found["presence"]["app_foreground"] == [
        ["2026-03-02T08:00:00.000000Z", "2026-03-02T09:00:00.000000Z"]
    ]


@pytest.mark.parametrize("rank", [0, 4, -1, 10**30])
def test_a_rank_that_does_not_exist_is_one_sentence(out, monkeypatch, capsys, rank):
    with pytest.raises(AppcadenceError, match="its ranks are 1 to 3"):
        explain(out, rank)
    monkeypatch.setattr("sys.argv", ["appcadence", "explain", str(out), "--rank", str(rank)])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and f"no window of rank {rank};" in error


def drawn(out, spans, length=24 * HOUR):
    """The sessions' cells of a window of one day, or shorter."""
    window = explain(out, 1)
    row = window.row | {"window_end": DAY + length}
    said = lines(replace(window, row=row, sessions=spans, presence={}, context={}))
    return [line.split()[-2] for line in said if line.endswith("  sessions")]


@pytest.mark.parametrize(
    ("span", "cells"),
    [
        ((0, HOUR), [0]),  # it ends where the next part begins
        ((0, HOUR + 1), [0, 1]),
        ((HOUR - 1, HOUR + 1), [0, 1]),
        ((HOUR, HOUR), [1]),  # of no length
        ((HOUR - 1, HOUR), [0]),
        ((0, 0), [0]),
        ((22 * HOUR + 1, 24 * HOUR), [22, 23]),  # to midnight
        ((24 * HOUR - 1, 24 * HOUR - 1), [23]),
        ((23 * HOUR, 30 * HOUR), [23]),
        ((24 * HOUR, 25 * HOUR), []),
        ((-HOUR, -1), []),
        ((-HOUR, 0), []),
        ((-HOUR, 1), [0]),
        ((-HOUR, HOUR), [0]),
        ((-HOUR, 99 * HOUR), list(range(24))),
    ],
)
def test_a_session_fills_the_cells_that_it_touches(out, span, cells):
    (row,) = drawn(out, [(DAY + span[0], DAY + span[1])])
    assert row == "".join("1" if k in cells else "." for k in range(24))


def test_a_window_of_six_hours_has_cells_of_a_quarter_of_an_hour(out):
    quarter = HOUR // 4
    spans = [(DAY + 5 * quarter, DAY + 6 * quarter), (DAY + 23 * quarter, DAY + 24 * quarter)]
    assert drawn(out, spans, 6 * HOUR) == ["." * 5 + "1" + "." * 17 + "1"]


def test_ten_sessions_in_a_cell_are_a_plus(out):
    (row,) = drawn(
        out, [(DAY + k, DAY + k) for k in range(9)] + [(DAY + HOUR + k, DAY + HOUR) for k in range(10)]
    )
    assert row == "9+" + "." * 22


def test_every_day_of_a_window_has_its_own_cells(out):
    rows = drawn(out, [(DAY + 24 * HOUR - 1, DAY + 24 * HOUR), (DAY + 47 * HOUR, DAY + 49 * HOUR)], 72 * HOUR)
    assert rows == ["." * 23 + "1", "." * 23 + "1", "1" + "." * 23]


def a_case(**more):
    full = {"case": 8, "severity": "low", "status": "new", "kind": "fleet_destination", "app_id": None}
    full |= {"device_ids": ["d1", "d2"], "alert_days": ["2026-03-02"], "behaviours": [], "addresses": []}
    full |= {"ports": [], "record_ids": [], "first_time": DAY, "last_time": DAY + HOUR}
    full |= {"destinations": [{"dest": "c2.example", "alert": True}], "n_destinations": 1}
    return full | {"findings": [Finding("presence_unknown")]} | more


def test_a_case_names_the_exceptions_that_hold_back_more_of_it():
    said = " ".join(case_lines(a_case(exception_ids=["EX-1", "EX-2"]), None))
    assert "Under exceptions: more of its windows (EX-1, EX-2)." in said


def test_a_fleet_event_is_told_by_its_name_and_days_are_counted():
    said = case_lines(a_case(), None)
    assert said[0] == "Case 8, low, new: c2.example on 2 devices" and "Alerts on 2026-03-02." in said
    single = a_case(kind="destination", device_ids=["d1"], alert_days=["2026-03-02", "2026-03-03"])
    said = case_lines(single, None)
    assert said[0] == "Case 8, low, new: (unknown app) on device d1"
    assert "Alerts on 2 days, 2026-03-02 to 2026-03-03." in said


@pytest.mark.parametrize(("ids", "said"), [([], "the records of that time"), (["C1"], "the records above")])
def test_records_are_above_only_where_they_are(ids, said):
    (kept,) = [x for x in contain(a_case(kind="app", app_id="com.a", record_ids=ids), {}) if "evidence" in x]
    assert said in kept


@pytest.mark.parametrize(("loud", "more"), [(1, ""), (7, " and 2 more"), (0, " and 25 more")])
def test_no_more_destinations_are_counted_than_are_meant(loud, more):
    places = [{"dest": f"h{k}", "alert": k < loud} for k in range(20)]
    said = look(a_case(kind="app", app_id="com.a", destinations=places, n_destinations=30))[0]
    assert said == f"Destination: {', '.join(f'h{k}' for k in range(min(loud or 5, 5)))}{more}"


def test_numbers_of_a_contribution_stand_apart(out):
    window = explain(out, 1)
    row = {"feature": "beats_per_hour", "value": 9.714, "expected": 0.31234, "contribution": 1.5}
    table = [t for t in lines(replace(window, row=window.row | {"contributions": [row]})) if "beats_per" in t]
    assert table[0].split() == ["beats_per_hour", "9.71", "an", "hour", "0.312", "an", "hour", "+1.50"]


@pytest.mark.parametrize(
    ("app", "what"), [(None, "was also contacted"), ("com.a", "also contacted c2.example")]
)
def test_a_case_says_on_which_days_its_destination_was_contacted_without_an_alert(
    fleet_model, tmp_path, app, what
):
    day = 86400.0
    starts = [*np.arange(5 * day, 6 * day, 300.0), 6 * day + 1e4, 6 * day + 4e4]
    beacon = flows(starts, "phone-03", app, "c2.example")
    score_directory({"flows": beacon}, Scorer.load(fleet_model), tmp_path / "out")
    said = f"Without an alert, it {what} on 2026-03-08 (2 flows)."
    shown = run(tmp_path / "out", "--case", 1)
    assert "Alerts on 2026-03-07." in shown and said in shown
    write_report(tmp_path / "out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said in page and page.count("Without an alert, it") == 1


def test_no_name_is_broken_at_a_hyphen(out):
    window = explain(out, 1)
    name = "-".join(["part"] * 12) + ".example"
    for before in range(0, 60, 7):
        row = window.row | {"app_id": "a" * before, "dest": name}
        assert any(name in line for line in lines(replace(window, row=row)))
