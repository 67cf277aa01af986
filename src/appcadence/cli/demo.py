"""simulate -> train -> score -> report, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from appcadence._extras import require
from appcadence._types import DAY_US
from appcadence.cli.evaluate import print_quality
from appcadence.cli.options import check_files
from appcadence.cli.progress import progress_bar
from appcadence.cli.score import print_run
from appcadence.cli.terminal import say
from appcadence.errors import TelemetryError
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.nightly import score_directory
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.simulate.fleet import write as write_fleet
from appcadence.training.evaluate import evaluate
from appcadence.training.injection import past_and_future
from appcadence.training.train import train
from appcadence.triage.report.page import write_report

_DEVICES = 40
_DAYS = 8
_SEED = 7


def demo(
    out: Annotated[Path, typer.Option(help="Directory for everything; must not exist.")] = Path("demo"),
) -> None:
    """Simulate a fleet, train on its first half, score the second, and write a report.

    The second half contains implants that the detector has never seen. Recall is measured against the
    simulator's own labels.

    Example: appcadence demo --out demo
    """
    require("train", "lightgbm", "sklearn")
    check_files(out=out / "report.html")
    if out.exists():
        raise TelemetryError(f"{out} exists; remove it or choose another --out")
    telemetry = out / "telemetry"
    with progress_bar() as progress:
        out.mkdir(parents=True)
        write_fleet(telemetry, _DEVICES, _DAYS, _SEED, progress=progress)
        tables = load(telemetry)
        first = tables["flows"]["start"].cast("int64").to_numpy()
        middle = int(first.min()) // DAY_US * DAY_US + _DAYS // 2 * DAY_US
        before, after = past_and_future(tables, middle)
        result = train(before, seed=_SEED, progress=progress)
        bundle.save(result.detector, out / "model")
        run = score_directory(after, Scorer.load(out / "model"), out / "scored", progress=progress)
        html = out / "report.html"
        write_report(out / "scored", html)
    say(
        f"A simulated fleet of {_DEVICES} devices: {_DAYS // 2} days to train on, then "
        f"{_DAYS // 2} days with implants to score."
    )
    print_run(run, out / "scored")
    say()
    say("Measured against the simulator's labels (simulated data; real fleets may differ):")
    labels = pq.read_table(out / "telemetry.labels.parquet")
    scores = pq.read_table(out / "scored" / "scores.parquet").to_pandas()
    print_quality(evaluate(scores, labels, tables["flows"]))
    say()
    say(f"Report: {html.resolve()}")
