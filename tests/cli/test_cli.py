"""The commands as a person types them: most in their own process, what is refused at once in this one."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from make import fleet, flows, together
from typer.testing import CliRunner

from appcadence.cli import app, main
from appcadence.telemetry.directory import write_directory

COMMAND = Path(sys.executable).with_name("appcadence")


def run(*words, cwd, **env):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | env
    return subprocess.run(
        [COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, env=environment
    )


def fails(done, *parts):
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr.replace("\n", " "), done.stderr


@pytest.fixture
def refused(monkeypatch, capsys):
    """Types a command in this process that must end in one sentence; returns that."""

    def typed(*words, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["appcadence", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        (sentence,) = capsys.readouterr().err.strip().splitlines()
        return sentence

    return typed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    write_directory(path / "telemetry", fleet(devices=5, days=4))
    return path


@pytest.mark.slow
def test_simulate_train_score_evaluate_report(tmp_path):
    done = run("simulate", "--out", "t", "--devices", 12, "--days", 4, "--seed", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("train", "t", "--window", "24h", "--out", "m", "--search-trials", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [trial["trees"] for trial in answer["trials"]] == [answer["params"]["trees"]] == [80]
    assert len(answer["id"]) == 64 and answer["metrics"]["implant_days"] > 0
    done = run("score", "t", "--model", "m", "--out", "o", cwd=tmp_path)
    assert done.returncode == 0 and "Blind spot" in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    scored_again(tmp_path, done.stdout.split()[-1])
    done = run("evaluate", "t", "--model", "m", "--labels", "t.labels.parquet", "--json", cwd=tmp_path)
    metrics = json.loads(done.stdout)
    assert 0 <= metrics["recall_at_1_per_device_day"] <= 1 and metrics["implant_days"] > 0
    done = run("evaluate", "t", "--model", "m", cwd=tmp_path)
    assert done.returncode == 0 and "Nothing here is later than the training" in done.stdout, done.stderr
    assert "Spearman" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    done = run("evaluate", "t", "--model", "m", "--json", cwd=tmp_path)
    health = json.loads(done.stdout)
    assert health["seen_in_training"] and -1 <= health["rank_correlation"] <= 1 and health["ranked_apps"] > 3
    for budget in ("0.1", "1", "3"):
        assert 0 <= health[f"injected_recall_at_{budget}_per_device_day"] <= 1
        assert health[f"raised_at_{budget}_per_device_day"] >= 0
    done = run("report", "o", "--html", "r.html", cwd=tmp_path)
    assert done.returncode == 0 and "<svg" in (tmp_path / "r.html").read_text()
    assert pq.read_table(tmp_path / "o" / "scores.parquet").num_rows > 0


def scored_again(path, head):
    """A second run adds nothing, lost evidence is made up for, and exceptions act on what stands."""
    evidence = path / "o.evidence.jsonl"
    line = evidence.read_text()
    assert len(line.splitlines()) == 1 and json.loads(line)["hash"] == head
    done = run("score", "t", "--model", "m", "--out", "o", cwd=path)
    assert done.returncode == 0 and "nothing to do" in done.stdout and evidence.read_text() == line
    evidence.unlink()
    done = run("score", "t", "--model", "m", "--out", "o", cwd=path)
    assert len(evidence.read_text().splitlines()) == 1, done.stderr
    rank_one = pq.read_table(path / "o" / "scores.parquet").to_pandas().set_index("rank").loc[1]
    name = "app_id" if isinstance(rank_one["app_id"], str) else "dest"
    what = f'{name.replace("dest", "destination")} = "{rank_one[name]}"'
    (path / "e.toml").write_text(
        '[[exception]]\nid = "known"\nowner = "o"\nreason = "r"\nbusiness_justification = "b"\n'
        f"created = 2020-01-01\nexpires = 2099-01-01\n{what}\n"
    )
    done = run("score", "--out", "o", "--reapply", "--exceptions", "e.toml", "--json", cwd=path)
    assert json.loads(done.stdout)["excepted"] > 0, done.stderr
    assert max(map(len, run("score", "--out", "o", "--reapply", cwd=path).stdout.splitlines())) <= 80
    lines = [json.loads(text)["facts"] for text in evidence.read_text().splitlines()]
    assert [facts["exceptions"]["in_force"] for facts in lines] == [[], ["known"], []]
    assert lines[0]["scores_sha256"] == lines[2]["scores_sha256"] != lines[1]["scores_sha256"]
    done = run("evidence", "verify", "o.evidence.jsonl", cwd=path)
    assert done.returncode == 0 and "3 lines" in done.stdout
    fails(run("score", "t", "--out", "o", "--reapply", cwd=path), "--reapply")
    fails(run("score", "--out", "o", cwd=path), "--model")
    fails(run("score", "t", "--model", "m", "--out", "o", "--since", "soon", cwd=path), "--since")


def test_features_are_written_and_described(place):
    done = run("features", "telemetry", "--out", "f.parquet", "--window", "6h", cwd=place)
    assert done.returncode == 0 and pq.read_table(place / "f.parquet").num_rows > 0
    done = run("features", "--describe", cwd=place)
    assert "session_interval_entropy_ratio" in done.stdout
    fails(run("features", "telemetry", cwd=place), "--out")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train", "nowhere"), ("nowhere", "convert")),
        (("train", "telemetry", "--window", "5h"), ("5h", "24h")),
        (("train", "telemetry", "--exclude-family", "rhythm"), ("rhythm", "interval")),
        (("train", "telemetry", "--search-trials", "-1"), ("-1", "negative")),
        (("evaluate", "telemetry", "--model", "nowhere"), ("nowhere", "appcadence train")),
        (("score", "telemetry", "--model", "nowhere", "--out", "o"), ("nowhere", "appcadence train")),
        (("score", "nowhere", "--model", "nowhere", "--out", "o"), ("nowhere",)),
        (("report", "nowhere", "--html", "r.html"), ("nowhere", "appcadence score")),
        (("convert", "nowhere.log", "--out", "c"), ("nowhere.log",)),
        (("simulate", "--out", "telemetry", "--devices", "2", "--days", "1"), ("telemetry",)),
        (("evaluate", "telemetry", "--model", "m", "--labels", "nowhere.parquet"), ("nowhere.parquet",)),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(place, words, parts, refused):
    before = sorted(p.name for p in place.iterdir())
    sentence = refused(*words, cwd=place)
    assert all(part in sentence for part in parts)
    assert sorted(p.name for p in place.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x00" * 4096, b"not parquet at all" * 100])
def test_a_broken_table_is_named(tmp_path, content, refused):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "flows.parquet").write_bytes(content)
    assert "flows.parquet" in refused("features", "t", "--out", "f.parquet", cwd=tmp_path)
    assert not (tmp_path / "f.parquet").exists()


def test_terminal_output_is_inert_under_hostile_names(fleet_model, tmp_path):
    evil = "\x1b[31mred\x1b[0m[bold]x[/].example"
    tables = fleet(devices=5, days=4)
    tables["flows"] = together(
        tables["flows"],
        flows(86400 * 3 + np.arange(0, 80000, 60.0), "phone-01", "com.\x1b]0;own\x07ed", evil),
    )
    write_directory(tmp_path / "t", tables)
    done = run("score", "t", "--model", fleet_model, "--out", "o", cwd=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\x07" not in done.stdout


@pytest.mark.parametrize(
    "name", ["demo", "simulate", "convert", "features", "train", "evaluate", "score", "report"]
)
def test_every_command_has_help_with_an_example(name):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0 and "Example" in done.output


def test_a_second_run_takes_its_kernels_from_the_cache(place):
    def seconds():
        """Of the processor: the machine may be busy with other things."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("features", "telemetry", "--out", "warm.parquet", cwd=place).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime

    seconds()
    # Compiling them takes over ten seconds.
    assert min(seconds() for _ in range(2)) < 6


def test_a_command_imports_no_other():
    code = (
        "import sys; import appcadence.cli; print([m for m in sys.modules if 'numba' in m or 'pandas' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert CliRunner().invoke(app, ["nonesuch"]).exit_code == 2


@pytest.mark.parametrize("found", ["does not exist", "holds no run.json"])
@pytest.mark.parametrize(
    "words",
    [
        ("report", "OUT", "--html", "r.html"),
        ("explain", "OUT", "--case", 1),
        (
            "verdict",
            "add",
            "OUT",
            "--case",
            1,
            "--verdict",
            "benign",
            "--analyst",
            "a",
            "--justification",
            "b",
        ),
        ("score", "--reapply", "--out", "OUT"),
        ("exceptions", "check", "e.toml", "--scores", "OUT"),
        ("deliver", "OUT", "--syslog", "127.0.0.1:9"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_no_output_is_named_by_every_command(words, found, refused, tmp_path):
    (tmp_path / "e.toml").touch()
    if found == "holds no run.json":
        (tmp_path / "OUT").mkdir()
    said = refused(*words, cwd=tmp_path)
    assert f"OUT {found}; expected the output of 'appcadence score'" in said
