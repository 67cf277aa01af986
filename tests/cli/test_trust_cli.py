"""Which models the commands load: signed, unsigned, of another key or id, muted, of numbers that are none."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade import changed
from make import fleet
from scoring_server import serving

from appcadence.cli import main
from appcadence.models import bundle, signature
from appcadence.telemetry.directory import write_directory
from appcadence.triage import audit_log

SHIPPED = Path(bundle.__file__).parent / "shipped"
OTHER = "ed25519:" + "A" * 43 + "="
REFUSED = "only models that a trusted key signed are loaded"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Types a command; returns what it says, or its one sentence with exit code 2."""

    def typed(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["appcadence", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            main()
        said, error = capsys.readouterr()
        if not done.value.code:
            return " ".join(said.split())
        assert done.value.code == 2 and not said and len(error.strip().splitlines()) == 1, (said, error)
        return error

    return typed


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "telemetry"
    write_directory(path, fleet(devices=2, days=2))
    return path


@pytest.fixture
def place(tmp_path, telemetry):
    """A directory with telemetry and an unsigned model."""
    shutil.copytree(telemetry, tmp_path / "telemetry")
    shutil.copytree(SHIPPED / "reference", tmp_path / "model")
    return tmp_path


@pytest.fixture
def key(place, run):
    """The public half of signing.pem, which signed the model."""
    said = json.loads(run("models", "keygen", "signing.pem", "--json"))
    answer = json.loads(run("models", "sign", "model", "--key", "signing.pem", "--json"))
    assert answer["key"] == said["key"] and answer["id"] == bundle.load("model")[1]
    return said["key"]


def trusting(key):
    return f"[model]\ntrusted_keys = [{key!r}]\n"


def facts(file):
    return json.loads(file.read_text().splitlines()[-1])["facts"]


def test_score_says_who_signed_and_its_evidence_has_it(place, run):
    words = ("score", "telemetry", "--model", "model", "--out")
    assert "The model is not signed" in run(*words, "first")
    assert facts(place / "first.evidence.jsonl")["model"]["signer"] is None
    key = json.loads(run("models", "keygen", "signing.pem", "--json"))["key"]
    run("models", "sign", "model", "--key", "signing.pem")
    (place / "appcadence.toml").write_text(trusting(key))
    identity = bundle.load(place / "model")[1]
    said = run(*words, "second", "--expect-model", identity, "--anchor", "heads")
    assert f"The model is signed by {key}." in said
    assert facts(place / "second.evidence.jsonl")["model"]["signer"] == key
    run("score", "--reapply", "--out", "second")
    assert facts(place / "second.evidence.jsonl")["model"]["signer"] == key

    head = audit_log.verify(place / "second.evidence.jsonl").head
    assert head in (place / "heads").read_text()
    noted = (place / "heads").read_text()
    said = run("evidence", "verify", "second.evidence.jsonl", "--anchor", "heads")
    assert "Nothing was cut off or rewritten up to line 1, the last head given" in said
    assert (place / "heads").read_text() == noted
    (place / "heads").write_text(noted.replace(head, "0" * 64))
    error = run("evidence", "verify", "second.evidence.jsonl", "--anchor", "heads")
    assert "the head on line 1 of heads is that of none of its 1 lines" in error


def test_a_wrong_id_is_refused(place, run, key):
    error = run("score", "telemetry", "--model", "model", "--out", "o", "--expect-model", "0" * 64)
    assert f"not {'0' * 64} as expected" in error and not (place / "o").exists()


COMMANDS = {
    "score": "score telemetry --model model --out o",
    "score --config": "score telemetry --model model --out o --config elsewhere.toml",
    "drift": "drift telemetry --model model",
    "evaluate": "evaluate telemetry --model model",
    "phone": "phone telemetry --model model",
    "train": "train telemetry --warm-start model --out o",
    "models compare": "models compare model model --data telemetry --labels labels.parquet",
    "serve": "serve --model model --config elsewhere.toml",
}


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_keeps_to_the_trusted_keys(place, run, key, monkeypatch, name, signed):
    import pyarrow.parquet as pq

    from appcadence.telemetry.schema import LABELS

    pq.write_table(LABELS.empty(), place / "labels.parquet")
    if not signed:
        (place / "model" / signature.FILE).unlink()
    elsewhere = "elsewhere.toml" in COMMANDS[name]
    (place / ("elsewhere.toml" if elsewhere else "appcadence.toml")).write_text(trusting(OTHER))
    if elsewhere:
        (place / "appcadence.toml").write_text(trusting(key))
    error = run(*COMMANDS[name].split())
    assert REFUSED in error and (f"is signed by {key}" if signed else "is not signed") in error
    assert not (place / "o").exists()


@pytest.mark.slow
def test_serve_says_who_signed(place, key):
    (place / "settings.toml").write_text(trusting(key))
    with serving("--model", place / "model", "--config", place / "settings.toml") as (_, server):
        assert "The model is signed by" in server.stdout.readline()


def test_muted_models_and_numbers_that_are_none_are_refused(place, run):
    with np.load(place / "model/arrays.npz") as archive:
        weights = archive["weights"]
    for name, wrong, said in (
        ("muted", np.zeros_like(weights), "would alert on nothing of its own calibration sample"),
        ("nan", weights * np.nan, "not a usable model|weights"),
    ):
        changed(place / "model", place / name, weights=wrong)
        error = run("score", "telemetry", "--model", name, "--out", "o")
        assert any(part in error for part in said.split("|")) and not (place / "o").exists()


@pytest.mark.slow
def test_what_is_trained_can_be_signed_at_once(place, run):
    key = json.loads(run("models", "keygen", "signing.pem", "--json"))["key"]
    (place / "signing.pem").chmod(0o644)
    assert "accessible to others" in run("train", "telemetry", "--sign-key", "signing.pem", "--out", "new")
    assert not (place / "new").exists()
    (place / "signing.pem").chmod(0o600)
    run("train", "telemetry", "--sign-key", "signing.pem", "--out", "new")
    (place / "appcadence.toml").write_text(trusting(key))
    assert f"signed by {key}" in run("score", "telemetry", "--model", "new", "--out", "o")
