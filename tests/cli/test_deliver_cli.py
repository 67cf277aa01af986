"""score and deliver with receivers: what is sent, what waits, and what is refused before any work."""

import json
import socket
import sys

import pytest
from alert_receivers import receiving

from appcadence.cli import main
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.simulate.fleet import simulate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("night")
    write_directory(path / "telemetry", simulate(3, 2, 5).tables)
    return path


@pytest.fixture
def typed(monkeypatch, capsys, place):
    monkeypatch.chdir(place)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["appcadence", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def nowhere():
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def sent_to(file):
    return [json.loads(line)["document"] for line in file.read_text().splitlines()]


def test_a_night_sends_its_alerts_once_whoever_listens_when(place, typed, nowhere, simulated_model):
    score = ("score", "telemetry", "--model", simulated_model, "--out", "nights/one")
    code, out, err = typed(*score, "--webhook", f"http://127.0.0.1:{nowhere}/in")
    alerts = [json.loads(line) for line in (place / "nights/one/alerts.ecs.jsonl").read_text().splitlines()]
    assert code == 0 and alerts
    assert f"0 alerts sent, {len(alerts)} waiting in nights/spool, 0 unsure." in " ".join(out.split())
    assert len(err.splitlines()) == 1 and "Connection refused" in err and "warning" in err
    with receiving("http", place / "http", port=nowhere), receiving("syslog", place / "syslog") as other:
        to = ("--webhook", f"http://127.0.0.1:{nowhere}/in", "--syslog", f"127.0.0.1:{other}")
        for more in (2 * len(alerts), 0):
            code, out, err = typed(*score, *to, "--json")
            assert (code, err) == (0, "")
            assert json.loads(out)["delivered"] == {"sent": more, "waiting": 0, "unsure": 0, "problems": []}
        code, out, err = typed("deliver", "nights/one", *to)
        assert (code, err) == (0, "") and out.startswith("0 alerts sent, 0 waiting")
    assert sent_to(place / "http") == sent_to(place / "syslog") == alerts


def test_what_is_unsure_is_said_until_it_is_sent_again(place, typed, simulated_model):
    typed("score", "telemetry", "--model", simulated_model, "--out", "unsure/one")
    with receiving("http", place / "dies", "record", 1) as port:
        to = ("--webhook", f"http://127.0.0.1:{port}/in")
        _, _, err = typed("deliver", "unsure/one", *to)
        assert "may or may not have reached" in err and "--resend-unsure" in err
    with receiving("http", place / "dies", port=port):
        _, out, err = typed("deliver", "unsure/one", *to, "--json")
        assert json.loads(out)["unsure"] == 1 and "may or may not have reached" in err
        code, out, err = typed("deliver", "unsure/one", *to, "--resend-unsure")
        assert (code, err) == (0, "") and out.startswith("1 alert sent, 0 waiting")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--syslog", "192.0.2.1:514"), "--allow-remote"),
        (("--webhook", "https://siem.example/"), "--allow-remote"),
        (("--webhook", "siem"), "(--webhook)"),
        (("--syslog", "127.0.0.1"), "(--syslog)"),
        (("--spool", "elsewhere"), "(--syslog)"),
        (("--allow-remote",), "(--syslog)"),
        (("--syslog", "127.0.0.1:1", "--spool", "telemetry/flows.parquet"), "(--spool)"),
    ],
)
def test_receivers_are_looked_at_before_the_work(place, typed, words, said):
    code, out, err = typed("score", "telemetry", "--out", "early", *words)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and said in err
    assert not (place / "early").exists()


def test_an_output_without_alerts_or_receivers_is_one_sentence(place, typed):
    code, _, err = typed("deliver", "telemetry", "--syslog", "127.0.0.1:1")
    assert code == 2 and "telemetry holds no run.json" in err and len(err.splitlines()) == 1
    code, _, err = typed("deliver", "telemetry")
    assert code == 2 and "receiver" in err
