"""Embed the scorer with only the base packages; run as a script, it imports no test library.

    python scorer_alone.py TELEMETRY_DIR MODEL OUT.parquet [--hide]

--hide makes installed optional packages impossible to import.
"""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

OPTIONAL = {
    "cryptography",
    "fastapi",
    "jinja2",
    "joblib",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "orjson",
    "prometheus_client",
    "pydantic",
    "pyspark",
    "rich",
    "scipy",
    "sklearn",
    "starlette",
    "typer",
    "uvicorn",
}
BROUGHT = {"markupsafe", "py4j", "typing_extensions"}
"""What packages of extras bring: Jinja2, PySpark, Pydantic."""
TAKES_AN_EXTRA = (
    "appcadence.cli",
    "appcadence.features.transformer",
    "appcadence.serving.pyfunc",
    "appcadence.serving.server.app",
    "appcadence.serving.server.arrow_body",
    "appcadence.serving.server.connection",
    "appcadence.serving.server.door",
    "appcadence.serving.server.limits",
    "appcadence.serving.server.wire",
    "appcadence.serving.server.work",
    "appcadence.serving.spark",
    "appcadence.training.estimators",
    "appcadence.training.figures",
    "appcadence.triage.report.case_card",
    "appcadence.triage.report.html",
    "appcadence.triage.report.page",
    "appcadence.triage.report.plain_pages",
)


def import_everything():
    """Every module that takes no extra can be imported; those that do say which package they lack."""
    import appcadence

    assert all(getattr(appcadence, name) for name in appcadence.__all__)
    names = [module.name for module in pkgutil.walk_packages(appcadence.__path__, "appcadence.", onerror=str)]
    failed = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            failed[name] = error.name
    unexpected = {name: lacks for name, lacks in failed.items() if not name.startswith(TAKES_AN_EXTRA)}
    assert not unexpected, unexpected
    strangers = {lacks.split(".")[0] for lacks in failed.values()} - OPTIONAL - BROUGHT
    assert not strangers, f"of no extra: {strangers}"
    without = [name for name in TAKES_AN_EXTRA if not any(lost.startswith(name) for lost in failed)]
    assert not without, f"no longer takes an extra: {without}"


def main(telemetry, model, out):
    assert not [name for name in OPTIONAL if importlib.util.find_spec(name)]
    import_everything()
    import pandas as pd

    from appcadence import AppcadenceError, Scorer, describe, extract, score_directory, train
    from appcadence.telemetry.simulate.fleet import write

    scorer = Scorer.load(model)
    scores = scorer.score(telemetry)
    scores[["score"]].to_parquet(out)
    assert len(scorer.score(telemetry, false_discovery_rate=0.5)) == len(scores)
    table = extract(telemetry, scorer.detector.window, scorer.detector.history)
    assert set(describe()["feature"]) <= set(table)
    row = table.iloc[int(scores["rank"].where(scores["rank"] > 0).argmin())]
    assert scorer.explain(row).reasons
    flows = pd.read_parquet(f"{telemetry}/flows.parquet").sort_values("start")
    assert len(scorer.update(flows, until=pd.Timestamp.now("UTC")))
    assert score_directory(telemetry, scorer, f"{out}.scored").windows == len(scores)
    written = write(Path(f"{out}.fleet"), 65, 1, 0, processes=2)  # two blocks, which joblib would share out
    assert written["devices"] == 65
    try:
        train(telemetry)
    except AppcadenceError as error:
        assert "lightgbm and sklearn not found" in str(error) and "pip install" in str(error)
    else:
        raise AssertionError("trained without LightGBM")


if __name__ == "__main__":
    if "--hide" in sys.argv:
        sys.modules.update(dict.fromkeys(OPTIONAL))
    main(*sys.argv[1:4])
