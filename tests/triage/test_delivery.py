"""Alerts to real receivers, which are killed, and senders that are: nothing twice, nothing lost unsaid."""

import json
import os
import re
import signal
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from alert_receivers import receiver, receiving
from hypothesis import given
from hypothesis import strategies as st
from kill_steps import in_child

from appcadence.errors import AppcadenceError
from appcadence.triage import delivery
from appcadence.triage.delivery import LEDGER, Delivered, Spool, deliver, key_of, opened
from appcadence.triage.receivers import Syslog, Webhook, syslog, syslog_message, webhook

POINTS = ("accept", "part", "read", "record")


def alert(number, status="new", severity="high"):
    own = {"status": status, "severity": severity, "name": "ü\n\x00" + "x" * 9000}
    return {"@timestamp": "2026-03-06T02:30:00.000Z", "event": {"id": f"case-{number}"}, "appcadence": own}


ALERTS = [alert(number) for number in range(5)]


def taken(file):
    """Ids of the cases that a receiver has, in order."""
    return [one["document"]["event"]["id"] for one in lines(file)]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def counts(done):
    return done.sent, done.waiting, done.unsure


@pytest.fixture(params=["syslog", "http"])
def kind(request):
    return request.param


def test_each_alert_is_sent_once_to_each_receiver(tmp_path):
    files = {kind: tmp_path / kind for kind in ("syslog", "http")}
    with receiving("syslog", files["syslog"]) as one, receiving("http", files["http"]) as other:
        to = [receiver("syslog", one), receiver("http", other)]
        assert deliver(ALERTS, to[:1], tmp_path / "spool") == Delivered(5, 0, 0, [])
        assert deliver(ALERTS, to, tmp_path / "spool") == Delivered(5, 0, 0, [])
        assert deliver(ALERTS, to, tmp_path / "spool") == Delivered(0, 0, 0, [])
        raised = [alert(1, "raised"), alert(2, "new", "low")]
        assert deliver(ALERTS + raised, to, tmp_path / "spool").sent == 4
    for file in files.values():
        assert [one["document"] for one in lines(file)] == ALERTS + raised
    for one, document in zip(lines(files["http"]), ALERTS + raised, strict=True):
        assert one["request"] == "POST /in?a=b HTTP/1.1"
        assert one["headers"]["content-type"] == "application/json"
        assert one["headers"]["idempotency-key"] == key_of(document)


@given(severity=st.sampled_from(["low", "medium", "high", None, "?"]), text=st.text())
def test_a_syslog_message_is_one_line_of_rfc_5424(severity, text):
    document = alert(1, "raised", severity) | {"message": text}
    message = syslog_message(document).decode("ascii")
    head = re.fullmatch(r"<(\d+)>1 (\S+) (\S{1,255}) appcadence - raised - (\{.*\})", message)
    assert head and json.loads(head[4]) == document and message.isprintable()
    assert int(head[1]) == 16 * 8 + {"medium": 4, "high": 2}.get(severity, 5)
    assert head[2] == document["@timestamp"]


def test_without_a_receiver_alerts_wait_and_go_first(kind, tmp_path):
    file = tmp_path / "file"
    with receiving(kind, file) as port:
        pass
    done = deliver(ALERTS[:3], [receiver(kind, port)], tmp_path / "spool")
    assert counts(done) == (0, 3, 0) and "refused" in done.problems[0]
    with receiving(kind, file, port=port):
        assert counts(deliver(ALERTS[3:], [receiver(kind, port)], tmp_path / "spool")) == (5, 0, 0)
    assert taken(file) == [f"case-{number}" for number in range(5)]


@pytest.mark.parametrize("point", POINTS)
def test_a_receiver_that_is_killed_loses_and_doubles_nothing(kind, point, tmp_path):
    file, spool = tmp_path / "file", tmp_path / "spool"
    with receiving(kind, file, point, 3) as port:
        first = deliver(ALERTS, [receiver(kind, port)], spool)
        assert first.sent >= 2 and sum(counts(first)) == 5
    with receiving(kind, file, port=port):
        again = deliver(ALERTS, [receiver(kind, port)], spool)
        assert again.waiting == 0 and again.sent + first.sent + again.unsure == 5
        known = set(taken(file))
        assert len(taken(file)) == len(known) >= 4
        # What nobody can know is said, and sent when somebody asks: all have arrived then.
        last = deliver([], [receiver(kind, port)], spool, resend_unsure=True)
        assert counts(last) == (again.unsure, 0, 0)
        missing = {f"case-{number}" for number in range(5)} - known
        if kind == "http" or point != "read":  # a syslog server that dies with a message it has read
            assert missing <= set(taken(file)) and len(missing) <= again.unsure


def test_a_sender_that_is_killed_at_any_step_loses_and_doubles_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery.threading, "Thread", AtOnce)
    for steps in range(1, 1000):
        place = tmp_path / str(steps)
        place.mkdir()
        file, spool = place / "file", place / "spool"
        with receiving(kind, file) as port:
            to = [receiver(kind, port)]
            killed = in_child(lambda: dies_at(steps, lambda: deliver(ALERTS[:2], to, spool)))  # noqa: B023
            done = deliver(ALERTS[:2], to, spool)
            time.sleep(0.02)
            assert done.waiting == 0 and not done.problems
            got = taken(file)
            assert len(got) == len(set(got)) and 2 - len(got) <= done.unsure <= 1
            if not killed:
                break
            assert counts(deliver([], to, spool, resend_unsure=True)) == (done.unsure, 0, 0)
            assert set(taken(file)) == {"case-0", "case-1"}
    assert steps > 10


class AtOnce:
    """A thread that runs where it is started: a forked child has no other."""

    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)

    def join(self, timeout):
        pass

    def is_alive(self):
        return False


def dies_at(steps, work):
    """SIGKILL before and after each step on the ledger and on the network."""
    left = [steps]

    def tick():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def followed(real):
        def step(*args, **more):
            tick()
            out = real(*args, **more)
            tick()
            return out

        return step

    for name in ("add", "set_state", "turn"):
        setattr(Spool, name, followed(getattr(Spool, name)))
    for name in ("connect", "sendall", "shutdown", "recv", "recv_into"):
        setattr(socket.socket, name, followed(getattr(socket.socket, name)))
    work()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("200 OK", (5, 0, 0)),
        ("400 Bad Request", (0, 5, 0)),
        ("302 Found", (0, 5, 0)),
        ("503 Unavailable", (0, 5, 0)),
        ("429 Slower", (0, 5, 0)),
        ("502 Bad Gateway", (0, 4, 1)),
        ("nonsense", (0, 4, 1)),
    ],
)
def test_what_a_webhook_answers_decides(status, expected, tmp_path):
    file = tmp_path / "file"
    (tmp_path / "file.status").write_text(status)
    with receiving("http", file) as port:
        done = deliver(ALERTS, [receiver("http", port)], tmp_path / "spool")
    assert counts(done) == expected and bool(done.problems) == (expected[0] == 0)
    assert all(f"http://127.0.0.1:{port}" in problem and "/in" not in problem for problem in done.problems)


def test_a_receiver_that_says_nothing_keeps_nobody_waiting(kind, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        to = [receiver(kind, silent.getsockname()[1])]
        done = deliver(ALERTS, to, tmp_path / "spool", budget_seconds=0.5)
        assert time.monotonic() - began < 30
        assert counts(done) == (0, 4, 1) and "longer than 0.5 s" in done.problems[0]
        # Its thread still waits, and has the right to send.
        assert "another run" in deliver(ALERTS, to, tmp_path / "spool").problems[0]


def test_one_receivers_failure_is_not_anothers(tmp_path):
    file = tmp_path / "file"
    with receiving("http", file) as port, socket.create_server(("127.0.0.1", 0)) as taken_port:
        gone = taken_port.getsockname()[1]
        taken_port.close()
        done = deliver(ALERTS, [receiver("syslog", gone), receiver("http", port)], tmp_path / "spool")
    assert counts(done) == (5, 5, 0) and len(taken(file)) == 5


def test_udp_is_sent_when_asked_for(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        to = syslog(f"udp://127.0.0.1:{server.getsockname()[1]}")
        assert counts(deliver(ALERTS[:1], [to], tmp_path / "spool")) == (1, 0, 0)
        assert server.recv(65536) == syslog_message(ALERTS[0])
        large = alert(9) | {"message": "x" * 70_000}
        assert counts(deliver([large, ALERTS[1]], [to], tmp_path / "spool")) == (1, 1, 0)


def test_a_webhook_without_a_certificate_is_not_trusted(tmp_path):
    with receiving("http", tmp_path / "file") as port:
        to = [webhook(f"https://127.0.0.1:{port}/")]
        done = deliver(ALERTS, to, tmp_path / "spool")
    assert counts(done) == (0, 5, 0) and not taken(tmp_path / "file")


def test_an_alert_without_a_status_is_new():
    document = alert(1)
    del document["appcadence"]["status"]
    assert key_of(document) == key_of(alert(1))
    for no_alert in ({}, {"event": 1}, {"event": {}}, []):
        with pytest.raises(AppcadenceError, match=r"event\.id"):
            key_of(no_alert)


@pytest.mark.parametrize(
    ("make", "text", "said"),
    [
        (syslog, "10.0.0.1:514", "only where that is allowed"),
        (syslog, "siem.example:514", "only where that is allowed"),
        (syslog, "127.0.0.1", "not a syslog server"),
        (syslog, "http://127.0.0.1:1", "not a syslog server"),
        (syslog, "user:secret@127.0.0.1:514", "not a syslog server"),
        (syslog, "127.0.0.1:514#x", "not a syslog server"),
        (syslog, "127.0.0.1:99999", "no address"),
        (syslog, ":514", "no host"),
        (syslog, f"{'a' * 70}.example:514", "no address"),
        (webhook, "https://siem.example/in", "only where that is allowed"),
        (webhook, "http://127.0.0.1.example/", "only where that is allowed"),
        (webhook, "ftp://127.0.0.1/", "no URL"),
        (webhook, "http://a:b@127.0.0.1/", "no URL"),
        (webhook, "http://127.0.0.1/\r\nX: y", "no URL"),
        (webhook, "http:///in", "no host"),
        (webhook, "http://[::1/", "no address"),
    ],
)
def test_receivers_that_are_none_or_elsewhere_are_refused(make, text, said):
    with pytest.raises(AppcadenceError, match=said):
        make(text)


def test_other_machines_are_allowed_on_request():
    assert syslog("siem.example:514", allow_remote=True) == Syslog("siem.example", 514)
    assert syslog("[::1]:514") == Syslog("::1", 514)
    assert webhook("https://siem.example/in", allow_remote=True).place == "webhook https://siem.example"


def test_a_spool_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / LEDGER).write_bytes(b"no database" * 1000)
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file", Path("/proc/none")):
        with pytest.raises(AppcadenceError, match="cannot be used") as caught:
            deliver(ALERTS, [Syslog("127.0.0.1", 1)], place)
        assert "\n" not in str(caught.value)


def test_a_ledger_whose_own_names_are_damaged_is_one_sentence(tmp_path):
    with opened(tmp_path):
        pass
    whole = (tmp_path / LEDGER).read_bytes()
    # SQLite names the table whose statement it does not understand, in bytes that Python cannot decode.
    damaged = whole.replace(b"tabledeliveries", b"table\x80eliveries").replace(
        b"deliveries (", b"deliveries )"
    )
    (tmp_path / LEDGER).write_bytes(damaged)
    with pytest.raises(AppcadenceError, match="cannot be used"), opened(tmp_path):
        pass


def test_the_ledger_keeps_no_address_and_no_document_that_was_sent(tmp_path):
    with receiving("http", tmp_path / "file") as port:
        deliver(ALERTS, [Webhook(f"http://127.0.0.1:{port}/secret")], tmp_path / "spool")
    ledger = sqlite3.connect(tmp_path / "spool" / LEDGER)
    rows = ledger.execute("SELECT * FROM deliveries").fetchall()
    ledger.close()
    assert len(rows) == 5 and all(row[3] is None and row[4] == "sent" for row in rows)
    assert "secret" not in str(rows)
