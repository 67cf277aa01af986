"""One day scored in every way there is: the same numbers."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow_server import await_answer, free_port, mlflow_server, stop

from appcadence.errors import AppcadenceError
from appcadence.features import extract
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.schema import FLOWS, conform
from appcadence.telemetry.simulate.fleet import simulate, write
from appcadence.training.publish import plain, publish
from appcadence.training.train import train

KEY = ["device_id", "app_id", "dest", "window_start"]
NUMBERS = ["score", "p_value"]
BLOCK_FLOWS = 2_000
"""Small, so that there are many blocks."""
NEVER, ALWAYS = -(2**62), 2**62
TIMES = dict.fromkeys(("flows", "activity", "usage", "tasks", "coverage"), "start") | {
    "notifications": "time"
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory of three days with implants and a model of another fleet; and the training of that."""
    path = tmp_path_factory.mktemp("same")
    write(path / "telemetry", 12, 3, 5, implants_per_device_day=0.3)
    write(path / "past", 12, 5, 6)
    result = train(load(TelemetryDirectory(path / "past")))
    bundle.save(result.detector, path / "model")
    return path, result


@pytest.fixture(scope="module", autouse=True)
def made_at():
    """All alerts are made at the same time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", "1772900000")
        yield


@pytest.fixture(scope="module")
def place(trained):
    return trained[0]


@pytest.fixture(scope="module")
def registered(trained):
    """The model as the challenger of an MLflow server."""
    path, result = trained
    with mlflow_server(path) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        publish(result, TelemetryDirectory(path / "past"), path / "model")
        yield


@pytest.fixture(scope="module")
def scorer(place):
    return Scorer.load(place / "model")


@pytest.fixture(scope="module")
def batch(place, scorer):
    """The scores table of the batch job, by key."""
    score_directory(place / "telemetry", scorer, place / "local", block_flows=BLOCK_FLOWS)
    return by_key(pq.read_table(place / "local" / "scores.parquet").to_pandas())


@pytest.fixture(scope="module")
def features(place, scorer):
    return extract(place / "telemetry", "24h", scorer.detector.history)


@pytest.fixture(scope="module")
def spark():
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java, on which Spark runs, is not installed")
    from appcadence.serving.spark import session

    started = session()
    yield started
    started.stop()


def by_key(scores):
    return scores.sort_values(KEY, ignore_index=True)


def difference(ours, batch):
    """The largest difference of a number; rows and unknown numbers must agree."""
    ours = by_key(ours)
    keys = [t[KEY].astype(object).where(t[KEY].notna(), None) for t in (ours, batch)]
    pd.testing.assert_frame_equal(*keys, check_dtype=False)
    values, expected = (t[NUMBERS].astype(float).to_numpy() for t in (ours, batch))
    assert np.array_equal(np.isnan(values), np.isnan(expected)) and (~np.isnan(expected)).any()
    return float(np.nanmax(np.abs(values - expected)))


def test_the_library_scores_like_the_batch_job(place, scorer, batch, features):
    assert difference(scorer.score(place / "telemetry"), batch) == 0
    assert difference(scorer.score_windows(features), batch) == 0


@pytest.mark.spark
def test_spark_writes_the_same_bytes(place, scorer, batch, spark):
    from appcadence.serving.spark import engine

    told = []
    score_directory(
        place / "telemetry",
        scorer,
        place / "spark",
        block_flows=BLOCK_FLOWS,
        engine=engine(spark),
        progress=lambda what, share: told.append((what, share)),
    )
    names = sorted(file.name for file in (place / "local").iterdir())
    assert names == sorted(file.name for file in (place / "spark").iterdir())
    for name in names:
        assert (place / "local" / name).read_bytes() == (place / "spark" / name).read_bytes(), name
    assert {"extracting", "scoring"} & {what for what, _ in told}
    assert all(0 <= share <= 1 for _, share in told)


@pytest.mark.spark
def test_spark_scores_one_night_from_the_history_of_the_last(place, scorer, spark):
    from appcadence.serving.spark import engine

    first = pq.read_table(place / "telemetry" / "flows.parquet", columns=["start"])["start"]
    day = pd.Timestamp(pc.min(first).as_py()).floor("D") + pd.Timedelta("1D")
    for name, more in (("a", {}), ("b", {"engine": engine(spark)})):
        score_directory(place / "telemetry", scorer, place / f"first-{name}", until=day, **more)
        history = place / f"first-{name}" / "history.parquet"
        score_directory(
            place / "telemetry", scorer, place / f"then-{name}", since=day, history=history, **more
        )
    for file in ("scores.parquet", "history.parquet", "alerts.csv"):
        assert (place / "then-a" / file).read_bytes() == (place / "then-b" / file).read_bytes(), file


@pytest.mark.spark
def test_what_fails_on_spark_is_one_sentence(place, scorer, spark, tmp_path):
    from appcadence.serving.spark import engine

    with pytest.raises(AppcadenceError, match="must be a directory"):
        score_directory(simulate(2, 1, 1).tables, scorer, tmp_path / "out", engine=engine(spark))
    broken = tmp_path / "telemetry"
    broken.mkdir()
    content = bytearray((place / "telemetry" / "flows.parquet").read_bytes())
    content[4:3000] = bytes(2996)  # the footer is whole: only a worker that reads the pages sees it
    (broken / "flows.parquet").write_bytes(content)
    with pytest.raises(AppcadenceError, match=r"flows\.parquet") as caught:
        score_directory(broken, scorer, tmp_path / "out", engine=engine(spark))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_micro_batches_add_up_to_the_batch(place, scorer, batch):
    live = Scorer.load(place / "model")
    tables = {name: pq.read_table(place / "telemetry" / f"{name}.parquet") for name in (*TIMES, "inventory")}
    tables["flows"] = conform(FLOWS, tables["flows"])
    moments = {name: micros(tables[name][column]) for name, column in TIMES.items()}
    edges = [NEVER, *np.sort(moments["flows"])[::700].tolist(), ALWAYS]
    found = []
    for number, (low, high) in enumerate(pairwise(edges)):
        part = {n: tables[n].filter(pa.array((m >= low) & (m < high))) for n, m in moments.items()}
        more = {"inventory": tables["inventory"]} if number == 0 else {}
        found.append(live.update(part.pop("flows"), **part, **more))
    end = pd.Timestamp("2100-01-01", tz="UTC")
    found.append(live.update(tables["flows"].slice(0, 0), until=end))
    assert sum(len(rows) > 0 for rows in found) >= 3
    together = pd.concat([rows for rows in found if len(rows)], ignore_index=True)
    assert difference(together, batch) == 0
    assert (by_key(together)["alert"] == batch["alert"]).all()
    assert live.live.history.contacts.equals(scorer.run(place / "telemetry").history.contacts)
    # A flow of the first day comes when all its windows have been scored.
    assert live.live.late_flows == 0
    assert not len(live.update(tables["flows"].slice(0, 1))) and live.live.late_flows == 1


def test_the_model_that_mlflow_loads_gives_the_same_scores(place, batch, features):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        from appcadence.serving.pyfunc import CadenceModel

        model = CadenceModel()
        model.load_context(SimpleNamespace(artifacts={"bundle": place / "model"}))
        assert difference(model.predict(None, plain(features)), batch) == 0


@pytest.mark.slow
def test_mlflow_serves_the_same_scores_over_http(registered, place, batch, features):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/appcadence@challenger", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow looks for its server among the commands of the environment.
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (place / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)
    try:
        await_answer(f"http://127.0.0.1:{port}/ping", server, place / "serve.log")
        found = []
        # Windows of a device share its shift: they come together.
        for _, rows in features.groupby("device_id", observed=True):
            body = {"dataframe_split": json.loads(as_json(rows))}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                found += json.load(answer)["predictions"]
    finally:
        stop(server)
    served = pd.DataFrame(found)
    served["window_start"] = pd.to_datetime(served["window_start"], utc=True)
    assert difference(served, batch) == 0


def as_json(rows):
    rows = plain(rows)
    for name in ("window_start", "window_end"):
        rows[name] = rows[name].astype(str)
    # pandas writes ten digits, Python as many as there are.
    split = rows.astype(object).where(rows.notna(), None).to_dict("split", index=False)
    return json.dumps(split)


@pytest.mark.slow
@pytest.mark.spark
def test_a_spark_column_function_gives_the_same_scores(registered, batch, features, spark):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's and Spark's own
        import mlflow.pyfunc

        rows = plain(features)
        kind = "struct<score: double, p_value: double>"
        function = mlflow.pyfunc.spark_udf(
            spark, "models:/appcadence@challenger", result_type=kind, env_manager="local"
        )
        # In one partition, and so in one batch: windows of a device share its shift.
        table = spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False)).coalesce(1)
        found = table.select(*KEY, function(*rows.columns).alias("s")).select(*KEY, "s.*").toArrow()
    scored = found.to_pandas()
    scored["window_start"] = pd.to_datetime(scored["window_start"], utc=True)
    assert difference(scored, batch) == 0


@pytest.mark.spark
def test_a_cancelled_spark_job_is_one_sentence_too(place, scorer, spark, tmp_path):
    from appcadence.serving.spark import engine

    def cancel(what, share):
        if what == "extracting":
            spark.sparkContext.cancelAllJobs()

    with pytest.raises(AppcadenceError, match=r"Spark failed: .*cancelled") as caught:
        score_directory(
            place / "telemetry",
            scorer,
            tmp_path / "out",
            engine=engine(spark),
            progress=cancel,
            block_flows=500,
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
