"""The server as its users meet it: the real command, on loopback."""

import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pyarrow as pa
import pytest
from make import flows
from prometheus_client.parser import text_string_to_metric_families
from scoring_server import TABLES, arrow_of, body_of, rows_of, serving

from appcadence.errors import AppcadenceError
from appcadence.serving.scorer import Scorer
from appcadence.serving.server.access import read_token
from appcadence.telemetry.simulate.fleet import simulate

JSON = {"Content-Type": "application/json"}
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
TOKEN = "0123456789abcdefghijklmnopqrstuvwxyz"
ONE = flows(0)
MANY = 20_000
LARGE = flows(np.zeros(MANY), device=[f"phone-{i}" for i in range(MANY)])
"""Twice as many windows, which take seconds."""
NOTHING = arrow_of(pa.table({"start": pa.Array.from_buffers(pa.null(), 1 << 30, [None])}))
"""A billion rows in no bytes."""


@pytest.fixture(scope="module")
def server(simulated_model):
    with serving("--model", simulated_model) as (address, _):
        yield address


@pytest.fixture(scope="module")
def scorer(simulated_model):
    return Scorer.load(simulated_model)


@pytest.fixture(scope="module")
def tables():
    """Two days of three devices, beacons among them."""
    whole = simulate(3, 2, 5).tables
    return {name: whole[name] for name in TABLES}


@pytest.fixture(scope="module")
def scores(scorer, tables):
    return scorer.run(tables).scores


def post(address, path="/score", **request):
    return httpx.post(f"{address}{path}", timeout=60, **request)


def refusal(answer, status):
    """The one sentence of an answer that is an error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (said,) = answer.json().values()
    assert set(answer.json()) == {"error"} and said and "\n" not in said
    return said


def test_json_gives_the_librarys_scores_to_the_bit(server, tables, scores):
    answer = post(server, content=body_of(tables), headers=JSON)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"scores": rows_of(scores)}
    assert sum(row["alert"] for row in answer.json()["scores"]) > 0


@pytest.mark.parametrize(("kind", "make"), [(STREAM, pa.ipc.new_stream), (FILE, pa.ipc.new_file)])
def test_arrow_gives_the_librarys_scores_to_the_bit(server, scorer, tables, kind, make):
    body = arrow_of(tables["flows"], make)
    answer = post(server, content=body, headers={"Content-Type": kind, "Accept": STREAM})
    assert answer.headers["content-type"] == STREAM
    expected = scorer.run({"flows": tables["flows"]}).scores
    assert pa.ipc.open_stream(answer.content).read_all().equals(expected)
    answer = post(server, content=body, headers={"Content-Type": kind})
    assert answer.json() == {"scores": rows_of(expected)}


def test_the_budget_and_the_rate_are_those_of_the_library(server, scorer, tables):
    for settings_ in ({"alerts_per_device_day": 5.0}, {"false_discovery_rate": 0.3}):
        answer = post(server, params=settings_, content=body_of(tables), headers=JSON)
        expected = scorer.score(tables, **settings_)
        assert [row["alert"] for row in answer.json()["scores"]] == expected["alert"].tolist()


def test_no_flows_make_no_scores(server):
    assert post(server, content=b'{"flows": []}', headers=JSON).json() == {"scores": []}
    answer = post(server, content=arrow_of(ONE.slice(0, 0)), headers={"Content-Type": STREAM})
    assert answer.json() == {"scores": []}


def test_explain_adds_up_and_says_why(server, tables, scores):
    rows = rows_of(scores)
    for row in (next(r for r in rows if r["rank"] == 1), next(r for r in rows if r["rank"] is None)):
        window = {name: row[name] for name in ("device_id", "app_id", "dest", "window_start")}
        found = post(server, "/explain", content=body_of(tables, window=window), headers=JSON).json()
        assert found["row"] == row
        if row["rank"] == 1:
            parts = math.fsum(part["contribution"] for part in found["contributions"])
            assert math.isclose(found["constant"] + parts + row["device_shift"], row["score"], abs_tol=1e-9)
            assert [finding["text"] for finding in found["findings"]] == row["reasons"]
            assert [one["code"] for one in found["explained_by"]] == row["explained_by"]


def test_explain_of_a_moment_that_is_none_is_refused(server):
    window = {"device_id": "d1", "app_id": None, "dest": "a.example", "window_start": "2026-02-30T00:00:00Z"}
    answer = post(server, "/explain", content=body_of({"flows": ONE}, window=window), headers=JSON)
    assert "2026-02-30T00:00:00Z" in refusal(answer, 422)


def test_explain_of_a_window_that_is_not_there_is_not_found(server):
    window = {"device_id": "d1", "app_id": None, "dest": "no.example", "window_start": "2026-03-02T00:00:00Z"}
    answer = post(server, "/explain", content=body_of({"flows": ONE}, window=window), headers=JSON)
    assert "no.example" in refusal(answer, 404)


def test_the_model_says_what_it_is(server, scorer):
    found = httpx.get(f"{server}/model").json()
    assert (
        found["id"] == scorer.version and found["window"] == "24h" and found["card"] == scorer.detector.card
    )
    assert httpx.get(f"{server}/healthz").json() == {"status": "ok"}


def test_metrics_count_what_was_asked(server, tables, scores):
    def counted():
        families = text_string_to_metric_families(httpx.get(f"{server}/metrics").text)
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    before = counted()
    post(server, content=body_of(tables), headers=JSON)
    post(server, content=b"{", headers=JSON)
    httpx.get(f"{server}/{'x' * 500}")
    after = counted()
    for key, more in (
        (("appcadence_requests_total", "/score", "200"), 1),
        (("appcadence_requests_total", "/score", "422"), 1),
        (("appcadence_requests_total", "other", "404"), 1),
        (("appcadence_windows_scored_total",), len(scores)),
        (("appcadence_request_seconds_count", "/score"), 2),
    ):
        assert after[key] - before.get(key, 0) == more
    assert after[("appcadence_queue_length",)] == after[("appcadence_waiting_bytes",)] == 0


def changed(**columns):
    (row,) = rows_of(ONE)
    return json.dumps({"flows": [row | columns]}).encode()


def compressed(kind):
    return arrow_of(LARGE, compression=kind)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"{}", "flows: Field required"),
        (b'{"flows": [{}]}', "flows.0.start: Field required"),
        (b'{"flows": [' + b"1," * 100_000 + b"1]}", "flows.0"),
        (b'{"flows": [], "contact_summaries": []}', "contact_summaries: Extra"),
        (b"{" + b",".join(b'"k%d": 1' % i for i in range(9999)) + b"}", "in 10,000 places"),
        (changed(start=1_700_000_000), "flows.0.start"),
        (changed(start="1700000000"), "flows.0.start"),
        (changed(start="2026-03-02"), "flows.0.start"),
        (changed(start="2026-03-02T00:00:00"), "flows.0.start"),
        (changed(start="2026-02-30T00:00:00Z"), "'start'"),
        (changed(start="1969-12-31T23:59:59Z"), "outside the years 1970 to 2199"),
        (changed(start="9999-12-31T23:59:59Z"), "outside the years"),
        (changed(duration_seconds=math.nan), "Invalid JSON|finite"),
        (changed(duration_seconds="1"), "duration_seconds"),
        (changed(bytes_out=1 << 63), "bytes_out"),
        (changed(bytes_out=1.5), "bytes_out"),
        (changed(bytes_out=True), "bytes_out"),
        (changed(outcome="perhaps"), "'established', 'failed' or 'unknown'"),
        (changed(dest_host="x" * 1025), "1024"),
        (changed(nonsense=1), "nonsense: Extra"),
        (changed(device_id=None), "device_id"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_json_that_does_not_fit_is_one_sentence(server, body, said):
    assert re.search(said, refusal(post(server, content=body, headers=JSON), 422))


def with_column(name, values):
    table = pa.concat_tables([ONE] * len(values))
    return arrow_of(table.set_column(table.column_names.index(name), name, values))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no sound Arrow"),
        (b"ARROW1\0\0", "no sound Arrow"),
        (arrow_of(LARGE)[:3000], "no sound Arrow"),
        (compressed("zstd"), "compressed"),
        (compressed("lz4"), "compressed"),
        (arrow_of(pa.table({"x": [1]})), "lacks the required column 'start'"),
        (
            NOTHING,
            "more than 50,000 flows",
        ),
        (with_column("start", pa.array([1 << 62], pa.timestamp("us", tz="UTC"))), "outside the years"),
        (with_column("start", pa.array(["soon"])), "'start'"),
        (with_column("dest_host", pa.array(["x" * 1025])), "1,025 characters"),
        (with_column("dest_host", pa.array(["x"], pa.string_view())), "string_view"),
        (with_column("outcome", pa.array(["perhaps"])), "'perhaps' is not one of"),
        (with_column("duration_seconds", pa.array([math.nan] * 2000)), "60,000|62,000"),
        (arrow_of(pa.table([ONE["start"]] * 2, names=["start"] * 2)), "several columns"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_arrow_that_does_not_fit_is_one_sentence(server, body, said):
    assert re.search(said, refusal(post(server, content=body, headers={"Content-Type": STREAM}), 422))


def test_hostile_durations_are_scored_as_the_library_does(server, scorer):
    lasting = [math.nan, math.inf, -1e300, 1e300, 0.0]
    table = pa.concat_tables([ONE] * len(lasting))
    place = table.column_names.index("duration_seconds")
    table = table.set_column(place, "duration_seconds", pa.array(lasting))
    answer = post(server, content=arrow_of(table), headers={"Content-Type": STREAM, "Accept": STREAM})
    assert pa.ipc.open_stream(answer.content).read_all().equals(scorer.run({"flows": table}).scores)


def test_what_is_no_such_request_is_refused(server):
    assert "text/plain" in refusal(post(server, content=b"x", headers={"Content-Type": "text/plain"}), 415)
    assert "of no type" in refusal(post(server, content=b"x"), 415)
    refusal(httpx.get(f"{server}/docs"), 404)
    refusal(httpx.get(f"{server}/score"), 405)
    refusal(post(server, params={"alerts_per_device_day": "nan"}, content=b"{}", headers=JSON), 422)
    # A page on the web may have its own name resolved to this machine.
    refusal(post(server, content=b"{}", headers=JSON | {"Host": "pages.example:80"}), 421)


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
def test_work_that_takes_too_long_is_not_waited_for(simulated_model):
    with serving("--model", simulated_model, "--workers", 1, "--timeout-seconds", 1) as (address, _):
        answer = post(address, content=arrow_of(LARGE), headers={"Content-Type": STREAM})
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


def conforms(server, directory, *options):
    """Every check of schemathesis, on every endpoint of the real server."""
    # Valid by its schema and yet no telemetry: a 30 February, a window that is not there.
    (directory / "schemathesis.toml").write_text(
        '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", 404, 422]\n'
    )
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server}/openapi.json", "--checks", "all"]
    command += ["--seed", "1", "--suppress-health-check", "all", *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_description_holds(server, tmp_path):
    conforms(server, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "10")


@pytest.mark.slow
def test_the_description_holds_for_many_more(server, tmp_path):
    conforms(server, tmp_path, "--max-examples", "200")


@pytest.mark.slow
def test_two_hundred_clients_at_once_are_all_answered(server, scorer):
    body, expected = body_of({"flows": ONE}), {"scores": rows_of(scorer.run({"flows": ONE}).scores)}
    together = threading.Barrier(200)

    def client(_):
        together.wait(60)
        with httpx.Client(timeout=60) as session:
            return [session.post(f"{server}/score", content=body, headers=JSON).json() for _ in range(3)]

    with ThreadPoolExecutor(200) as pool:
        for answers in pool.map(client, range(200)):
            assert answers == [expected] * 3
