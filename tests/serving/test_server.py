"""The server as its users meet it: the real command, on loopback."""

import gzip
import json
import math
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import flows
from prometheus_client.parser import text_string_to_metric_families
from scoring_server import FILE, JSON, STREAM, TABLES, arrow_of, body_of, post, refusal, rows_of, serving

from appcadence.serving.scorer import Scorer
from appcadence.telemetry.simulate.fleet import simulate

ONE = flows(0)
LARGE = flows(np.arange(20_000))
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


def test_arrow_that_pandas_wrote_is_scored_too(server, scorer, tables):
    frame = pd.DataFrame(tables["flows"].to_pandas())
    body = arrow_of(pa.Table.from_pandas(frame, preserve_index=False))
    answer = post(server, content=body, headers={"Content-Type": STREAM})
    assert answer.json() == {"scores": rows_of(scorer.run({"flows": frame}).scores)}


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
        (b"", "not a valid Arrow"),
        (b"ARROW1\0\0", "not a valid Arrow"),
        (arrow_of(LARGE)[:3000], "not a valid Arrow"),
        (compressed("zstd"), "compressed"),
        (compressed("lz4"), "compressed"),
        (arrow_of(pa.table({"x": [1]})), "lacks the required column 'start'"),
        (
            NOTHING,
            "more than 50,000 flows",
        ),
        (with_column("start", pa.array([1 << 62], pa.timestamp("us", tz="UTC"))), "outside the years"),
        (with_column("start", pa.array(["soon"])), "'start'"),
        (with_column("start", pa.array([1_772_409_600])), "'start' holds numbers"),
        (with_column("device_id", pa.array([""])), "'device_id': 1 of 1 values are empty"),
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
    assert "no path /docs; /openapi.json" in refusal(httpx.get(f"{server}/docs"), 404)
    assert "/score takes POST, not GET" in refusal(httpx.get(f"{server}/score"), 405)
    refusal(post(server, "/score/", content=b"{}", headers=JSON), 404)
    refusal(post(server, params={"alerts_per_device_day": "nan"}, content=b"{}", headers=JSON), 422)
    # Passed over, a misspelt budget would be the default one.
    misspelt = post(server, params={"alerts_per_devce_day": "0.1"}, content=b"{}", headers=JSON)
    assert "did you mean alerts_per_device_day?" in refusal(misspelt, 422)
    twice = post(server, params={"alerts_per_device_day": ["1", "2"]}, content=b"{}", headers=JSON)
    assert "more than once" in refusal(twice, 422)
    packed = post(server, content=gzip.compress(b"{}"), headers=JSON | {"Content-Encoding": "gzip"})
    assert "encoded (gzip)" in refusal(packed, 415)
    assert httpx.head(f"{server}/healthz").status_code == 200
    # A page on the web may have its own name resolved to this machine.
    refusal(post(server, content=b"{}", headers=JSON | {"Host": "pages.example:80"}), 421)


@pytest.mark.parametrize("path", ["/score", "/explain"])
def test_the_example_of_the_description_is_answered(server, path):
    described = httpx.get(f"{server}/openapi.json").json()["paths"][path]["post"]["requestBody"]["content"]
    answer = httpx.post(f"{server}{path}", json=described["application/json"]["example"])
    assert answer.status_code == 200, answer.text


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
