"""Recording decisions: nothing is lost, disagreement shows, evidence keeps up, earlier words are found."""

import json
import multiprocessing
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from appcadence.errors import EvidenceError, SchemaError, TelemetryError
from appcadence.telemetry.schema import VERDICTS
from appcadence.telemetry.sheet import read_named
from appcadence.telemetry.verdicts import Draft, decisions, latest_decisions
from appcadence.triage import audit_log
from appcadence.triage.verdicts import disagreements, placed, record, verdicts_for

NOW = datetime(2026, 3, 5, tzinfo=UTC)


def said(
    verdict="benign", analyst="ana", app="com.a", dest="a.example", day=2, hours=24, at=NOW, device="d1"
):
    start = datetime(2026, 3, day, tzinfo=UTC)
    window = {"window_start": start.isoformat(), "window_end": (start + timedelta(hours=hours)).isoformat()}
    words = {"verdict": verdict, "analyst": analyst, "justification": f"{analyst} looked"}
    return decisions([Draft({"device_id": device, "app_id": app, "dest": dest} | window | words)], at)


def test_decisions_add_up_and_disagreement_is_told(tmp_path):
    file, log = tmp_path / "v.parquet", tmp_path / "e.jsonl"
    first = record(said(), file, log, NOW)
    assert first.total == 1 and first.disagreements.empty
    second = record(said("malicious", "ben", at=NOW + timedelta(hours=1)), file, log, NOW)
    (other,) = second.disagreements.to_dict("records")
    assert (other["row"], other["analyst"], other["verdict"]) == (0, "ana", "benign")
    # The same analyst changes her mind: her last word counts, and both rows stay.
    third = record(said("malicious", "ana", at=NOW + timedelta(hours=2)), file, log, NOW)
    assert third.total == 3 and third.disagreements.empty
    assert (
        read_named(file, VERDICTS).schema == VERDICTS.schema
        and read_named(file, VERDICTS)["verdict"].to_pylist().count("malicious") == 2
    )
    assert audit_log.verify(log).lines == 3 and audit_log.verify(log).head == third.head
    facts = [json.loads(raw)["facts"] for _, raw in audit_log.lines(log)]
    assert [f["analyst"] for f in facts] == ["ana", "ben", "ana"] and facts[0][
        "justification"
    ] == "ana looked"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.jsonl", "v.parquet"]


@pytest.mark.parametrize(
    ("other", "disagrees"),
    [
        ({}, True),
        ({"analyst": "ana"}, False),
        ({"verdict": "benign"}, False),
        ({"verdict": "unexplained"}, True),
        ({"hours": 1}, True),
        ({"hours": 1, "analyst": "ana"}, False),  # who thinks better of it contradicts nobody
        ({"day": 3}, False),
        ({"app": "com.b"}, False),
        ({"app": ""}, False),
        ({"dest": "b.example"}, False),
        ({"device": "d2"}, False),
    ],
)
def test_what_counts_as_disagreement(other, disagrees):
    mine, theirs = said(), said(**{"verdict": "malicious", "analyst": "ben"} | other)
    assert bool(len(disagreements(mine, pa.concat_tables([theirs, mine])))) is disagrees
    for app in ("", "com.a"):
        assert len(disagreements(said(app=app), said("malicious", "ben", app=app))) == 1


def test_earlier_words_stand_beside_a_returning_window():
    verdicts = pa.concat_tables(
        [
            said("benign", day=2, at=NOW),
            said("malicious", "ben", day=3, at=NOW + timedelta(days=1)),
            said("unexplained", app="", day=3),
            said(device="d9"),
        ]
    ).unify_dictionaries()
    keys = [("d1", "com.a", "a.example"), ("d2", "com.a", "a.example"), ("d1", None, "a.example")]
    scores = pa.table({n: [k[i] for k in keys] for i, n in enumerate(("device_id", "app_id", "dest"))})
    found = verdicts_for(scores, verdicts)
    assert list(zip(found["row"], found["verdict"], strict=True)) == [
        (0, "malicious"),
        (0, "benign"),
        (2, "unexplained"),
    ]
    assert verdicts_for(scores, VERDICTS.empty()).empty and verdicts_for(scores.slice(0, 0), verdicts).empty
    with pytest.raises(SchemaError):
        verdicts_for(scores, pa.table({"x": [1]}))


def test_broken_evidence_or_a_foreign_file_records_nothing(tmp_path):
    file, log = tmp_path / "v.parquet", tmp_path / "e.jsonl"
    record(said(), file, log, NOW)
    before = file.read_bytes()
    log.write_bytes(log.read_bytes()[:-1])
    with pytest.raises(EvidenceError, match="torn"):
        record(said(), file, log, NOW)
    assert file.read_bytes() == before and not list(tmp_path.glob(".*"))
    (tmp_path / "bad").write_bytes(b"PAR1")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other")
    new = tmp_path / "new.jsonl"
    for name, error in (
        ("bad", TelemetryError),
        ("other", SchemaError),
        (".", TelemetryError),
        ("no/v", TelemetryError),
    ):
        with pytest.raises(error):
            record(said(), tmp_path / name, new, NOW)
    assert not new.exists()


def _record_many(file, log, analyst):
    for day in range(1, 21):
        record(said(analyst=analyst, day=day), file, log, NOW)


def test_two_processes_record_at_once(tmp_path):
    file, log = tmp_path / "v.parquet", tmp_path / "e.jsonl"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_record_many, args=(file, log, name)) for name in ("ana", "ben")]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert len(read_named(file, VERDICTS)) == 40 == audit_log.verify(log).lines


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    file = tmp_path / "v.parquet"
    record(said(), file, None, NOW)
    before = file.read_bytes()
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        f"from {__name__} import NOW, record, said\n"
        "try: record(said(), Path(sys.argv[1]), None, NOW)\n"
        "except ValueError as error: print(error)"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    here = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, file, here], preexec_fn=limit, capture_output=True, text=True
    )
    assert done.stdout == f"{file} cannot be written (File too large)\n", done.stderr
    assert file.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_ranks_are_looked_up_or_refused(tmp_path):
    window = said().select(["device_id", "app_id", "dest", "window_start", "window_end"])
    columns = {"rank": 7, "score": 1.0, "status": "scored", "alert": True}
    for name, value in columns.items():
        window = window.append_column(name, pa.array([value]))
    window = window.append_column("exception_id", pa.nulls(1, pa.string()))
    pq.write_table(window, tmp_path / "scores.parquet")
    (draft,) = placed(tmp_path, [Draft({"rank": " 7", "verdict": "benign"}, "x: ")])
    assert draft.values["device_id"] == "d1" and draft.values["verdict"] == "benign"
    for rank, text in (
        (8, "no window of rank 8"),
        ("-1", "rank is '-1'"),
        ("", "rank is ''"),
        ("9" * 30, "rank is"),
    ):
        with pytest.raises(TelemetryError, match=text):
            placed(tmp_path, [Draft({"rank": str(rank)}, "x: ")])
    with pytest.raises(TelemetryError, match="appcadence score"):
        placed(tmp_path / "nowhere", [draft])
    assert placed(tmp_path, []) == []


def test_the_last_word_counts_though_the_clock_was_set_back(tmp_path):
    file = tmp_path / "v.parquet"
    record(said("benign"), file, None, NOW)
    record(said("malicious", at=NOW - timedelta(days=9)), file, None, NOW)
    assert latest_decisions(read_named(file, VERDICTS))["verdict"].tolist() == ["malicious"]
    record(said("unexplained", at=NOW + timedelta(days=9)), file, None, NOW)
    times = read_named(file, VERDICTS)["decided_at"].to_pylist()
    assert times == [NOW, NOW, NOW + timedelta(days=9)]


def test_what_analysts_decided_is_their_own_unless_it_was_opened_to_others(tmp_path):
    file, log = tmp_path / "v.parquet", tmp_path / "e.jsonl"
    record(said(), file, log, NOW)
    assert [path.stat().st_mode & 0o777 for path in (file, log)] == [0o600, 0o600]
    for path in (file, log):
        path.chmod(0o640)
    record(said(), file, log, NOW)
    assert [path.stat().st_mode & 0o777 for path in (file, log)] == [0o640, 0o640]
