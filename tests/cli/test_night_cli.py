"""What a machine runs: a log of stages, counts and errors; and what ends a training before its work."""

import contextlib
import json
import logging
import os
import re
import socket
import sys
import time
from importlib import import_module

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from make import fleet
from mlflow_server import free_port

from appcadence.cli import main
from appcadence.errors import AppcadenceError
from appcadence.models import bundle
from appcadence.models.bundle import reference_model
from appcadence.nightly import score_directory
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import write_directory
from appcadence.training import publish
from appcadence.training import train as training
from appcadence.triage.report import page

score_command = import_module("appcadence.cli.score")
"""The package has the command itself under that name."""

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|ERROR) appcadence[.\w]*: .+")


@pytest.fixture
def place(tmp_path, fleet_model, monkeypatch):
    write_directory(tmp_path / "telemetry", fleet(devices=2, days=2, seed=3))
    (tmp_path / "model").symlink_to(fleet_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def typed(monkeypatch, capsys):
    """Types a command; returns (exit code, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["appcadence", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def untrained(monkeypatch):
    """A training that began ends the test."""
    monkeypatch.setattr(training, "train", lambda *asked, **more: pytest.fail("the training began"))


def test_a_night_is_logged_line_by_line_and_so_is_what_ends_it(place, typed):
    words = ("score", "telemetry", "--model", "model", "--log", "night.log")
    assert typed(*words, "--out", "scored")[0] == 0
    first = (place / "night.log").read_text()
    assert all(LINE.fullmatch(line) for line in first.splitlines())
    stages = [line.rpartition(": ")[2] for line in first.splitlines()]
    assert stages[1:5] == ["reading", "extracting", "scoring", "writing"]
    counts = re.search(r"done: (\d+) windows of 2 devices, (\d+) scored, \d+ alerting, 0 under exc", first)
    assert int(counts[1]) >= int(counts[2]) > 0
    assert typed(*words, "--out", "scored")[0] == 0
    again = (place / "night.log").read_text().removeprefix(first)
    assert "nothing to do" in again and "reading" not in again
    code, _, error = typed(*words, "--out", "telemetry")
    last = (place / "night.log").read_text().splitlines()[-1]
    assert code == 2 and " ERROR " in last
    assert last.rpartition("appcadence: ")[2] == error.removeprefix("appcadence: ").strip()
    assert last.endswith("choose another (--out)")


def test_without_a_log_nothing_is_printed_and_no_handler_stays(place, typed):
    code, out, error = typed("score", "telemetry", "--model", "model", "--out", "scored", "--json")
    assert (code, error) == (0, "") and len(out.splitlines()) == 1
    log = logging.getLogger("appcadence")
    assert not log.handlers and log.level == logging.NOTSET


def test_a_program_that_embeds_the_job_decides_what_it_hears(place, caplog):
    with caplog.at_level(logging.INFO, "appcadence"):
        score_directory("telemetry", Scorer.load("model"), "scored")
    assert {record.name for record in caplog.records} == {"appcadence.nightly"}


def test_names_in_a_log_cannot_write_lines_of_their_own(place, typed):
    typed("score", "no\nwhere\x1b[2J", "--model", "model", "--out", "o", "--log", "night.log")
    (line,) = (place / "night.log").read_text().splitlines()
    assert LINE.fullmatch(line) and "\x1b" not in line


@pytest.mark.parametrize(
    ("log", "part"),
    [("telemetry", "is a directory"), ("pipe", "is a pipe"), ("no/such/place", "No such file")],
)
def test_a_log_that_cannot_be_written_is_one_sentence(place, typed, log, part):
    os.mkfifo("pipe")
    code, _, error = typed("score", "telemetry", "--model", "model", "--out", "o", "--log", log)
    assert code == 2 and log in error and part in error and len(error.splitlines()) == 1
    assert not (place / "o").exists()


@pytest.mark.parametrize("out", ["telemetry", "telemetry/flows.parquet/model", "/proc/model"])
def test_where_no_model_can_be_written_is_said_before_training(place, typed, untrained, out):
    code, _, error = typed("train", "telemetry", "--out", out)
    assert code == 2 and len(error.splitlines()) == 1 and out in error
    assert sorted(path.name for path in place.iterdir()) == ["model", "telemetry"]


@contextlib.contextmanager
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("hangs", [True, False])
def test_a_tracking_server_that_does_not_answer_is_said_before_training(
    place, typed, untrained, monkeypatch, hangs
):
    dead = contextlib.nullcontext(f"http://127.0.0.1:{free_port()}")
    with silent_server() if hangs else dead as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        code, _, error = typed("train", "telemetry", "--out", "new")
        assert time.monotonic() - began < 30  # five seconds, and the import of MLflow on a busy machine
    assert code == 2 and "does not answer" in error and len(error.splitlines()) == 1
    assert not (place / "new").exists()


def test_what_asks_for_no_tracking_asks_no_server(place, typed, monkeypatch):
    def begun(*asked, **more):
        raise AppcadenceError("the training began")

    monkeypatch.setattr(training, "train", begun)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    code, _, error = typed("train", "telemetry", "--out", "new", "--no-register")
    assert code == 2 and error == "appcadence: the training began\n"


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_that_dies_during_the_training_takes_nothing_along(place, typed, monkeypatch, as_json):
    def died(*asked):
        raise AppcadenceError("the MLflow server does not answer")

    monkeypatch.setattr(publish, "check_ready", lambda: None)
    monkeypatch.setattr(publish, "publish", died)
    code, said, error = typed("train", "telemetry", "--out", "new", "--register", *["--json"] * as_json)
    identity = bundle.load(place / "new")[1]
    assert code == 2 and (identity if as_json else f"Bundle new ({identity[:12]})") in said
    assert "does not answer; the bundle new is whole, but not registered" in error


def test_without_mlflow_registering_is_refused_before_training(place, typed, untrained, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, _, error = typed("train", "telemetry", "--out", "new", "--register")
    assert code == 2 and "mlflow not found; install with: " in error and "pip install" in error
    assert not (place / "new").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_model_the_reference_model_scores_and_says_so(place, typed, as_json):
    (place / "model").unlink()
    said = typed("score", "telemetry", "--out", "scored", *["--json"] * as_json)
    assert said[0] == 0, said
    scores = pq.read_table(place / "scored" / "scores.parquet")
    assert pc.sum(pc.equal(scores["status"].cast("string"), "scored")).as_py() > 0
    assert pc.unique(scores["model_version"]).to_pylist() == [reference_model()[1][:12]]
    if as_json:
        assert reference_model()[1].startswith(json.loads(said[1])["model_version"])
    else:
        assert "the reference model was used" in " ".join(said[1].split())
    # Evidence holds which model it was.
    facts = json.loads((place / "scored.evidence.jsonl").read_text())["facts"]
    assert reference_model()[1].startswith(facts["model"]["bundle"]) and facts["model"]["given"]


@pytest.mark.parametrize(
    ("command", "place_in", "name", "said"),
    [
        ("score telemetry --model model --out scored --json", score_command, "run_facts", "before this one"),
        ("report scored --html page.html", page, "_suppressed", "while it was read; start again"),
    ],
)
def test_an_output_that_another_run_replaces_meanwhile_is_not_mixed_with_it(
    place, typed, monkeypatch, command, place_in, name, said
):
    assert typed("score", "telemetry", "--model", "model", "--out", "scored")[0] == 0
    (place / "scored.evidence.jsonl").unlink()
    real, run = getattr(place_in, name), place / "scored" / "run.json"

    def replaced(*given, **more):
        found = real(*given, **more)
        run.write_text(json.dumps(json.loads(run.read_text()) | {"made_at": "2026-01-01T00:00:00+00:00"}))
        return found

    monkeypatch.setattr(place_in, name, replaced)
    code, _, error = typed(*command.split())
    assert code == 2 and f"scored was replaced by another run {said}" in error
    assert not (place / "scored.evidence.jsonl").exists() and not (place / "page.html").exists()
