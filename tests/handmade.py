"""Feature tables and detectors of a few chosen numbers, so that results can be worked out by hand."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil

import numpy as np
import pandas as pd
from make import DAY0

from appcadence.features.catalog import NAMES
from appcadence.features.history import History
from appcadence.models import bundle
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration
from appcadence.models.detector import Detector
from appcadence.models.eligibility import BEHAVIOURS, STRATA
from appcadence.models.experts import EXPERTS, POINTS, Experts
from appcadence.models.reference import Reference
from appcadence.models.trees import Trees

DAY = 86_400
STEP = {
    "structured_cadence": "beats_per_hour",
    "session_persistence": "longest_session_seconds",
    "notification_burst": "push_coupling_excess",
}
"""By behaviour, the feature that raises the score of `detector` by what it is."""
N = len(NAMES)


def windows(n, device="d1", app="com.a", dest="a.example", day=0, hours=24, **columns):
    """n windows that know nothing but the given columns, each a value or n; `day` counts from 2026-03-02."""
    start = DAY0 + np.broadcast_to(np.asarray(day, float) * DAY, n)
    frame = pd.DataFrame(np.full((n, N), np.nan), columns=list(NAMES))
    keys = {
        "device_id": device,
        "app_id": pd.Series(app, range(n), dtype=object) if app is None or isinstance(app, str) else app,
        "dest": dest,
        "window_start": pd.to_datetime(np.rint(start * 1e6).astype(np.int64), unit="us", utc=True),
        "window_end": pd.to_datetime(
            np.rint((start + hours * 3600) * 1e6).astype(np.int64), unit="us", utc=True
        ),
        "observed_seconds": hours * 3600.0,
        "n_flows": 20,
        "n_sessions": 10,
        "n_beats": 20,
        "app_attribution": "exact",
        "category": None,
    }
    return frame.assign(**keys | columns)


def values(n=1, **features):
    """(n, n_features) feature values, NaN but for the given."""
    return windows(n, **features)[list(NAMES)].to_numpy(np.float64)


def staircase(feature, steps, width):
    """An ensemble whose raw value is how many of `steps` the feature exceeds; unknown = none."""
    n = len(steps)
    nodes = {
        "feature": np.array([feature] * n + [-1] * (n + 1), np.int32),
        "threshold": np.append(np.asarray(steps, float), np.zeros(n + 1)),
        # Node i asks about step i: to leaf n + i at most, on to the next question else.
        "left": np.append(np.arange(n, 2 * n), np.zeros(n + 1)).astype(np.int32),
        "right": np.append(np.append(np.arange(1, n), 2 * n), np.zeros(n + 1)).astype(np.int32),
        "default_left": np.ones(2 * n + 1, np.bool_),
        "nan_is_zero": np.zeros(2 * n + 1, np.bool_),
        "expected": np.append(np.zeros(n), np.arange(n + 1.0)),
    }
    return Trees(**nodes, roots=np.zeros(1, np.int32), n_features=width)


def nothing(width):
    """An ensemble that says 0 of every row."""
    leaf = {name: np.zeros(1, np.int32) for name in ("left", "right", "roots")}
    flags = {name: np.zeros(1, np.bool_) for name in ("default_left", "nan_is_zero")}
    numbers = {name: np.zeros(1) for name in ("threshold", "expected")}
    return Trees(feature=np.full(1, -1, np.int32), **leaf, **flags, **numbers, n_features=width)


def calibration(n=100, days=10.0, origin=0.0, spread=1.0):
    """Benign units that score 0 to n - 1, a window each."""
    return Calibration(origin, spread, days, np.arange(float(n)), np.arange(float(n)))


def detector(behaviour="structured_cadence", steps=tuple(k + 0.5 for k in range(40)), **parts):
    """A detector whose raw score is the feature of the behaviour, in whole steps, and knows nothing else."""
    usual = {
        "window": "24h",
        "baseline": AppBaseline.fit(windows(2)),
        "history": History.empty(),
        "classifier": staircase(NAMES.index(STEP[behaviour]), steps, 2 * N),
        "classifier_text": "none",
        "forest": nothing(N),
        "experts": Experts(np.full((len(EXPERTS), POINTS), np.inf), np.zeros(len(EXPERTS))),
        "weights": np.ones((3, 2)),
        "calibration": dict.fromkeys(STRATA, calibration()),
        "behaviours": {name: np.arange(99.0) for name in BEHAVIOURS},
        "reference": Reference.fit(windows(2), values(2), DAY0 * 1_000_000 - 1),
    }
    return Detector(**usual | parts)


def changed(saved, copy, **arrays):
    """A copy of a bundle with other arrays, for which its manifest vouches."""
    shutil.copytree(saved, copy)
    with np.load(saved / "arrays.npz") as archive:
        whole = dict(archive)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **whole | arrays)
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    manifest["parts"]["arrays.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (copy / "arrays.npz").write_bytes(buffer.getvalue())
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
    return copy


def slow_level(benign, allowed):
    """The highest score that at most so many benign units exceed."""
    levels = [-math.inf, *benign]
    return min(level for level in levels if sum(b > level for b in benign) <= int(allowed))


def observed(device, days=None):
    """Windows of these devices, one a device, which was observed for so many days (default one)."""
    seconds = [86_400.0 * (1 if days is None else days[name]) for name in device]
    return pd.DataFrame(
        {
            "device_id": device,
            "window_start": pd.Timestamp(DAY0, unit="s", tz="UTC"),
            "observed_seconds": seconds,
        }
    )
