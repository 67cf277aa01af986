"""Implants injected into telemetry, and how a finished detector scores the days on which they worked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.models.detector import Detector, calibrated, hide
from appcadence.models.eligibility import eligible
from appcadence.models.pipeline import assemble
from appcadence.telemetry.schema import LABELS, conform
from appcadence.telemetry.simulate.behaviours import KINDS, Behaviour
from appcadence.telemetry.simulate.implants import inject
from appcadence.telemetry.simulate.phone_log import joined
from appcadence.training.injection import Tables, aligned_spans, past_and_future
from appcadence.training.train import Training
from appcadence.training.truth import Truth, truth_of, with_names

_SHOWN = ["device_id", "app_id", "dest", "window_start", "window_end", "observed_seconds"]


@dataclass(frozen=True)
class Probe:
    """Scored windows with implants among them."""

    windows: pd.DataFrame
    """(n, ...) device_id, app_id, dest, window_start, window_end, observed_seconds and score, which is NaN
    where there is too little evidence or a fleet event."""
    truth: Truth
    """Every implant-day, those without a window too; `days` has the best score of each, -inf where nothing
    was scored."""
    flows: pa.Table
    """Flows with those of the implants."""


def as_of(training: Training, tables: Tables) -> tuple[Detector, Tables]:
    """The trained models with only the past known, and the telemetry that came after it.

    `tables` is the telemetry of the training. A detector's own baseline and history hold all of it, so that
    nothing of it would be new to them.
    """
    detector = replace(
        training.detector,
        baseline=training.baseline,
        history=training.history,
        reference=replace(training.detector.reference, end_us=training.cut_us),
    )
    return detector, past_and_future(aligned_spans(tables), training.cut_us)[1]


def probe(
    detector: Detector,
    tables: Tables,
    seed: int,
    per_device_day: float,
    *,
    devices: Sequence[str] | None = None,
    kinds: Sequence[str] | Mapping[str, Behaviour] = tuple(KINDS),
    lost: Callable[[pa.Table], pa.Table] = lambda flows: flows,
) -> Probe:
    """Inject implants, recompute the features and score.

    `devices` (default all) bound the carriers and the windows returned; the others are context. `kinds` as
    for `inject`. `lost` takes the flows, implants among them, and returns what the logs keep of them.
    """
    flows = tables["flows"]
    mine = flows if devices is None else flows.filter(pc.is_in(_text(flows, "device_id"), pa.array(devices)))
    injected_flows, specs = inject(tables | {"flows": mine}, seed, per_device_day=per_device_day, kinds=kinds)
    both = lost(joined(flows, injected_flows))
    windows = scores_of(detector, tables | {"flows": both}, devices)
    truth, _ = truth_of(windows, with_names(_labels(specs), both))
    best = np.full(len(truth.days), -np.inf)
    np.maximum.at(best, truth.day, windows["score"].fillna(-np.inf).to_numpy()[truth.window])
    return Probe(windows, Truth(truth.days.assign(score=best), truth.window, truth.day), both)


def scores_of(detector: Detector, tables: Tables, devices: Sequence[str] | None = None) -> pd.DataFrame:
    """The windows of some telemetry as `Probe.windows` lists them: scored as ever, without reasons."""
    later = assemble(tables, detector.window, detector.history)
    frame = hide(later.features, detector.excluded_families)
    common = later.fleet_events(detector.reference.end_us).windows
    if devices is not None:
        mine = frame["device_id"].astype(object).isin(devices).to_numpy()
        frame, common = frame[mine].reset_index(drop=True), common[mine]
    score = calibrated(frame, detector.parts(frame)[1], detector.calibration)[0]
    score[~eligible(frame) | common] = np.nan
    texts = {name: frame[name].astype(object) for name in ("device_id", "app_id", "dest")}
    return frame[_SHOWN].assign(**texts, score=score)


def _labels(specs: pd.DataFrame) -> pa.Table:
    """The labels table of an injection: a row a destination of each implant, with its app and without, since
    logs may lose the app's name."""
    rows = specs.explode("dests")
    rows = pd.concat([rows, rows[rows["app_id"].notna()].assign(app_id=None)])
    time = pa.timestamp("us", tz="UTC")
    return conform(
        LABELS,
        pa.table(
            {
                "device_id": pa.array(rows["device_id"], pa.string()),
                "app_id": pa.array(rows["app_id"], pa.string(), from_pandas=True),
                "dest": pa.array(rows["dests"], pa.string()),
                "start": pa.array(rows["start_us"].to_numpy(np.int64)).cast(time),
                "end": pa.array(rows["end_us"].to_numpy(np.int64) + 1).cast(time),
                "label": pa.array(["malicious"] * len(rows)),
                "kind": pa.array(rows["kind"], pa.string()),
                "case_id": pa.array(rows["implant_id"].astype(str), pa.string()),
            }
        ),
    )


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.string())
