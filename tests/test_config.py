"""Settings from a file: what is read, what is refused in one sentence, and the page that documents them."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hostile_output import RUN
from test_documents import follow
from typer.testing import CliRunner

from appcadence.cli import app, main
from appcadence.config import ATTACK_NAMES, SHOWN_P, Alerts, Config, Ranking, Tunables, locate, read
from appcadence.errors import AppcadenceError
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.serving.run import Run
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.triage import audit_report

CADENCE, PERSISTENCE, BURST = ATTACK_NAMES.values()
HUGE = "0x1" + "0" * 5000
DEEP = ".".join(["a"] * 300)


def test_the_names_are_those_of_the_behaviours():
    assert list(ATTACK_NAMES) == list(BEHAVIOURS) == list(Tunables().bounds)
    assert set(Tunables().bounds.values()) == {SHOWN_P} and Tunables().chosen == {}


def test_a_file_sets_what_it_names(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("")
    assert read(file) == Config()
    file.write_bytes(b"\xef\xbb\xbf[alerts]\r\nalerts_per_device_day = 2\r\n")
    assert read(file) == Config(Alerts(2.0))
    file.write_text(f"[alerts]\nfalse_discovery_rate = 0.1\n[tunables]\n{CADENCE} = 0.01\n{BURST} = 1\n")
    found = read(file)
    assert found == Config(Alerts(1.0, 0.1), Tunables(structured_cadence=0.01, notification_burst=1.0))
    assert found.tunables.chosen == {CADENCE: 0.01, BURST: 1.0}
    assert found.tunables.bounds["session_persistence"] == SHOWN_P


@pytest.mark.parametrize("value", ["1", "'true'", "[]", HUGE])
def test_local_destinations_are_asked_for_by_true_or_false(tmp_path, value):
    file = tmp_path / "config.toml"
    file.write_text("[ranking]\nlocal_destinations = true\n")
    assert read(file) == Config(ranking=Ranking(True)) and not Config().ranking.local_destinations
    file.write_text(f"[ranking]\nlocal_destinations = {value}\n")
    with pytest.raises(AppcadenceError, match=r"local_destinations is .*; expected true or false"):
        read(file)


def test_options_win_over_the_file():
    file = Alerts(2.0, 0.1)
    assert file.over(None, None) == file
    assert file.over(0.5, None) == Alerts(0.5)  # a budget, and no rate
    assert file.over(None, 0.2) == Alerts(2.0, 0.2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[tunable]\n", "section 'tunable' is unknown; known are alerts, tunables"),
        ("alerts_per_device_day = 1\n", "section 'alerts_per_device_day' is unknown"),
        ('"\\u001b[31m\\n" = 1\n', "is unknown"),
        ("alerts = 1\n", "alerts is not a table; write [alerts]"),
        ("[[tunables]]\n", "tunables is not a table; write [tunables]"),
        ("[alerts]\nbudget = 1\n", "[alerts]: key 'budget' is unknown; known are alerts_per_device_day"),
        ("[tunables]\nstructured_cadence = 0.1\n", f"'structured_cadence' is unknown; known are {CADENCE}"),
        (f"[tunables]\n{CADENCE.lower()} = 0.1\n", f"known are {CADENCE}"),
        *(
            (f"[tunables]\n{CADENCE} = {value}\n", f"{CADENCE} is {shown}; expected a number above 0 and at")
            for value, shown in (
                *(("nan", "nan"), ("-inf", "-inf"), ("inf", "inf"), ("0", "0"), ("-0.0", "-0.0")),
                *(("1.0000001", "1.0000001"), ("true", "True"), ("'0.1'", "'0.1'"), ("[0.1]", "[0.1]")),
                *(("{p = 0.1}", "{'p': 0.1}"), ("2026-01-01", "datetime.date(2026, 1, 1)")),
                *((HUGE, "too large to print"), (f"[{HUGE}]", "too large to print")),
            )
        ),
        (f"[tunables]\n{CADENCE} = 1{'0' * 400}\n", "0000; expected a number"),
        (f"[tunables]\n{CADENCE}.{DEEP} = 1\n", f"{CADENCE} is {{'a': {{'a'"),
        *(
            (f"[alerts]\nalerts_per_device_day = {value}\n", "above 0 and at most 1,000,000")
            for value in ("0", "-1", "nan", "inf", "1e7", "false", "[]", "'1'")
        ),
        *(
            (f"[alerts]\nfalse_discovery_rate = {value}\n", "false_discovery_rate is")
            for value in ("0", "1", "1.0", "nan", "true")
        ),
        (f"[tunables]\n{CADENCE} = 0.1\n{CADENCE} = 0.2\n", "is not readable TOML"),
        ("[tunables\n", "is not readable TOML"),
        ("x = " + "[" * 5000, "is not readable TOML"),
        (b"\xff\xfe[\x00", "is not readable TOML"),
        (b"\x00", "is not readable TOML"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, content, said):
    file = tmp_path / "config.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AppcadenceError) as error:
        read(file)
    text = str(error.value)
    assert text.startswith(str(file)) and said in text
    assert len(text) <= 1100 and text.isprintable()


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(AppcadenceError, match=r"cannot be read .*expected settings"):
            read(path)


@pytest.mark.parametrize("value", [0, -0.1, 1.5, float("nan"), True, "0.1", [0.1]])
def test_code_is_held_to_the_same_ranges(value):
    for made in (lambda: Tunables(session_persistence=value), lambda: Alerts(1.0, value)):
        with pytest.raises(AppcadenceError, match="expected a number"):
            made()


@pytest.fixture(scope="module")
def place(simulated_model, tmp_path_factory):
    """Simulated telemetry with implants, and a model."""
    path = tmp_path_factory.mktemp("config")
    (path / "model").symlink_to(simulated_model)
    write_directory(path / "telemetry", simulate(8, 3, 3, implants_per_device_day=1.0).tables)
    return path


def score(path, *words):
    answer = CliRunner().invoke(app, ["score", *map(str, words)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def fails(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["appcadence", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and len(error.strip().splitlines()) == 1
    return error


def test_the_page_works_as_it_stands(place):
    follow("docs/config.md", place)
    run = Run.read(place / "scored")
    assert (run.alerts_per_device_day, run.false_discovery_rate) == (2.0, None)
    assert run.tunables == {CADENCE: 0.02, PERSISTENCE: 0.01, BURST: 0.05}
    assert read(place / "config.toml").tunables.chosen == run.tunables


def test_settings_of_a_file_reach_the_scores_and_all_records(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(
        f"[alerts]\nalerts_per_device_day = 3.0\n[tunables]\n{PERSISTENCE} = 0.05\n{CADENCE} = 1e-9\n"
    )
    (tmp_path / "plain.toml").write_text("[alerts]\nalerts_per_device_day = 3.0\n")
    base = (place / "telemetry", "--model", place / "model", "--out", "o")
    said = score(tmp_path, *base, "--config", "plain.toml")
    assert "budget of 3 a device-day." in " ".join(said.split()) and "Threshold" not in said
    plain = pd.read_parquet("o/scores.parquet")
    said = " ".join(score(tmp_path, *base, "--config", "c.toml").split())
    assert f"a budget of 3 a device-day, {CADENCE} 1e-09, {PERSISTENCE} 0.05." in said
    assert (
        f"Blind spot: {CADENCE} 1e-09 is below" in said
        and "so no window can show structured cadence." in said
    )
    bound = pd.read_parquet("o/scores.parquet")
    assert 0 < bound["alert"].sum() < plain["alert"].sum() and not (bound["alert"] & ~plain["alert"]).any()
    shown = {name: bound["behaviours"].map(lambda names, n=name: n in names) for name in BEHAVIOURS}
    assert not shown["structured_cadence"].any() and shown["session_persistence"].any()
    alerts = list(map(json.loads, (tmp_path / "o" / "alerts.ocsf.jsonl").read_text().splitlines()))
    assert alerts and all("structured_cadence" not in str(alert["finding_info"]) for alert in alerts)
    assert "nothing to do" in score(tmp_path, *base, "--config", "c.toml")
    # Options win, a budget over a rate as well.
    (tmp_path / "rate.toml").write_text("[alerts]\nfalse_discovery_rate = 0.5\n")
    answer = json.loads(
        score(tmp_path, *base, "--config", "rate.toml", "--alerts-per-device-day", 0.5, "--json")
    )
    assert (answer["alerts_per_device_day"], answer["false_discovery_rate"]) == (0.5, None)
    answer = json.loads(score(tmp_path, *base, "--config", "rate.toml", "--json"))
    assert answer["false_discovery_rate"] == 0.5 and answer["tunables"] == {}
    lines = (tmp_path / "o.evidence.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert json.loads(lines[1])["facts"]["thresholds"]["tunables"] == {
        CADENCE: {"p_value": 1e-9, "set": True},
        PERSISTENCE: {"p_value": 0.05, "set": True},
        BURST: {"p_value": SHOWN_P, "set": False},
    }
    words = ("evidence", "report", "o.evidence.jsonl", "--from", "2026-01-01", "--to", "2026-12-31")
    printed = CliRunner().invoke(app, words)
    assert printed.exit_code == 0 and f"{PERSISTENCE} 0.05" in " ".join(printed.output.split())
    assert max(map(len, printed.output.splitlines())) <= 80
    weeks = audit_report.report(
        "o.evidence.jsonl", *(pd.Timestamp(w).date() for w in (words[4], words[6]))
    ).weeks
    assert {limit for week in weeks for limit in week.limits} == {
        "a budget of 3 a device-day",
        f"a budget of 3 a device-day, {CADENCE} 1e-09, {PERSISTENCE} 0.05",
        "a budget of 0.5 a device-day",
        "a false discovery rate of 0.5",
    }


def test_settings_are_found_in_the_telemetry_or_beside_it_and_named(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "telemetry").mkdir()
    for table in (place / "telemetry").iterdir():
        (tmp_path / "telemetry" / table.name).symlink_to(table)
    base = ("telemetry", "--model", place / "model", "--out", "o")
    beside, within = tmp_path / "appcadence.toml", tmp_path / "telemetry" / "appcadence.toml"
    for file, budget in ((beside, 3), (within, 2)):
        file.write_text(f"[alerts]\nalerts_per_device_day = {budget}\n")
        assert locate("telemetry") == locate(tmp_path / "telemetry") == file
        said = " ".join(score(tmp_path, *base).split())
        assert f"Settings from {file}." in said and f"a budget of {budget} a device-day" in said
    (tmp_path / "c.toml").write_text("")
    said = " ".join(score(tmp_path, *base, "--config", "c.toml", "--alerts-per-device-day", 4).split())
    assert "Settings from c.toml." in said and "a budget of 4 a device-day" in said
    within.write_text("[alert]\n")
    said = fails(monkeypatch, capsys, "score", *base)
    assert "telemetry/appcadence.toml: section 'alert' is unknown" in said and "did you mean alerts?" in said
    for file in (beside, within):
        file.unlink()
    assert locate("telemetry") is None and "Settings" not in score(tmp_path, *base)


def test_what_the_command_refuses(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(f"[tunables]\n{BURST} = 2\n")
    base = ("score", place / "telemetry", "--model", place / "model", "--out", "o")
    assert f"bad.toml, [tunables]: {BURST} is 2" in fails(monkeypatch, capsys, *base, "--config", "bad.toml")
    assert "nowhere.toml cannot be read" in fails(monkeypatch, capsys, *base, "--config", "nowhere.toml")
    for value in ("0", "nan", "inf"):
        said = fails(monkeypatch, capsys, *base, "--alerts-per-device-day", value)
        assert f"alerts_per_device_day is {float(value)}; expected" in said
        assert said.strip().endswith("(--alerts-per-device-day)")
    said = fails(monkeypatch, capsys, *base, "--false-discovery-rate", "1")
    assert "false_discovery_rate is 1.0" in said and said.strip().endswith("(--false-discovery-rate)")
    assert "--reapply keeps the settings" in fails(
        monkeypatch, capsys, "score", "--reapply", "--out", "o", "--config", "bad.toml"
    )
    assert not (tmp_path / "o").exists()


def test_the_batch_job_equals_the_library(place, tmp_path):
    tunables = Tunables(structured_cadence=0.3, session_persistence=0.02)
    scorer = Scorer.load(place / "model")
    for rate in (None, 0.5):
        run = score_directory(
            place / "telemetry",
            scorer,
            tmp_path / "o",
            false_discovery_rate=rate,
            tunables=tunables,
            block_flows=2000,
        )
        key = ["device_id", "app_id", "dest", "window_start"]
        batch = pq.read_table(tmp_path / "o" / "scores.parquet").to_pandas().sort_values(key)
        whole = scorer.score(place / "telemetry", false_discovery_rate=rate, tunables=tunables)
        whole = whole.sort_values(key)
        for column in ("alert", "behaviours", "score"):
            assert list(map(str, batch[column])) == list(map(str, whole[column]))
        assert run.alerts == whole["alert"].sum() > 0


@pytest.mark.parametrize(
    "tunables",
    [[], {"x": 0.1}, {CADENCE: "0.1"}, {CADENCE: 0.0}, {CADENCE: float("nan")}, {CADENCE: True}, None],
)
def test_damaged_facts_of_a_run_are_said(tmp_path, tunables):
    RUN.write(tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts.pop("tunables") == {}
    (tmp_path / "run.json").write_text(json.dumps(facts))  # as an earlier version wrote it
    assert Run.read(tmp_path) == RUN
    (tmp_path / "run.json").write_text(json.dumps(facts | {"tunables": tunables}))
    with pytest.raises(AppcadenceError, match=r"run\.json"):
        Run.read(tmp_path)
