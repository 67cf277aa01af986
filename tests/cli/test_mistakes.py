"""What people type wrong: exit code 2, and one sentence that names the thing and what to do, before work."""

import json
import re
import shutil
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import fleet

from appcadence.cli import main
from appcadence.models.bundle import MANIFEST
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.schema import LABELS, conform

WORK = (
    "appcadence.telemetry.simulate.fleet._made",
    "appcadence.training.rounds.labelled",
    "appcadence.training.probe.probe",
    "appcadence.models.pipeline.assemble",
    "appcadence.serving.scorer.assemble",
    "appcadence.serving.batch.local",
    "appcadence.features.partition.Blocks.of",
)
"""Where the long part of each command begins."""
MAX_SECONDS = 3.0
"""Of the processor, with the first import of what a command needs."""
EXCEPTION = (
    '[[exception]]\nid = "vpn"\nowner = "o"\nreason = "r"\nbusiness_justification = "b"\n'
    'created = 2026-01-01\nexpired = 2027-01-01\napp_id = "com.example.vpn"\n'
)


@pytest.fixture(scope="module")
def place(fleet_model, tmp_path_factory):
    """A directory with what the commands are given, right and wrong."""
    path = tmp_path_factory.mktemp("mistakes")
    tables = fleet(devices=5, days=4)
    write_directory(path / "telemetry", tables)
    shutil.copytree(fleet_model, path / "model")
    score_directory(path / "telemetry", Scorer.load(fleet_model), path / "scored")
    shutil.copytree(fleet_model, path / "old_model")
    manifest = json.loads((path / "model" / MANIFEST).read_text())
    (path / "old_model" / MANIFEST).write_text(json.dumps(manifest | {"feature_schema": "0123456789ab"}))
    start = tables["flows"]["start"][0].as_py()
    label = {"device_id": "someone", "dest": "a.example", "start": start, "end": start, "label": "malicious"}
    row = dict.fromkeys(column.name for column in LABELS.columns) | label
    pq.write_table(conform(LABELS, pa.Table.from_pylist([row])), path / "others.parquet")
    pq.write_table(pa.table({"device": ["phone-00"]}), path / "columns.parquet")
    for name, content in {
        "notes.txt": "hello\n",
        "empty.log": "",
        "exceptions.toml": EXCEPTION,
        "settings.toml": "[alert]\nalerts_per_device_day = 1\n",
        "map.toml": '[columns]\nstart = "t"\n',
        "table.csv": "t,d\n2026-03-02T00:00:00Z,phone\n",
        "apps.csv": "name,owner\nChat,me\n",
        "devices.csv": "ip,name\n10.0.0.1,phone\n",
        "key": "short",
    }.items():
        (path / name).write_text(content)
    (path / "key").chmod(0o600)
    (path / "binary.log").write_bytes(bytes(range(256)) * 8)
    return path


SCORE = "score telemetry --model model --out"
VERDICT = (
    "verdict add --device phone-00 --dest a.example --end 2026-03-03 --analyst ana --justification probe"
)
MISTAKES = [
    ("score nowhere --out new", ["nowhere", "convert"]),
    ("readiness notes.txt", ["notes.txt", "directory"]),
    ("report scored --html telemetry", ["telemetry is a directory", "file"]),
    (f"{SCORE} notes.txt", ["notes.txt is not a directory", "name a directory", "--out"]),
    (f"{SCORE} telemetry", ["telemetry exists", "choose another"]),
    ("train telemetry --out telemetry", ["telemetry", "not a bundle"]),
    ("report scored --html notes.txt/r.html", ["notes.txt is not a directory", "choose another", "--html"]),
    (
        "readiness telemetry --html /proc/here/r.html",
        ["/proc/here/r.html cannot be written", "choose another place", "--html"],
    ),
    (
        f"{SCORE} new --evidence /proc/e.jsonl",
        ["/proc/e.jsonl cannot be written", "choose another place", "--evidence"],
    ),
    (f"{SCORE} new --log scored", ["scored is a directory", "--log"]),
    ("features telemetry --out scored", ["scored is a directory"]),
    ("demo --out scored", ["scored exists", "choose another"]),
    ("simulate --out scored", ["scored is not empty", "choose another"]),
    ("score telemetry --model modl --out new", ["modl", "appcadence train"]),
    ("score telemetry --model old_model --out new", ["feature schema 0123456789ab", "train again"]),
    ("train telemetry --out new --window 6h --warm-start model", ["windows of 24h", "train with the same"]),
    ("train telemetry --window 5h", ["5h", "24h"]),
    ("train telemetry --exclude-family sizes", ["sizes", "size", "--exclude-family"]),
    (f"{SCORE} new --history others.parquet", ["others.parquet", "history"]),
    (
        "evaluate telemetry --model model --labels columns.parquet",
        ["columns.parquet", "lacks the required column 'device_id'"],
    ),
    (
        "evaluate telemetry --model model --labels others.parquet",
        ["others.parquet names no device of telemetry", "someone", "phone-00"],
    ),
    (
        "train telemetry --out new --verdicts columns.parquet",
        ["columns.parquet", "lacks the required column"],
    ),
    (f"{SCORE} new --exceptions exceptions.toml", ["'expired'", "did you mean expires?"]),
    (f"{SCORE} new --config settings.toml", ["'alert'", "did you mean alerts?"]),
    (f"{SCORE} new --since 03/04/2026", ["--since", "'03/04/2026'", "ISO 8601"]),
    (f"{SCORE} new --until yesterday", ["--until", "'yesterday'", "ISO 8601"]),
    (f"{SCORE} new --since 26-03-04", ["--since", "'26-03-04'", "ISO 8601"]),
    ("evidence report e.jsonl --from 1/10/2026 --to 2026-12-31", ["--from", "'1/10/2026'", "ISO 8601"]),
    (f"{SCORE} new --since 2026-03-09 --until 2026-03-02", ["2026-03-09", "2026-03-02"]),
    (f"{SCORE} new --since 2026-03-02T05:00", ["window of 24 h", "such as 2026-03-02T00:00", "--since"]),
    (f"{SCORE} new --alerts-per-device-day -1", ["-1", "above 0", "--alerts-per"]),
    (f"{SCORE} new --alerts-per-device-day nan", ["nan", "above 0"]),
    ("report telemetry --html r.html", ["telemetry", "appcadence score"]),
    ("explain scored --rank 99999", ["99999", "rank"]),
    (f"{VERDICT} --start 2026-03-02 --verdict bening", ["bening", "malicious, benign"]),
    (f"{VERDICT} --start 2.3.2026 --verdict benign", ["'2.3.2026'", "ISO 8601"]),
    ("convert empty.log --out new", ["empty.log"]),
    ("convert binary.log --out new", ["binary.log is in no known format", "zeek"]),
    ("convert notes.txt --out new", ["notes.txt is in no known format", "--format"]),
    ("convert notes.txt --out new --format zek", ["'zek'", "zeek"]),
    ("convert notes.txt --out new --local-net 10.0.0.0/33", ["10.0.0.0/33", "CIDR"]),
    ("convert table.csv --format table --map map.toml --out new", ["map.toml", "dest_host or dest_ip"]),
    ("convert notes.txt --devices devices.csv --out new", ["devices.csv", "address"]),
    ("convert notes.txt --pseudonymise key --out new", ["key holds 5 bytes", "at least 16"]),
    ("inventory merge apps.csv --into new", ["apps.csv", "--app-map"]),
    ("score telemetry", ["--out", "appcadence score --help"]),
    (f"{SCORE} new --modl m", ["--modl", "--model"]),
    ("scor telemetry", ["scor", "--help"]),
    ("simulate --out new --devices 0", ["--devices", "1"]),
]


def began(*_, **__):
    raise AssertionError("the work began")


@pytest.fixture
def typed(place, monkeypatch, capsys):
    """Types a command that must be refused before its work, leaving nothing; returns the sentence."""
    for name in WORK:
        monkeypatch.setattr(name, began)

    def refused(*words):
        before = sorted(place.rglob("*"))
        monkeypatch.chdir(place)
        monkeypatch.setattr("sys.argv", ["appcadence", *words])
        begin = time.process_time()
        with pytest.raises(SystemExit) as ended:
            main()
        took = time.process_time() - begin
        said = capsys.readouterr()
        assert ended.value.code == 2 and said.out == "" and took < MAX_SECONDS
        (sentence,) = said.err.splitlines()
        assert sentence.startswith("appcadence: ") and sorted(place.rglob("*")) == before
        return sentence

    return refused


@pytest.mark.parametrize(("words", "parts"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_before_any_work(typed, words, parts):
    sentence = typed(*words.split())
    assert not [part for part in parts if part not in sentence], sentence


def test_without_java_spark_is_not_begun(typed, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "Java not found" in typed(*SCORE.split(), "new", "--engine", "spark")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "install Java 17 or later, or set JAVA_HOME" in typed(*SCORE.split(), "new", "--engine", "spark")


def hidden(place, module, *words):
    """A command in a process of its own that cannot import a module."""
    code = f"import sys; sys.modules[{module!r}] = None; from appcadence.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=place, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("mlflow", ("train", "telemetry", "--out", "new", "--register")),
        ("jinja2", ("report", "scored", "--html", "r.html")),
    ],
)
def test_without_its_packages_no_command_begins(place, module, words):
    before = sorted(place.iterdir())
    done = hidden(place, module, *words)
    assert (done.returncode, done.stdout, sorted(place.iterdir())) == (2, "", before)
    assert re.fullmatch(rf"appcadence: {module} not found; install with: .*\n", done.stderr)


def test_a_tracking_server_that_does_not_answer(typed, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sentence = typed("train", "telemetry", "--out", "new", "--register")
    assert "http://127.0.0.1:9 does not answer; start it, or correct MLFLOW_TRACKING_URI" in sentence
    for words in (("models", "list"), ("score", "telemetry", "--model", "models:/a@b", "--out", "new")):
        assert "does not answer" in typed(*words)
