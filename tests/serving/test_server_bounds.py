"""What the server does not take: too much, too long, and from anybody."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from make import flows
from scoring_server import JSON, STREAM, arrow_of, body_of, post, refusal, serving

from appcadence.errors import AppcadenceError
from appcadence.serving.server.door import read_token

TOKEN = "0123456789abcdefghijklmnopqrstuvwxyz"
ONE = flows(0)
MANY = 50_000
LARGE = flows(np.zeros(MANY), device=[f"phone-{i}" for i in range(MANY)])
"""As many as are taken, with twice as many windows: seconds of work."""


@pytest.mark.slow
def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(simulated_model):
    with serving("--model", simulated_model, "--max-body-mb", 1) as (address, _):
        large = b" " * (1 << 20)
        assert "1,048,576 bytes" in refusal(post(address, content=large + b" ", headers=JSON), 413)
        refusal(post(address, content=iter([large, b" "]), headers=JSON), 413)
        refusal(post(address, content=large, headers=JSON), 422)
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.slow
def test_the_queue_is_bounded_in_requests_bytes_and_time(simulated_model):
    bounds = ("--max-requests", 2, "--timeout-seconds", 2, "--max-waiting-mb", 1)
    with serving("--model", simulated_model, *bounds) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        half = [socket.create_connection((host, int(port)), 10) for _ in range(2)]
        head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        for one in half:
            one.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b" " * 400_000)
        time.sleep(0.3)
        answer = post(address, content=b"{}", headers=JSON)
        assert "too many requests" in refusal(answer, 503) and int(answer.headers["retry-after"]) > 0
        half.pop().close()
        time.sleep(0.3)
        answer = post(address, content=b" " * 700_000, headers=JSON)
        assert "too many bytes" in refusal(answer, 503) and int(answer.headers["retry-after"]) > 0
        (left,) = half
        left.settimeout(20)
        assert left.recv(100).startswith(b"HTTP/1.1 408")
        left.close()
        assert post(address, content=body_of({"flows": ONE}), headers=JSON).status_code == 200


@pytest.mark.slow
def test_a_connection_without_the_head_of_a_request_is_closed(simulated_model):
    """Hundreds of them would keep out everybody; one that answers, or is idle after it, is left alone."""
    with serving("--model", simulated_model, "--timeout-seconds", 2) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        whole = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        begun = [socket.create_connection((host, int(port)), 10) for _ in range(3)]
        for one, sent in zip(begun, (b"", whole[:12], whole), strict=True):
            one.sendall(sent)
        assert begun[2].recv(1000).startswith(b"HTTP/1.1 200")
        begun[2].sendall(whole[:12])
        with httpx.Client() as kept:
            assert kept.get(f"{address}/healthz").status_code == 200
            for one in begun:
                while one.recv(1000):  # the rest of an answer, and in the end nothing
                    pass
                one.close()
            assert kept.get(f"{address}/healthz").status_code == 200


@pytest.mark.slow
def test_work_that_takes_too_long_is_not_waited_for(simulated_model):
    body = {"content": arrow_of(LARGE), "headers": {"Content-Type": STREAM}}
    bounds = ("--workers", 1, "--timeout-seconds", 1)
    with serving("--model", simulated_model, *bounds) as (address, _), ThreadPoolExecutor() as pool:
        # A fast machine may be in time with one of them, and none with all.
        asked = [pool.submit(post, address, **body) for _ in range(4)]
        late = [answer for one in asked if (answer := one.result()).status_code != 200]
        assert late
        for answer in late:
            assert "within 1 s" in refusal(answer, 503) and int(answer.headers["retry-after"]) > 0
        deadline = time.monotonic() + 60
        while post(address, content=body_of({"flows": ONE}), headers=JSON).status_code != 200:
            assert time.monotonic() < deadline, "its worker was never free again"
        assert "appcadence_requests_under_way 0.0" in httpx.get(f"{address}/metrics").text


@pytest.mark.slow
def test_sigterm_answers_what_is_under_way(simulated_model):
    with serving("--model", simulated_model) as (address, server), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, address, content=arrow_of(LARGE), headers={"Content-Type": STREAM})
        while "appcadence_requests_under_way 1.0" not in httpx.get(f"{address}/metrics").text:
            assert not asked.done()
        server.send_signal(signal.SIGTERM)
        assert len(asked.result().json()["scores"]) == 2 * MANY
        assert server.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")


@pytest.mark.slow
def test_a_token_is_asked_for(simulated_model, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    with serving("--model", simulated_model, "--token-file", file, "--host", "0.0.0.0") as (address, _):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/healthz").status_code == 200
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/score", "/model", "/metrics", "/openapi.json", "/nothing"):
                answer = httpx.get(f"{address}{path}", headers=headers)
                assert "Bearer" in refusal(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
        bearing = {"Authorization": f"bearer {TOKEN}"}
        assert httpx.get(f"{address}/model", headers=bearing).status_code == 200
        described = httpx.get(f"{address}/openapi.json", headers=bearing).json()
        assert described["security"] == [{"token": []}]


def refused_command(*options):
    command = [sys.executable, "-m", "appcadence", "serve", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1, done
    return done.stderr


@pytest.mark.slow
def test_what_cannot_be_served_safely_is_refused(tmp_path):
    assert "--token-file" in refused_command("--host", "0.0.0.0")
    assert "No such file" in refused_command("--token-file", tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in refused_command("--port", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (TOKEN, 0o640, "mode 640"),
        (TOKEN, 0o602, "mode 602"),
        (TOKEN[:31], 0o600, "31 characters"),
        ("ab" * 40, 0o600, "2 of them distinct"),
        (f"{TOKEN} {TOKEN}", 0o600, "one word"),
        ("x" * 5000, 0o600, "no token"),
        ("", 0o600, "easy to guess"),
    ],
)
def test_a_token_that_others_know_or_guess_is_refused(tmp_path, content, mode, said):
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(AppcadenceError, match=said):
        read_token(file)
