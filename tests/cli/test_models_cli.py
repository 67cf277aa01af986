"""The commands on models: bundles on disk, and registered ones against a real MLflow server over HTTP."""

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from make import DAY0, fleet, flows, table, together
from mlflow_server import mlflow_server

from appcadence.cli import main
from appcadence.errors import AppcadenceError, BundleError
from appcadence.features import describe
from appcadence.models import bundle
from appcadence.models.signature import make_key
from appcadence.serving import Scorer
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.schema import LABELS
from appcadence.training.train import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints while it is imported
    import mlflow.pyfunc  # noqa: F401

from appcadence.training import registry
from appcadence.training.publish import publish
from appcadence.training.registry import resolve

DAY = 86400
FROZEN = ("--data", "frozen", "--labels", "frozen.labels.parquet")


@pytest.fixture(scope="module")
def place(fleet_model, tmp_path_factory):
    """A directory with a model and a frozen evaluation set: two later days on which three phones beacon."""
    path = tmp_path_factory.mktemp("models")
    (path / "usual").symlink_to(fleet_model)
    baseline = fleet(devices=4, days=2)
    write_directory(path / "telemetry", baseline)
    whole = fleet(devices=4, days=6, seed=9)["flows"]
    after = pc.greater_equal(whole["start"].cast("int64"), (DAY0 + 4 * DAY) * 1_000_000)
    later, rows = [whole.filter(after)], []
    for phone in ("phone-00", "phone-01", "phone-02"):
        later.append(
            flows(np.arange(4 * DAY, 6 * DAY, 300.0), phone, "com.chat", "c2.example", 0.5, 310, 180)
        )
        where = {"device_id": phone, "app_id": "com.chat", "dest": "c2.example"}
        rows.append(where | {"start": 4.0 * DAY, "end": 6.0 * DAY, "label": "malicious"})
    write_directory(path / "frozen", {"flows": together(*later)})
    pq.write_table(table(LABELS, rows), path / "frozen.labels.parquet")
    return path


@pytest.fixture(scope="module")
def registered(place, tmp_path_factory):
    """Version 1 sees sizes, version 2, the challenger, is blind: no feature family is left to it.

    Yields the server's directory.
    """
    families = set(describe()["family"])
    source = TelemetryDirectory(place / "telemetry")
    tables = {"flows": source.read("flows")}
    store = tmp_path_factory.mktemp("server")
    with mlflow_server(store) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        for name, hidden in (("able", families - {"size"}), ("blind", families)):
            training = train(tables, exclude_families=tuple(sorted(hidden)))
            bundle.save(training.detector, place / name)
            publish(training, source, place / name)
        yield store


@pytest.fixture
def run(place, monkeypatch, capsys):
    """Types a command; returns (exit code, standard output, standard error)."""

    def typed(*words):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["appcadence", "models", *words])
        with pytest.raises(SystemExit) as done:
            main()
        return done.value.code or 0, *capsys.readouterr()

    return typed


@pytest.mark.slow
def test_a_worse_challenger_is_refused_and_forcing_it_is_recorded(registered, run):
    code, out, err = run("promote", "models:/appcadence/1", *FROZEN)
    assert (code, err) == (0, "") and "Version 1 is the champion." in out
    assert max(map(len, out.splitlines())) <= 80

    late = {"over": None, "forced": False, "reasons": []}
    with pytest.raises(AppcadenceError, match="version 1 became the champion while version 2 was judged"):
        registry.promote(registry.find("models:/appcadence/2"), late)

    code, out, err = run("promote", *FROZEN)
    assert code == 2 and "is the champion" not in out
    sentences = err.strip().splitlines()
    assert all("version 2 not promoted: " in line for line in sentences)
    assert sum("not promoted: recall at " in line for line in sentences) == 2
    assert max(map(len, out.splitlines())) <= 80
    after = json.loads(run("list", "--json")[1])
    assert [v["version"] for v in after] == ["2", "1"]
    assert [v["aliases"] for v in after] == [["challenger"], ["champion"]]
    assert after[0]["promotions"] == []

    code, out, err = run("promote", *FROZEN, "--json")
    answer = json.loads(out)
    assert code == 2 and answer["promoted"] is False and len(answer["reasons"]) >= 2

    code, out, err = run("promote", *FROZEN, "--force")
    assert code == 0 and "version 2 forced: recall" in err and "over version 1" in out
    shown = json.loads(run("show", "models:/appcadence@champion", "--json")[1])
    (record,) = shown["promotions"]
    assert shown["version"] == "2" and record["over"] == "1" and record["forced"] is True
    assert record["reasons"] == answer["reasons"] and record["evaluation"] == answer["evaluation"]
    assert record["figures"]["champion"]["recall_at_1_per_device_day"] > 0.9
    code, out, err = run("show", "models:/appcadence/2")
    assert "forced although recall at" in " ".join(out.split())

    code, out, err = run("promote", "models:/appcadence/1", *FROZEN, "--force", "--json")
    assert code == 0 and json.loads(out)["forced"] is False  # a better one needs no force
    both = json.loads(run("show", "models:/appcadence/1", "--json")[1])["promotions"]
    assert [r["over"] for r in both] == [None, "2"]
    code, out, err = run("promote", "models:/appcadence/1", *FROZEN)
    assert code == 2 and "the champion already" in err


def test_a_model_is_as_good_as_itself(run):
    code, out, err = run("compare", "usual", "usual", *FROZEN)
    assert code == 0 and "A: usual" in out and "6 implant-days" in out, err
    answer = json.loads(run("compare", "usual", "usual", *FROZEN, "--json")[1])
    assert answer["a"] == answer["b"] and answer["a"]["recall_at_1_per_device_day"] > 0.9


def test_a_model_that_learned_from_the_evaluation_set_is_said_to_have(run, place):
    rows = [
        {
            "device_id": "phone-00",
            "app_id": "com.chat",
            "dest": "chat.example",
            "start": 0.0,
            "end": 1.0 * DAY,
        }
    ]
    pq.write_table(
        table(LABELS, [row | {"label": "malicious"} for row in rows]), place / "seen.labels.parquet"
    )
    seen = ("--data", "telemetry", "--labels", "seen.labels.parquet")
    code, out, err = run("compare", "usual", "usual", *seen)
    assert code == 0 and "100% of these flows come from devices and days that A was trained on" in " ".join(
        out.split()
    ), err
    assert json.loads(run("compare", "usual", "usual", *seen, "--json")[1])["a"]["share_learned"] == 1.0
    assert json.loads(run("compare", "usual", "usual", *FROZEN, "--json")[1])["b"]["share_learned"] == 0.0


@pytest.mark.slow
def test_compare_and_list_are_tables_of_eighty_columns(registered, run, place):
    code, out, err = run("compare", "able", "models:/appcadence/2", *FROZEN)
    assert code == 0 and "A: able" in out and "6 implant-days" in out, err
    assert max(map(len, out.splitlines())) <= 80
    answer = json.loads(run("compare", "able", "blind", *FROZEN, "--json")[1])
    assert answer["a"]["recall_at_1_per_device_day"] > answer["b"]["recall_at_1_per_device_day"]
    code, out, err = run("list")
    assert code == 0 and "24h" in out and bundle.load(place / "able")[1][:12] in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("show", "usual"), "models:/NAME@ALIAS"),
        (("compare", "usual", "nowhere", *FROZEN), "nowhere"),
        (("compare", "usual", "usual", *FROZEN[:3], "nowhere.parquet"), "nowhere.parquet"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, words, part):
    code, _, err = run(*words)
    assert code == 2 and part in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("show", "models:/appcadence@nobody"), ("promote", "models:/appcadence/77", *FROZEN)]
)
def test_what_is_not_registered_is_one_sentence(registered, run, words):
    code, _, err = run(*words)
    assert code == 2 and "refused" in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_bundle_from_the_registry_scores_identically_without_mlflow(registered, place, tmp_path):
    code = (
        "import sys; sys.modules['mlflow'] = None; from appcadence.serving import Scorer; "
        "Scorer.load(sys.argv[1]).score('frozen')[['score']].to_parquet(sys.argv[2])"
    )
    got, out = resolve("models:/appcadence/1", tmp_path / "got"), tmp_path / "scores.parquet"
    subprocess.run([sys.executable, "-c", code, got, out], check=True, cwd=place)
    assert pd.read_parquet(out)["score"].equals(Scorer.load(place / "able").score(place / "frozen")["score"])


@pytest.mark.slow
def test_a_byte_changed_in_the_registry_is_refused(registered, place, tmp_path):
    wanted = (place / "able" / bundle.MANIFEST).read_bytes()
    manifests = (registered / "artifacts").rglob(bundle.MANIFEST)
    (stored,) = [file.parent for file in manifests if file.read_bytes() == wanted]
    for part in sorted(stored.iterdir()):
        whole = part.read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        part.write_bytes(changed)
        with pytest.raises(BundleError, match="altered"):
            Scorer.load(resolve("models:/appcadence/1", tmp_path / part.name))
        part.write_bytes(whole)


@pytest.mark.slow
def test_a_version_whose_run_records_no_bundle_is_refused_like_a_wrong_one(registered, run):
    words = ("compare", "able", "models:/appcadence/1", *FROZEN)
    run_id = registry.find("models:/appcadence/1").run_id
    recorded = registry.find("models:/appcadence/1").bundle

    def tag(value):
        with registry.session() as (_, client):
            if value is None:
                client.delete_tag(run_id, registry.BUNDLE_TAG)
            else:
                client.set_tag(run_id, registry.BUNDLE_TAG, value)

    try:
        for value, said in ((None, "has no tag appcadence.bundle"), ("0" * 64, "was altered since run")):
            tag(value)
            code, out, err = run(*words)
            assert code == 2 and said in err and "register it again" in err and not out
    finally:
        tag(recorded)
    assert run(*words)[0] == 0


@pytest.mark.slow
def test_models_of_the_registry_are_held_to_the_trusted_keys(registered, run, place):
    key = make_key(place / "signing.pem")
    (place / "appcadence.toml").write_text(f"[model]\ntrusted_keys = [{key!r}]\n")
    try:
        for words in (
            ("compare", "able", "models:/appcadence/1"),
            ("promote", "models:/appcadence/2", "--force"),
        ):
            code, out, err = run(*words, *FROZEN)
            assert code == 2 and "only models that a trusted key signed" in err and not out
    finally:
        (place / "appcadence.toml").unlink()


@pytest.mark.parametrize("command", ["list", "show", "compare", "promote"])
def test_help_has_an_example(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0 and f"Example: appcadence models {command}" in out


@pytest.mark.slow
def test_of_two_promotions_at_once_one_counts(registered):
    def told(_):
        try:
            registry.promote(other, {"over": over, "forced": True, "reasons": ["probe"]})
        except AppcadenceError as error:
            return str(error)
        return ""

    versions = {version.version: version for version in registry.versions()}
    for _ in range(20):
        champion = registry.champion("appcadence")
        over = champion and champion.version
        other = versions["2" if over == "1" else "1"]
        before = len(other.promotions)
        with ThreadPoolExecutor(2) as pool:
            done, refused = sorted(pool.map(told, range(2)))
        assert done == "" and f"version {other.version} became the champion while" in refused
        other = registry.find(other.uri)
        versions[other.version] = other
        assert registry.champion("appcadence").version == other.version
        assert len(other.promotions) == before + 1
