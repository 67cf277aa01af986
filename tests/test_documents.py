"""The documents and notebooks, run the way a reader would."""

import gzip
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELLS = {"sh": ["sh", "-e", "-c"], "python": [sys.executable, "-c"]}
NOT_RUN = {"text"}
INSTALLS = "pip install"
"""What a clone of its own and a network are for."""


def documents():
    """Every document of the project, by its path."""
    paths = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


def run(script, place, kind="sh", timeout=600):
    """Run a script as a reader whose environment holds the package; returns what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PATH": path}
    done = subprocess.run(
        [*SHELLS[kind], script], cwd=place, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def follow(name, place):
    """Run the `sh` and `python` blocks of a document in order; consecutive ones of one kind are one script.

    Returns what they printed.
    """
    blocks = [(kind, text) for kind, text in BLOCK.findall(documents()[name]) if kind in SHELLS]
    blocks = [(kind, text) for kind, text in blocks if INSTALLS not in text]
    assert blocks
    return "".join(
        run("\n".join(text for _, text in group), place, kind)
        for kind, group in itertools.groupby(blocks, lambda block: block[0])
    )


def zeek_logs(day, place):
    """The logs of a real day under the names that log rotation gives."""
    for kind in ("conn", "ssl", "dns"):
        path = place / f"{kind}.2025-07-06.log.gz"
        if (day / f"{kind}.log").exists():
            path.write_bytes(gzip.compress((day / f"{kind}.log").read_bytes(), 1))
        else:
            shutil.copy(day / f"{kind}.log.gz", path)


def phone_logs(ios, place):
    """A real App Privacy Report, and a sysdiagnose around a real PowerLog."""
    shutil.copy(ios / "ios_app_privacy_report.ndjson", place / "App_Privacy_Report_v4_2021-12-16.ndjson")
    (powerlog,) = ios.glob("powerlog_*.PLSQL")
    name = "sysdiagnose_2021.12.16_05-54-00-0800_iPhone-OS_iPhone_19C56"
    with tarfile.open(place / f"{name}.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(powerlog, f"{name}/logs/powerlogs/{powerlog.name}")


def few_logs(place):
    """Where there are no real ones: one connection by hand, and no names."""
    row = {"ts": 1751800000.0, "uid": "C1", "id.orig_h": "192.168.2.5", "id.orig_p": 50000}
    row |= {"id.resp_h": "192.0.2.7", "id.resp_p": 443, "proto": "tcp", "conn_state": "SF"}
    for kind in ("conn", "ssl", "dns"):
        text = json.dumps(row) + "\n" if kind == "conn" else ""
        (place / f"{kind}.2025-07-06.log.gz").write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def logs(shared_data, tmp_path):
    """A fresh directory with real logs of a gateway and of a phone."""
    zeek_logs(shared_data / "insitu" / "numinon", tmp_path)
    phone_logs(shared_data / "ios", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(shared_data, tmp_path_factory):
    """A directory with the telemetry of a real day, a model and scores, as the README makes them."""
    place = tmp_path_factory.mktemp("trained")
    zeek_logs(shared_data / "insitu" / "numinon", place)
    blocks = [text for kind, text in BLOCK.findall(documents()["README.md"]) if kind == "sh"]
    run(next(text for text in blocks if "appcadence train" in text), place)
    run("appcadence score telemetry --model model --out scored", place)
    return place


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """A directory in which the first guide was followed, and what it printed."""
    place = tmp_path_factory.mktemp("retrain")
    day = ROOT.parent / "shared" / "data" / "insitu" / "numinon"
    zeek_logs(day, place) if day.is_dir() else few_logs(place)
    return place, follow("docs/guide-retrain.md", place)


def copied(source, names, place):
    for name in names:
        shutil.copytree(source / name, place / name)
    return place


FOLLOWED = {
    "README.md",
    "docs/config.md",
    "docs/findings.md",
    "docs/guide-embed.md",
    "docs/guide-nightly.md",
    "docs/guide-retrain.md",
    "docs/how-to.md",
    "docs/iphone.md",
    "docs/spark.md",
}
"""Documents with blocks to run; a test below is of each."""


def test_every_block_is_run_or_is_text():
    kinds = {name: {kind for kind, _ in BLOCK.findall(text)} for name, text in documents().items()}
    assert {name for name, of in kinds.items() if of & set(SHELLS)} == FOLLOWED
    assert set().union(*kinds.values()) <= NOT_RUN | set(SHELLS), kinds


@pytest.mark.parametrize("name", documents())
def test_what_is_no_block_of_ours_has_no_commands_to_paste(name):
    """Blocks of text hold what is printed, other programs and crontabs."""
    for kind, text in BLOCK.findall(documents()[name]):
        assert kind in SHELLS or not re.search(r"^(\$ )?appcadence ", text, re.MULTILINE), text
    assert "appcadence[" not in documents()[name], "there is no release on an index"


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere_on_the_code_host(name):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", documents()[name]):
        if not re.match("https?:|mailto:", target):
            assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.slow
def test_the_readme(logs):
    follow("README.md", logs)
    assert (logs / "demo" / "report.html").is_file() and (logs / "phone.html").is_file()
    assert (logs / "scored" / "alerts.csv").is_file() and (logs / "weekly.parquet").is_file()


@pytest.mark.slow
@pytest.mark.network
def test_installing_from_a_clone_as_the_readme_says(logs):
    clone = logs / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True, timeout=60)
    (install,) = (text for _, text in BLOCK.findall(documents()["README.md"]) if INSTALLS in text)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    script = f"""{install}
command -v appcadence
appcadence convert ../*.log.gz --out first --local-net 192.168.0.0/16
appcadence score first --out scored
python -c 'import mlflow, appcadence'"""
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=clone, env=clean, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(clone / ".venv" / "bin" / "appcadence") in done.stdout
    assert (clone / "scored" / "alerts.csv").read_text().count("\n") > 1


@pytest.mark.slow
def test_how_to(logs):
    printed = follow("docs/how-to.md", logs)
    assert "192.168.2.115" in printed
    masked = pq.read_table(logs / "masked" / "flows", columns=["device_id"])
    (device,) = masked["device_id"].unique().to_pylist()
    assert "192" not in device.split(".")


@pytest.mark.slow
def test_one_iphone(logs):
    follow("docs/iphone.md", logs)
    assert (logs / "phone.html").read_text().count("What this phone shows")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/config.md", "docs/findings.md"])
def test_a_page_of_reference(name, trained, tmp_path):
    printed = follow(name, copied(trained, ["telemetry", "model", "scored"], tmp_path))
    assert printed.strip()


@pytest.mark.slow
@pytest.mark.spark
def test_spark(trained, tmp_path):
    follow("docs/spark.md", copied(trained, ["telemetry", "model"], tmp_path))
    assert (tmp_path / "scored" / "scores.parquet").is_file()


@pytest.mark.slow
def test_the_guide_to_retraining(retrained):
    place, printed = retrained
    assert "can be judged on" in printed and "Recall by kind" in printed
    assert re.search(r"^(retrain|watch|fine): ", printed, re.MULTILINE)
    assert (place / "model" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_guide_to_the_nightly_job(retrained, tmp_path):
    shutil.copytree(retrained[0] / "fleet", tmp_path / "telemetry")
    shutil.copytree(retrained[0] / "model", tmp_path / "model")
    printed = follow("docs/guide-nightly.md", tmp_path)
    printed = " ".join(printed.split())  # a sentence may break between any two words
    assert printed.count("nothing to do") == 1 and "malicious: phone-" in printed
    for day in ("2026-03-05", "2026-03-06"):
        assert (tmp_path / "scored" / f"{day}.html").is_file()
        assert (tmp_path / "scored" / day / "alerts.ecs.jsonl").read_text().strip()
    assert not list((tmp_path / "scored").glob(".*"))


@pytest.mark.slow
def test_the_guide_to_embedding(retrained, tmp_path):
    for name in ("telemetry", "later", "model"):
        (tmp_path / name).symlink_to(retrained[0] / name)
    assert "windows are outliers" in follow("docs/guide-embed.md", tmp_path)


def plots(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_what_it_shows(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run make notebooks"
    assert len(plots(notebook)) >= 2 and path.stat().st_size < 300_000
    assert "/tmp/" not in "".join(json.dumps(o) for cell in code for o in cell.outputs if "png" not in str(o))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    executed = runpy.run_path(str(ROOT / "examples" / "save.py"))["executed"]
    kept = nbformat.read(path, as_version=4)
    assert len(plots(executed(path, tmp_path))) == len(plots(kept))
