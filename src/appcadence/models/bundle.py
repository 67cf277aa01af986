"""A detector on disk: arrays, Parquet, text and a manifest of checksums. Loading runs no code from it."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from appcadence._files import recover, replacing_directory, scratch
from appcadence._inputs import parsed_json, read_bytes
from appcadence._parquet import DAMAGE, read_parquet
from appcadence._version import VERSION
from appcadence.errors import BundleError
from appcadence.features.catalog import FAMILY_OF, NAMES, SCHEMA_ID
from appcadence.features.history import HABITS, History
from appcadence.features.pushes import COUNTS
from appcadence.features.windows import window_seconds
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration
from appcadence.models.detector import Detector
from appcadence.models.eligibility import BEHAVIOURS, STRATA
from appcadence.models.experts import EXPERTS, POINTS, Experts
from appcadence.models.reference import Reference
from appcadence.models.signature import ANY, Trust
from appcadence.models.signature import sign as sign_manifest
from appcadence.models.trees import Trees

FORMAT = 6
_MAX_PART_BYTES = 1 << 30
"""The largest size of a part on disk, and of all arrays when unpacked."""
MANIFEST = "manifest.json"
_PARTS = (
    "arrays.npz",
    "baseline.parquet",
    "history.parquet",
    "calibration.parquet",
    "reference.parquet",
    "classifier.txt",
)


def check_target(path: str | Path) -> None:
    """Check that `save` can write to a path.

    Raises:
        BundleError: the path exists and is not a bundle, or nothing can be written beside it.
    """
    try:
        with scratch(path, wait=True):
            _check_is_bundle(Path(path))
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); choose another path") from None


def _check_is_bundle(path: Path) -> None:
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError(f"{path} exists and is not a bundle; choose another path for the model")


def save(detector: Detector, path: str | Path) -> str:
    """Write a bundle directory, whole or not at all, replacing an older bundle; return its id.

    The id is the SHA-256 of the manifest, which holds the SHA-256 of every part. Equal detectors give
    equal bytes.

    Raises:
        BundleError: the path exists and is not a bundle.
    """
    path = Path(path)
    parts = _parts(detector)
    manifest = {
        "format": FORMAT,
        "appcadence": VERSION,
        "feature_schema": SCHEMA_ID,
        "features": list(NAMES),
        "window": detector.window,
        "parts": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(parts.items())},
        "excluded_families": list(detector.excluded_families),
        "card": detector.card,
    }
    text = json.dumps(manifest, sort_keys=True, indent=1) + "\n"
    with scratch(path, wait=True) as place:
        _check_is_bundle(path)
        with replacing_directory(path, place) as staging:
            for name, data in parts.items():
                (staging / name).write_bytes(data)
            (staging / MANIFEST).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def sign(path: str | Path, key_file: str | Path) -> tuple[str, str]:
    """Sign a bundle, which must be whole; return its id and the public key (see `models.signature`).

    Raises:
        BundleError: as `load`, or the file holds no key.
    """
    path = Path(path)
    _, identity, _ = load_signed(path)
    text = (path / MANIFEST).read_bytes()
    if hashlib.sha256(text).hexdigest() != identity:
        raise BundleError(f"{path} is being replaced; sign it again")
    return identity, sign_manifest(path, text, key_file)


def load(path: str | Path, trust: Trust = ANY) -> tuple[Detector, str]:
    """Read a bundle and return (detector, id); see `load_signed`."""
    return load_signed(path, trust)[:2]


def load_signed(path: str | Path, trust: Trust = ANY) -> tuple[Detector, str, str | None]:
    """Read a bundle and return (detector, id, the public key that signed it, if anybody did).

    Raises:
        BundleError: a part is missing or altered, a number is out of its range, the signature is wrong,
            `trust` refuses it, or the bundle is of another format or feature schema.
    """
    path = Path(path)
    recover(path)
    manifest, identity, signer = _manifest(path, trust)
    data: dict[str, bytes] = {}
    for name in _PARTS:
        file = path / name
        if not file.is_file():
            raise BundleError(f"{path}: part {name} is missing; copy the whole bundle again")
        try:
            data[name] = read_bytes(file, _MAX_PART_BYTES)
        except OSError as error:
            raise BundleError(
                f"{path}: part {name} cannot be read ({error.strerror}); copy it again"
            ) from None
        if hashlib.sha256(data[name]).hexdigest() != manifest["parts"].get(name):
            raise BundleError(f"{path}: part {name} was altered (its SHA-256 differs); copy the bundle again")
    try:
        return _assemble(manifest, data), identity, signer
    except DAMAGE as error:
        said = str(error) if isinstance(error, BundleError) else f"not a usable model ({error})"
        raise BundleError(f"the model {path}: {said}; copy the bundle again or train it anew") from None


def _manifest(path: Path, trust: Trust) -> tuple[dict[str, Any], str, str | None]:
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a model bundle (no {MANIFEST}); make one with 'appcadence train'")
    try:
        text = read_bytes(file)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror or error})") from None
    identity = hashlib.sha256(text).hexdigest()
    signer = trust.check(path, text, identity)
    try:
        manifest = parsed_json(text)
        found, schema, parts = manifest["format"], manifest["feature_schema"], manifest["parts"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged ({error})") from None
    if found != FORMAT:
        raise BundleError(f"{path} has bundle format {found}, this version reads {FORMAT}; train again")
    if schema != SCHEMA_ID:
        raise BundleError(
            f"{path} was trained on feature schema {schema}, this version computes {SCHEMA_ID}; train again"
        )
    if manifest.get("features") != list(NAMES):
        raise BundleError(
            f"{file} is damaged (its features are not those of schema {schema}); copy the bundle again"
        )
    if not isinstance(parts, dict):
        raise BundleError(f"{file} is damaged (parts)")
    return manifest, identity, signer


def _parts(detector: Detector) -> dict[str, bytes]:
    arrays = {
        **detector.classifier.arrays("classifier."),
        **detector.forest.arrays("forest."),
        "experts.thresholds": detector.experts.thresholds,
        "experts.steps": detector.experts.steps,
        "weights": detector.weights,
        "reference.deciles": detector.reference.deciles,
        "reference.end_us": np.array(detector.reference.end_us, np.int64),
        **{f"behaviour.{name}": values for name, values in detector.behaviours.items()},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    frames = [c.to_frame().assign(stratum=stratum) for stratum, c in detector.calibration.items()]
    calibration = pa.concat_tables(
        pa.table(
            {
                "stratum": pa.array(f["stratum"], pa.string()),
                "kind": pa.array(f["kind"], pa.string()),
                "value": pa.array(f["value"], pa.float64()),
            }
        )
        for f in frames
    )
    return {
        "arrays.npz": buffer.getvalue(),
        "baseline.parquet": _parquet(detector.baseline.to_arrow()),
        "history.parquet": _parquet(detector.history.to_arrow()),
        "calibration.parquet": _parquet(calibration),
        "reference.parquet": _parquet(detector.reference.to_arrow()),
        "classifier.txt": detector.classifier_text.encode(),
    }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _assemble(manifest: dict[str, Any], data: dict[str, bytes]) -> Detector:
    with np.load(io.BytesIO(data["arrays.npz"]), allow_pickle=False) as archive:
        if sum(info.file_size for info in archive.zip.infolist()) > _MAX_PART_BYTES:
            raise BundleError(f"its arrays unpack to more than {_MAX_PART_BYTES >> 20} MB")
        arrays = {name: archive[name] for name in archive.files}

    def table(name: str) -> pa.Table:
        return read_parquet(pa.BufferReader(data[name]))

    width = len(NAMES)
    calibration = table("calibration.parquet").to_pandas()
    classifier = Trees.from_arrays(arrays, "classifier.")
    forest = Trees.from_arrays(arrays, "forest.")
    if (classifier.n_features, forest.n_features) != (2 * width, width):
        raise BundleError("an ensemble has another number of features than the catalogue")
    thresholds, steps = (np.asarray(arrays[f"experts.{n}"], np.float64) for n in ("thresholds", "steps"))
    # Infinite thresholds are those that no benign window reached.
    ordered = thresholds.shape == (len(EXPERTS), POINTS) and (thresholds[:, 1:] >= thresholds[:, :-1]).all()
    ordered = ordered and (thresholds[:, 0] > -np.inf).all()
    if not ordered or steps.shape != (len(EXPERTS),) or not ((steps >= 0) & (steps <= 1)).all():
        raise BundleError(f"the experts are not {len(EXPERTS)} x {POINTS} rising thresholds and their steps")
    if arrays["weights"].shape != (len(STRATA), 2) or not np.isfinite(arrays["weights"]).all():
        raise BundleError(f"its weights are not {len(STRATA)} x 2 finite numbers")
    window_seconds(manifest["window"])
    detector = Detector(
        window=manifest["window"],
        baseline=AppBaseline.from_arrow(table("baseline.parquet")),
        history=History.from_arrow(table("history.parquet")),
        classifier=classifier,
        classifier_text=data["classifier.txt"].decode(),
        forest=forest,
        experts=Experts(thresholds, steps),
        weights=arrays["weights"],
        calibration={s: Calibration.from_frame(calibration[calibration["stratum"] == s]) for s in STRATA},
        behaviours={name: arrays[f"behaviour.{name}"] for name in BEHAVIOURS},
        reference=Reference.from_arrow(
            table("reference.parquet"), arrays["reference.deciles"], int(arrays["reference.end_us"])
        ),
        excluded_families=tuple(manifest["excluded_families"]),
        card=manifest["card"],
    )
    check_sound(detector)
    return detector


SHIPPED = Path(__file__).parent / "shipped"
"""The shipped bundles, `reference` and `start`, which `make reference` writes."""


@cache
def reference_model(trust: Trust = ANY) -> tuple[Detector, str]:
    """The model for scoring without a local baseline, and its id."""
    return load(SHIPPED / "reference", trust)


@cache
def starting_model() -> tuple[Detector, str]:
    """The model that a training starts from, and its id."""
    return load(SHIPPED / "start")


MAX_RAW = 1e6
"""Bound for a leaf, a weight and a calibrated score, which are log-odds and sums of a dozen logarithms."""
_MAX_TIME_US = 1 << 60


def check_sound(detector: Detector) -> None:
    """Refuse values that no training produces.

    Raises:
        BundleError: a number is not finite or out of its range, or the detector can never alert.
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
        # NaN fails the comparison.
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
    """Refuse a detector that does not alert on its own calibration sample, or cannot score high enough to
    alert."""
    # The most that all experts can be worth together.
    worth = float(np.isfinite(detector.experts.thresholds).sum(axis=1) @ detector.experts.steps)
    most_of_each = detector.weights @ [_highest(detector.classifier), worth]
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


def _highest(trees: Trees) -> float:
    """The sum of the highest leaves."""
    best = trees.expected.tolist()
    feature, left, right = trees.feature.tolist(), trees.left.tolist(), trees.right.tolist()
    for node in range(len(best) - 1, -1, -1):  # children stand after their parent
        if feature[node] >= 0:
            best[node] = max(best[left[node]], best[right[node]])
    return float(sum(best[root] for root in trees.roots.tolist()))
