"""Whether a detector's numbers are such as a training gives: what is not would mute it, or alert on all."""

from __future__ import annotations

import numpy as np

from appcadence.errors import BundleError
from appcadence.features.catalog import FAMILY_OF
from appcadence.features.history import HABITS
from appcadence.features.pushes import COUNTS
from appcadence.models.detector import Detector
from appcadence.models.eligibility import STRATA
from appcadence.models.trees import Trees

MAX_RAW = 1e6
"""Of a leaf, a weight and a calibrated score: log-odds and sums of a dozen logarithms."""
_MAX_TIME_US = 1 << 60


def check_sound(detector: Detector) -> None:
    """Refuse what no training makes.

    Raises:
        BundleError: a number is not finite or out of its range, or no alert can come of it.
    """
    finite = {
        "weights": detector.weights.ravel(),
        "values of the classifier": detector.classifier.expected,
        "values of the forest": detector.forest.expected,
        **{f"benign scores of {name}": scores for name, scores in detector.behaviours.items()},
        **{f"calibration of {name}": c.windows for name, c in detector.calibration.items()},
        **{f"calibrated units of {name}": c.units for name, c in detector.calibration.items()},
        **{f"origin of {name}": np.array([c.origin, c.spread]) for name, c in detector.calibration.items()},
    }
    for name, values in finite.items():
        # NaN is within nothing.
        if values.dtype != np.float64 or values.ndim != 1 or not (np.abs(values) <= MAX_RAW).all():
            raise BundleError(f"its {name} are not numbers within ±{MAX_RAW:,.0f}")
    if (detector.weights < 0).any():
        raise BundleError("its weights are negative: what is unusual would lower the score")
    for name, scores in detector.behaviours.items():
        if (np.diff(scores) < 0).any():
            raise BundleError(f"its benign scores of {name} are not sorted")
    deciles = detector.reference.deciles
    unknown = np.isnan(deciles).any(axis=1)
    known = deciles[~unknown]
    if not (np.isnan(deciles[unknown]).all() and np.isfinite(known).all() and (np.diff(known) >= 0).all()):
        raise BundleError("the deciles of its drift reference are not rising numbers")
    if not 0 <= abs(detector.reference.end_us) <= _MAX_TIME_US:
        raise BundleError("the end of its training is no time")
    if not isinstance(detector.card, dict) or set(detector.excluded_families) - set(FAMILY_OF.values()):
        raise BundleError("its card is no table, or a feature family that it leaves out is unknown")
    _check_history(detector)
    _check_heard(detector)


def _check_history(detector: Detector) -> None:
    contacts = detector.history.contacts
    numbers = contacts[[*HABITS, *COUNTS]].to_numpy(np.float64)
    times = contacts[["first_seen", "last_seen"]].to_numpy(np.float64)
    named = contacts[["device_id", "dest", "vetted"]].notna().to_numpy().all()
    if not named or not (np.abs(times) <= _MAX_TIME_US).all() or np.isinf(numbers).any():
        raise BundleError("its history has a channel without a name, a time or finite habits")


def _check_heard(detector: Detector) -> None:
    """Refuse a detector that would not alert on its own calibration sample, or can never score so high."""
    most_of_each = detector.weights @ [_highest(detector.classifier), _worth(detector)]
    for name, most in zip(STRATA, most_of_each.tolist(), strict=True):
        calibration = detector.calibration[name]
        units = calibration.units
        if len(units) < 2:
            continue
        # A rate that none of the units exceeds, were all of them alerts, is no rate of theirs.
        heard = calibration.scale(units[-1:])[0] >= -np.log(len(units) / calibration.device_days)
        if not heard or calibration.scale(np.array([most]))[0] < calibration.threshold(1.0):
            raise BundleError(
                f"it would alert on nothing of its own calibration sample ({name}): the highest score it "
                f"can give is {most:.6g}, an alert's level {calibration.origin:.6g}"
            )


def _worth(detector: Detector) -> float:
    """The most that all experts can be worth together."""
    return float(np.isfinite(detector.experts.thresholds).sum(axis=1) @ detector.experts.steps)


def _highest(trees: Trees) -> float:
    """The sum of the highest leaves."""
    best = trees.expected.tolist()
    feature, left, right = trees.feature.tolist(), trees.left.tolist(), trees.right.tolist()
    for node in range(len(best) - 1, -1, -1):  # children stand after their parent
        if feature[node] >= 0:
            best[node] = max(best[left[node]], best[right[node]])
    return float(sum(best[root] for root in trees.roots.tolist()))
