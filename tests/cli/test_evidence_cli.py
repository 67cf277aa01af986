"""Evidence and verdicts on a real run, as a person types them: score, decide, verify, report, train."""

import csv
import json
import shutil
from datetime import UTC, date, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from make import fleet
from typer.testing import CliRunner

from appcadence.cli import app, main
from appcadence.errors import EvidenceError
from appcadence.findings import Finding
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.triage import audit_log
from appcadence.triage.audit_report import report, run_facts

AT = datetime(2026, 3, 6, 1, tzinfo=UTC)
MULTIPLEXED = Finding("multiplexed_requests").as_dict()
HOSTILE = "\x1b[31m[bold]x[/]\u202e"


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    assert "\x1b" not in done.output and "\u202e" not in done.output
    return done.output


def fails(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["appcadence", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


def narrow(text):
    return max(map(len, text.splitlines())) <= 80


@pytest.fixture(scope="module")
def scored(fleet_model, tmp_path_factory):
    """A directory with telemetry, a model and one scored output."""
    path = tmp_path_factory.mktemp("run")
    write_directory(path / "telemetry", fleet(devices=6, days=4))
    (path / "model").symlink_to(fleet_model)
    score_directory(path / "telemetry", Scorer.load(path / "model"), path / "scored")
    return path


@pytest.fixture
def place(scored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("telemetry", "model", "scored"):
        (tmp_path / name).symlink_to(scored / name)
    return tmp_path


def test_the_facts_of_a_run_are_those_of_its_scores(place):
    (place / "exceptions.toml").write_text("")
    facts = run_facts(
        place / "scored",
        model="model",
        exceptions=["b", "a"],
        exceptions_file=place / "exceptions.toml",
    )
    scores = pq.read_table(place / "scored" / "scores.parquet").to_pandas()
    assert facts["windows"] == len(scores) == sum(facts["status"].values())
    assert facts["alerts"] == scores["alert"].sum() == len(facts["alerting"])
    assert facts["apps"] == sorted(scores["app_id"].dropna().unique())
    assert facts["exceptions"]["in_force"] == ["a", "b"] and facts["exceptions"]["file_sha256"].startswith(
        "e3b0c4"
    )
    assert facts["model"]["bundle"] == Scorer.load("model").version and facts["model"]["given"] == "model"
    assert sorted(facts["days"]) == [f"2026-03-0{d}" for d in (2, 3, 4, 5)]
    # The slow twin: observed seconds once a device and window, windows and alerts counted row by row.
    twin, once = {}, set()
    for row in scores.itertuples():
        entry = twin.setdefault(str(row.window_start.date()), {}).setdefault(row.device_id, [0.0, 0, 0])
        if (row.device_id, row.window_start) not in once:
            once.add((row.device_id, row.window_start))
            entry[0] += row.observed_seconds / 3600
        entry[1] += 1
        entry[2] += int(row.alert)
    assert {d: {k: [round(v[0], 4), *v[1:]] for k, v in m.items()} for d, m in twin.items()} == facts["days"]
    hours = sum(v[0] for devices in facts["days"].values() for v in devices.values())
    assert hours / 24 == pytest.approx(facts["device_days"], abs=1e-3)
    audit_log.append("e.jsonl", "run", facts, AT)
    assert audit_log.verify("e.jsonl").lines == 1


def test_only_exceptions_that_hold_on_a_scored_day_are_in_force(place):
    """The windows are those of 2026-03-02 to 05."""
    spans = {
        "expired": ("2026-01-01", "2026-03-01"),
        "first": ("2026-01-01", "2026-03-02"),
        "last": ("2026-03-05", "2099-01-01"),
        "later": ("2026-03-06", "2099-01-01"),
    }
    said = 'owner = "o"\nreason = "r"\nbusiness_justification = "b"\napp_id = "com.none"\n'
    entries = [
        f'[[exception]]\nid = "{name}"\n{said}created = {created}\nexpires = {expires}\n'
        for name, (created, expires) in spans.items()
    ]
    (place / "e.toml").write_text("".join(entries))
    shutil.copytree(place / "scored", place / "copy")
    run("score", "--out", "copy", "--reapply", "--exceptions", "e.toml", "--evidence", "e.jsonl")
    (line,) = map(json.loads, (place / "e.jsonl").read_text().splitlines())
    assert line["facts"]["exceptions"]["in_force"] == ["first", "last"]
    (week,) = report(place / "e.jsonl", date(2026, 3, 2), date(2026, 3, 8)).weeks
    assert [*week.exceptions] == ["first", "last"]


def _facts(days, **more):
    return {
        "days": days,
        "model": {"name": "appcadence", "given": "m", "bundle": "b" * 64},
        "exceptions": {"in_force": [], "windows": {}},
        "thresholds": {"alerts_per_device_day": 1.0, "false_discovery_rate": None},
        "blind_spots": [],
    } | more


def _without_pushes(devices):
    return Finding("devices_without_pushes", {"devices": devices, "of": 9}).as_dict()


@pytest.fixture
def log(place):
    """Three runs over a turn of the year (2027-01-01 is in 2026-W53), one day twice, and decisions."""
    whole = [24.0, 5, 1]
    runs = [
        _facts({"2026-12-31": {"d1": whole, "d2": [12.0, 3, 0]}}, blind_spots=[_without_pushes(3)]),
        _facts(
            {"2027-01-01": {"d1": [2.0, 1, 0]}, "2027-01-04": {"d3": whole}},
            exceptions={"in_force": [HOSTILE, "vpn"], "windows": {"vpn": 4}},
            blind_spots=[_without_pushes(4)],
        ),
        _facts({"2027-01-01": {"d1": [24.0, 6, 3]}}, blind_spots=[_without_pushes(5), MULTIPLEXED]),
    ]
    for day, facts in enumerate(runs):
        audit_log.append("e.jsonl", "run", facts, AT + timedelta(days=day))
    for verdict, day in (("benign", 1), ("malicious", 4), ("benign", 4)):
        audit_log.append("e.jsonl", "decision", {"verdict": verdict}, datetime(2027, 1, day, 23, tzinfo=UTC))
    return place / "e.jsonl"


def test_report_counts_each_day_of_a_device_once(log):
    first, second, third = report(log, date(2026, 12, 28), date(2027, 1, 17)).weeks
    assert (first.week, second.week, third.week) == ("2026-W53", "2027-W01", "2027-W02")
    assert (first.runs, first.days, first.devices, first.device_days) == (3, 2, 2, 2.5)
    assert (first.hours, first.alerts) == (24 + 12 + 24, 1 + 3)
    assert first.decisions == {"malicious": 0, "benign": 1, "unexplained": 0}
    assert second.decisions == {"malicious": 1, "benign": 1, "unexplained": 0}
    assert (second.runs, second.days, second.device_days, third.runs, third.days) == (1, 1, 1, 0, 0)
    spots = [(spot.as_dict(), runs) for spot, runs in first.blind_spots]
    assert spots == [(_without_pushes(5), 3), (MULTIPLEXED, 1)]
    assert second.exceptions == {HOSTILE: 0, "vpn": 4} and not third.exceptions
    assert first.models == {f"appcadence {'b' * 64}": 3}
    (alone,) = report(log, date(2027, 1, 1), date(2027, 1, 1)).weeks
    assert (alone.device_days, alone.hours, alone.runs) == (1.0, 24.0, 2)


@pytest.mark.parametrize("hours", ["24", None, [1.0]])
def test_hours_that_are_no_number_are_one_sentence(place, hours):
    audit_log.append("e.jsonl", "run", _facts({"2027-01-01": {"d1": [hours, 1, 0]}}), AT)
    with pytest.raises(EvidenceError, match="line 1 does not hold the facts"):
        report("e.jsonl", date(2027, 1, 1), date(2027, 1, 1))


def test_report_as_text_and_json(log, monkeypatch, capsys):
    said = run("evidence", "report", log, "--from", "2026-12-28", "--to", "2027-01-17")
    (coverage,) = (line.split() for line in said.partition("Alerting")[0].splitlines() if "W53" in line)
    assert coverage == ["2026-W53", "3", "2", "2", "2.5", "60"]  # runs, days, devices, device-days, hours
    assert narrow(said) and "2027-W02" in said and "?[31m[bold]x[/]?" in said
    answer = json.loads(
        run("evidence", "report", log, "--from", "2027-01-01", "--to", "2027-01-01", "--json")
    )
    assert answer["weeks"][0]["hours"] == 24.0 and answer["lines"] == 6 and answer["first"] == "2027-01-01"
    words = ("evidence", "report", log, "--from", "2027-01-02", "--to", "2027-01-01")
    assert "before the first" in fails(monkeypatch, capsys, *words)
    audit_log.append(log, "run", {"days": {"2027-01-01": 3}}, AT)
    with pytest.raises(EvidenceError, match="line 7 does not hold the facts"):
        report(log, date(2027, 1, 1), date(2027, 1, 1))


def test_verify_says_what_it_cannot_know(log, monkeypatch, capsys):
    said = run("evidence", "verify", log)
    head = audit_log.verify(log).head
    assert "6 lines" in said and head in said and "does not protect" in said and narrow(said)
    audit_log.append(log, "decision", {"verdict": "benign"}, AT)
    said = run("evidence", "verify", log, "--head", head)
    assert "up to line 6" in said and "1 line after it" in " ".join(said.split()) and narrow(said)
    assert json.loads(run("evidence", "verify", log, "--head", head, "--json"))["anchored"] == 6
    content = log.read_bytes()
    log.write_bytes(content[: content[:-1].rfind(b"\n", 0, -700) + 1])
    assert "cut off its end" in fails(monkeypatch, capsys, "evidence", "verify", log, "--head", head)
    log.write_bytes(content.replace(b"malicious", b"benign   "))
    assert "line 5 was edited" in fails(monkeypatch, capsys, "evidence", "verify", log)
    assert "line 5" in fails(
        monkeypatch, capsys, "evidence", "report", log, "--from", "2027-01-01", "--to", "2027-01-01"
    )
    log.write_bytes(content[:-1])
    assert "torn" in fails(monkeypatch, capsys, "evidence", "verify", log)
    assert "nowhere" in fails(monkeypatch, capsys, "evidence", "verify", "nowhere")


@pytest.mark.slow
def test_decisions_from_rank_window_and_csv_reach_training(place):
    head = audit_log.append("e.jsonl", "run", run_facts("scored", model="model"), AT)
    base = ("verdict", "add", "--evidence", "e.jsonl", "--analyst")
    said = run(*base, "ana", "scored", "--rank", 1, "--verdict", "benign", "--justification", "VPN probe")
    assert "1 added to verdicts.parquet" in said and "disagrees" not in said
    keys = ["device_id", "app_id", "dest", "window_start", "window_end"]
    scores = pq.read_table("scored/scores.parquet", columns=[*keys, "rank"]).sort_by("rank").to_pylist()
    top = scores[0]
    named = ["--device", top["device_id"], "--dest", top["dest"]]
    named += ["--app", top["app_id"]] if top["app_id"] else []
    named += ["--start", top["window_start"].isoformat(), "--end", top["window_end"].date()]
    said = run(*base, HOSTILE, *named, "--verdict", "malicious", "--justification", HOSTILE)
    assert "disagrees with ana: benign" in said
    with open("many.csv", "w", newline="") as stream:  # noqa: PTH123
        writer = csv.writer(stream)
        writer.writerow(["rank", "score", "verdict", "justification"])
        writer.writerows([[k, 1.5, "benign" if k % 2 else "", "seen"] for k in range(1, 9)])
    answer = json.loads(run(*base, "cy", "scored", "--csv", "many.csv", "--json"))
    assert (answer["added"], answer["undecided"], answer["total"]) == (4, 4, 6)
    assert [d["analyst"] for d in answer["disagreements"]] == [HOSTILE]
    assert audit_log.verify("e.jsonl", head) == (7, answer["head"], 1)
    table = pq.read_table("verdicts.parquet")
    assert [row["device_id"] for row in table.to_pylist()[2:]] == [
        scores[k]["device_id"] for k in (0, 2, 4, 6)
    ]
    plain = Scorer.load("model").version
    trained = json.loads(run("train", "telemetry", "--verdicts", "verdicts.parquet", "--out", "m", "--json"))
    assert trained["id"] != plain
    assert run("train", "telemetry", "--out", "n", "--json") and Scorer.load("n").version == plain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scored",), "OUT and --rank"),
        (("--rank", 1), "OUT and --rank"),
        (("scored", "--rank", 1, "--device", "d"), "OUT and --rank"),
        (("scored", "--rank", 1, "--verdict", "benign", "--analyst", "a"), "--justification is missing"),
        (("--device", "d"), "--dest is missing"),
        (("--csv", "x.csv", "--rank", 1), "leave out the other options"),
        (("--csv", "nowhere.csv"), "nowhere.csv cannot be read"),
        (
            ("scored", "--rank", 10**9, "--verdict", "benign", "--analyst", "a", "--justification", "j"),
            "no window",
        ),
        (
            ("scored", "--rank", 1, "--verdict", "good", "--analyst", "a", "--justification", "j"),
            "verdict is 'good'",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(place, monkeypatch, capsys, words, said):
    assert said in fails(monkeypatch, capsys, "verdict", "add", *words)
    assert not (place / "verdicts.parquet").exists()


def test_help_shows_an_example():
    for words in (("evidence", "verify"), ("evidence", "report"), ("verdict", "add")):
        assert "Example: appcadence " in run(*words, "--help")


def test_a_verdict_in_the_telemetry_directory_is_one_of_its_tables(scored, tmp_path):
    write_directory(tmp_path / "t", fleet(devices=1, days=1))
    words = [
        "--verdict",
        "benign",
        "--analyst",
        "a",
        "--justification",
        "j",
        "--into",
        tmp_path / "t" / "verdicts.parquet",
    ]
    run("verdict", "add", scored / "scored", "--rank", 1, *words)
    source = TelemetryDirectory(tmp_path / "t")
    assert source.unknown == [] and len(source.read("verdicts")) == 1
