"""The batch job: what it leaves when it is killed, started twice, or out of disk space."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from make import DAY0, fleet, flows, together

from appcadence._files import scratch
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.models.fleet_events import MIN_DEVICES
from appcadence.nightly import read_history, score_directory
from appcadence.serving import Scorer
from appcadence.serving.run import Run, last_run
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.verdicts import WINDOW, Draft, decisions
from appcadence.training.injection import past_and_future
from appcadence.triage.output import reapply
from appcadence.triage.report_data import Output
from appcadence.triage.verdicts import placed, record

FILES = (
    *("scores.parquet", "measures.parquet", "fleet_events.parquet", "history.parquet", "sessions.parquet"),
    *(
        "context.parquet",
        "exceptions.parquet",
        "cases.parquet",
        "alerts.csv",
        "alerts.ecs.jsonl",
        "alerts.ocsf.jsonl",
    ),
    "run.json",
)
EXCEPTION = """
[[exception]]
id = "chat-beacon"
owner = "Chat team"
reason = "Known"
business_justification = "Chat"
created = 2026-01-01
expires = 2027-01-01
app_id = "com.chat"
destination = "c2.example"
"""
CHILD = """
import sys
from pathlib import Path
from appcadence.serving import Scorer
from appcadence.nightly import score_directory
def step(what, share):
    if share: print(what, share, flush=True)
score_directory(sys.argv[1], Scorer.load(sys.argv[2]), sys.argv[3], block_flows=200, progress=step)
"""


@pytest.fixture(scope="module", autouse=True)
def made_at():
    """All alerts are made at the same time, here and in other processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "1772900000")
        yield


@pytest.fixture(scope="module")
def place(fleet_model, tmp_path_factory):
    """Telemetry of two days with a beacon that many devices meet and one that one does, and a model."""
    path = tmp_path_factory.mktemp("batch")
    whole = fleet(devices=8, days=6)
    after = past_and_future(whole, (DAY0 + 4 * 86400) * 1_000_000)[1]
    (path / "model").symlink_to(fleet_model)
    start = [4 * 86400 + 300.0 * i for i in range(500)]
    met = [flows(start[::5], f"phone-0{i}", "com.chat", "new.example", 0.5) for i in range(MIN_DEVICES)]
    late = together(after["flows"], flows(start, "phone-05", "com.chat", "c2.example", 0.5, 310, 180), *met)
    write_directory(path / "telemetry", after | {"flows": late})
    file = path / "telemetry" / "flows.parquet"
    pq.write_table(pq.read_table(file), file, row_group_size=400)  # many pieces to read
    return path


@pytest.fixture(scope="module")
def scorer(place):
    return Scorer.load(place / "model")


@pytest.fixture(scope="module")
def calm(place, scorer):
    score_directory(place / "telemetry", scorer, place / "calm", block_flows=200)
    return {name: (place / "calm" / name).read_bytes() for name in FILES}


def child(place, out, **more):
    command = [sys.executable, "-c", CHILD, place / "telemetry", place / "model", out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finished(place, out, **more):
    """What a whole run says of what went wrong."""
    with child(place, out, **more) as process:
        error = process.communicate()[1]
    assert (process.returncode == 0) == (not error), error
    return error


def test_killed_runs_end_in_the_same_bytes(place, calm):
    rng, out = random.Random(5), place / "killed"
    scratch = place / ".killed.scratch"
    killed, kept = 0, {}
    for _ in range(6):
        with child(place, out) as process:
            for _ in range(rng.randint(1, 25)):
                if not process.stdout.readline():
                    break
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        done = {f: f.stat().st_mtime_ns for f in scratch.rglob("*") if f.suffix in (".npz", ".parquet")}
        # What was done before is still what it was.
        assert {f: done[f] for f in kept if f in done} == {f: t for f, t in kept.items() if f in done}
        kept = done
    assert killed >= 4 and kept
    assert finished(place, out) == ""
    assert {name: (out / name).read_bytes() for name in FILES} == calm
    assert not scratch.exists() and not list(place.glob(".killed.*"))


def test_the_size_of_blocks_changes_no_row(place, scorer, calm):
    score_directory(place / "telemetry", scorer, place / "large")
    small, large = (pq.read_table(place / name / "scores.parquet") for name in ("calm", "large"))
    order = [(key, "ascending") for key in ("device_id", "app_id", "dest", "window_start")]
    for column in small.schema.names:
        # Ranks of equal scores go by row, and blocks change the order of rows.
        if column not in ("rank", "reasons", "findings"):
            assert small.sort_by(order)[column].equals(large.sort_by(order)[column]), column
    assert scorer.run(place / "telemetry").scores.equals(large)


def test_a_second_run_does_nothing(place, scorer, calm):
    before = (place / "calm" / "scores.parquet").stat()
    run = score_directory(place / "telemetry", scorer, place / "calm", block_flows=200)
    after = (place / "calm" / "scores.parquet").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino) and run.windows
    facts = place / "calm" / "run.json"
    facts.write_text('{"windows": 1}')  # of an older version, say
    assert score_directory(place / "telemetry", scorer, place / "calm", block_flows=200) == run
    other = score_directory(
        place / "telemetry", scorer, place / "calm", alerts_per_device_day=3.0, block_flows=200
    )
    assert other.alerts > run.alerts
    score_directory(place / "telemetry", scorer, place / "calm", block_flows=200)


def test_two_runs_do_not_share_an_output(place, scorer):
    with scratch(place / "busy"), pytest.raises(AppcadenceError, match="another run is writing"):
        score_directory(place / "telemetry", scorer, place / "busy")
    assert not (place / "busy").exists()


def test_what_a_kill_put_aside_is_found(place, calm):
    model, out = place / "model", place / "calm"
    for target, read in (
        (model, Scorer.load),
        (out, Run.read),
        (out, last_run),
        (out, Output),
        (out, lambda out: read_history(out / "history.parquet")),
        (out, lambda out: placed(out, [Draft({"rank": "1"})])),
    ):
        # Where the file system cannot exchange two directories, a kill may come between two renames.
        aside = target.with_name(f".{target.name}.scratch")
        aside.mkdir()
        target.rename(aside / "old")
        assert read(target) and target.is_dir()
        shutil.rmtree(aside)


def test_a_full_disk_loses_no_work(place, calm):
    def small():
        # Enough for everything but the scores.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = place / "full"
    assert "File too large" in finished(place, out, preexec_fn=small) and not out.exists()
    for kind in ("*.npz", "*.arrow"):
        whole, cut, none, *_ = sorted((place / ".full.scratch").rglob(kind))
        # As a power failure may leave what was not on disk yet.
        os.truncate(cut, whole.stat().st_size // 2)
        os.truncate(none, 0)
    assert finished(place, out) == ""
    assert {name: (out / name).read_bytes() for name in FILES} == calm


def test_exceptions_act_on_results_that_stand(place, scorer, calm, tmp_path):
    file, out = place / "exceptions.toml", place / "excepted"
    file.write_text(EXCEPTION)
    fresh = score_directory(place / "telemetry", scorer, out, exceptions=file, block_flows=200)
    scores = pq.read_table(out / "scores.parquet").to_pandas()
    rows = scores[scores["status"] == "excepted"]
    assert set(rows["dest"]) == {"c2.example"} and fresh.excepted == len(rows) and not rows["alert"].any()
    assert rows["exception_id"].eq("chat-beacon").all() and rows["score"].notna().all()
    names = [name for name in FILES if name not in ("sessions.parquet", "context.parquet")]
    marked = {name: (out / name).read_bytes() for name in names}
    reapply(out, None)
    assert {name: (out / name).read_bytes() for name in names} == {name: calm[name] for name in names}
    reapply(out, file)
    assert {name: (out / name).read_bytes() for name in names} == marked
    # Asked to score the same with other exceptions, the job only puts these on.
    stamp = (out / "history.parquet").stat().st_mtime_ns
    score_directory(place / "telemetry", scorer, out, block_flows=200)
    assert (out / "scores.parquet").read_bytes() == calm["scores.parquet"]
    assert (out / "history.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(TelemetryError):
        reapply(tmp_path, None)


def test_a_fleet_event_is_one_alert_and_in_no_ranking(place, calm):
    scores = pd.read_parquet(place / "calm" / "scores.parquet")
    met = scores[scores["dest"] == "new.example"]
    assert set(met["status"]) == {"fleet_event"} and met["rank"].isna().all()
    alerts = pd.read_csv(place / "calm" / "alerts.csv")
    assert alerts["id"].is_unique and (alerts["kind"] == "fleet_destination").sum() == 1


def test_night_by_night_equals_both_nights_at_once(place, scorer, calm):
    days = [pd.Timestamp(DAY0 + d * 86400, unit="s", tz="UTC") for d in (4, 5, 6)]
    history, parts = None, []
    for night, (since, until) in enumerate(zip(days[:-1], days[1:], strict=True)):
        out = place / f"night-{night}"
        score_directory(place / "telemetry", scorer, out, history=history, since=since, until=until)
        history = out / "history.parquet"
        parts.append(pd.read_parquet(out / "scores.parquet"))
        assert parts[-1]["window_start"].between(since, until, inclusive="left").all()
    key = ["device_id", "app_id", "dest", "window_start"]
    both = pd.concat(parts).sort_values(key, ignore_index=True)
    once = pd.read_parquet(place / "calm" / "scores.parquet")
    once = once[once["window_start"] < days[-1]].sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(both[[*key, "score", "n_flows"]], once[[*key, "score", "n_flows"]])
    with pytest.raises(TelemetryError, match="lies inside a window"):
        score_directory(place / "telemetry", scorer, place / "x", since=days[0] + pd.Timedelta(hours=1))
    with pytest.raises(TelemetryError, match="does not lie before"):
        score_directory(place / "telemetry", scorer, place / "x", since=days[1], until=days[0])
    # A night's own history, or a later one, would make its windows known and its cases old.
    for since in (days[1], None):
        with pytest.raises(TelemetryError, match="the history knows contacts up to 2026-03-0") as error:
            score_directory(place / "telemetry", scorer, place / "x", history=history, since=since)
        assert error.value.argument == "history" and not (place / "x").exists()


def test_a_beacon_that_stays_scores_no_less_until_it_is_called_benign(scorer, tmp_path):
    """Every day is the same day again, so that nothing but the past differs."""
    day = together(
        fleet(devices=6, days=1)["flows"],
        flows(300.0 + np.arange(0, 86_400, 900.0), "phone-05", "com.chat", "c2.example", 0.5, 310, 180),
    )
    at = day.schema.get_field_index("start")
    week = [
        day.set_column(
            at, "start", pc.add(day["start"], pa.scalar(pd.Timedelta(4 + k, "D").to_pytimedelta()))
        )
        for k in range(9)
    ]
    write_directory(tmp_path / "telemetry", {"flows": together(*week)})
    score_directory(tmp_path / "telemetry", scorer, tmp_path / "once")

    def beacon(out):
        rows = pd.read_parquet(out / "scores.parquet")
        return rows[(rows["dest"] == "c2.example")].sort_values("window_start")["score"].tolist()

    def night(number, **more):
        since = pd.Timestamp(DAY0 + (4 + number) * 86_400, unit="s", tz="UTC")
        before = tmp_path / str(number - 1) / "history.parquet"
        out = tmp_path / str(number)
        score_directory(
            tmp_path / "telemetry",
            scorer,
            out,
            history=before if number else None,
            since=since,
            until=since + pd.Timedelta(1, "D"),
            **more,
        )
        return beacon(out)

    nights = [score for number in range(9) for score in night(number)]
    assert nights == beacon(tmp_path / "once") and len(nights) == 9
    assert min(nights) == nights[0]
    file, run = tmp_path / "verdicts.parquet", tmp_path / "7" / "scores.parquet"
    row = pd.read_parquet(run).query("dest == 'c2.example'").iloc[0]
    window = {name: str(row[name]) for name in WINDOW}
    said = {"verdict": "benign", "analyst": "ana", "justification": "A known sync"}
    at = row["window_end"].to_pydatetime()
    record(decisions([Draft(window | said)], at), file, None, at)
    assert night(8, verdicts=file)[0] < nights[8]
    known = read_history(tmp_path / "8" / "history.parquet").contacts
    assert known.loc[known["dest"] == "c2.example", "vetted"].all()
    with pytest.raises(TelemetryError, match="not a readable verdicts file"):
        night(8, verdicts=run.with_name("run.json"))
