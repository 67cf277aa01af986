"""MLflow's registry: download of bundles, versions, the champion, and the promotion gate."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appcadence._files import scratch
from appcadence._inputs import sha256
from appcadence.errors import AppcadenceError, BundleError
from appcadence.models.bundle import MANIFEST
from appcadence.training.evaluate import Quality, in_words
from appcadence.training.tracking import BUNDLE_TAG, NAME, redacted, session

CHAMPION = "champion"
_PROMOTION = "appcadence.promotion."
_MAX_VERSIONS = 1000


@dataclass(frozen=True)
class Version:
    """A version of a registered model, with the records of its training run (empty if the run is gone)."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: str
    """ISO 8601, UTC."""
    run_id: str
    bundle: str | None
    """Id of its bundle."""
    params: dict[str, str]
    metrics: dict[str, float]
    """Metrics of the training, on implants injected into held-out telemetry."""
    promotions: tuple[dict[str, Any], ...]
    """Records of its promotions to champion, oldest first."""

    @property
    def uri(self) -> str:
        """The MLflow URI of exactly this version."""
        return f"models:/{self.name}/{self.version}"


def resolve(model: str, target: Path) -> Path:
    """Download the model of an MLflow URI into `target` and return the path of its bundle directory there.

    `model` is `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID/model`.

    Raises:
        AppcadenceError: there is no such URI, MLflow is not installed or does not answer, or it holds no
            bundle.
        BundleError: the manifest is not the one that the training run recorded, or none is recorded.
    """
    if not re.match(r"(models|runs):/\S", model):
        raise AppcadenceError(f"{model!r} is no MLflow model; expected models:/NAME@ALIAS or runs:/ID/model")
    with session() as (mlflow, client):
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=model, dst_path=str(target)))
        found = sorted(path.rglob(MANIFEST), key=lambda file: len(file.parts)) if path.is_dir() else []
        if not found:
            raise AppcadenceError(
                f"{model} at {redacted(client.tracking_uri)} holds no {MANIFEST}; name a model of appcadence"
            )
        run_id = model.split("/")[1] if model.startswith("runs:") else _version(client, model).run_id
        run = _runs(client, [run_id]).get(run_id)
    recorded = None if run is None else run.data.tags.get(BUNDLE_TAG)
    if recorded is None:
        raise BundleError(
            f"{model}: run {run_id} has no tag {BUNDLE_TAG} to check the bundle against; register it again"
        )
    if recorded != sha256(found[0]):
        raise BundleError(
            f"{model}: {MANIFEST} was altered since run {run_id} recorded it; register it again"
        )
    return found[0].parent


def versions() -> list[Version]:
    """The newest thousand versions registered as appcadence, newest first; empty if there are none.

    Raises:
        AppcadenceError: no MLflow, or no answer from it.
    """
    with session() as (_, client):
        found = list(
            client.search_model_versions(
                f"name='{NAME}'", max_results=_MAX_VERSIONS, order_by=["version_number DESC"]
            )
        )
        return _described(client, NAME, found)


def find(model: str) -> Version:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` currently refers to.

    Raises:
        AppcadenceError: no such version, no MLflow, or no answer from it.
    """
    with session() as (_, client):
        found = _version(client, model)
        return _described(client, found.name, [found])[0]


def champion(name: str) -> Version | None:
    """The version of a registered model that has the alias champion, or None."""
    with session() as (_, client):
        version = _aliases(client, name).get(CHAMPION)
        if version is None:
            return None
        return _described(client, name, [client.get_model_version(name, version)])[0]


def promote(candidate: Version, record: dict[str, Any]) -> None:
    """Make a version the champion, and store `record`, JSON, with the version under the time of the
    promotion.

    The record is written first, so no promotion lacks one. Of two promotions at once on a machine, one waits.

    Raises:
        AppcadenceError: MLflow is not installed, or its server does not answer or refuses; or the champion is
            no longer the one that the model was compared with, `over` in the record.
    """
    alone = Path(tempfile.gettempdir(), f"appcadence-promotion-{os.getuid()}")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # a tag's name may hold no plus sign
    with scratch(alone, wait=True), session() as (_, client):
        current = _aliases(client, candidate.name).get(CHAMPION)
        if current != record["over"]:
            raise AppcadenceError(
                f"version {current} became the champion while version {candidate.version} was judged; "
                "promote again, to compare with it"
            )
        text = json.dumps({"time": now} | record, sort_keys=True)
        client.set_model_version_tag(candidate.name, candidate.version, _PROMOTION + now, text)
        client.set_registered_model_alias(candidate.name, CHAMPION, candidate.version)


def _version(client: Any, model: str) -> Any:
    """MLflow's record of a version."""
    match = re.fullmatch(r"models:/([^/@']+)(?:@([^/@]+)|/(\d+))", model)
    if match is None:
        raise AppcadenceError(
            f"{model!r} is no registered model; expected models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    name, alias, version = match.groups()
    return (
        client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    )


def _aliases(client: Any, name: str) -> dict[str, str]:
    found = client.search_registered_models(f"name='{name}'")
    return {str(alias): str(version) for model in found for alias, version in model.aliases.items()}


def _described(client: Any, name: str, found: list[Any]) -> list[Version]:
    aliases = _aliases(client, name)
    runs = _runs(client, [v.run_id for v in found if v.run_id])
    out = []
    for v in found:
        data = runs[v.run_id].data if v.run_id in runs else None
        history = sorted((k, t) for k, t in v.tags.items() if k.startswith(_PROMOTION))
        out.append(
            Version(
                name=name,
                version=str(v.version),
                aliases=tuple(sorted(a for a, version in aliases.items() if version == str(v.version))),
                created=datetime.fromtimestamp(v.creation_timestamp / 1000, UTC).isoformat(
                    timespec="seconds"
                ),
                run_id=v.run_id or "",
                bundle=None if data is None else data.tags.get(BUNDLE_TAG),
                params={} if data is None else dict(data.params),
                metrics={} if data is None else dict(data.metrics),
                promotions=tuple(json.loads(text) for _, text in history),
            )
        )
    return out


def _runs(client: Any, ids: list[str]) -> dict[str, Any]:
    """Runs by id, in one request; runs that are gone are left out."""
    if not ids:
        return {}
    from mlflow.entities import ViewType

    listed = ", ".join(f"'{run}'" for run in ids)
    homes = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    query = f"attributes.run_id IN ({listed})"
    found = client.search_runs(homes, query, run_view_type=ViewType.ALL, max_results=_MAX_VERSIONS)
    return {run.info.run_id: run for run in found}


BUDGETS = (0.1, 1.0)
"""False alerts per device-day at which the gate compares recall."""
TOLERANCE = 0.02
"""Recall that a challenger may lose: two implant-days in a hundred."""
PROMISE = 1.0
MAX_REALISED = 1.25
"""The most realised false alerts per device-day, at a promise of one, that keep the budget."""

MAX_LEARNED = 0.01
"""Share of the evaluation telemetry's flows that a challenger may have been trained on."""


def judge(champion: Quality | None, challenger: Quality, learned: float = 0.0) -> tuple[str, ...]:
    """Reasons not to promote the challenger, one sentence each; empty if it passes.

    Both must be measured on the same labelled telemetry, which neither was trained on; `learned` is the share
    of its flows that the challenger was trained on (see `evaluate.share_learned`) and may not exceed
    `MAX_LEARNED`. The challenger may lose no more than `TOLERANCE` of recall at either of `BUDGETS`. At a
    promise of one false alert per device-day it may realise no more than `MAX_REALISED`, or than the champion
    if that is more. Without a champion, recall is not judged. A figure that is not a number is a reason to
    refuse.

    A fixed tolerance is no significance test: on fewer than some hundreds of implant-days, chance alone moves
    recall by more. After a close refusal, look at the figures and use a larger evaluation set.
    """
    reasons = []
    kept = {} if champion is None else champion.recall
    for budget in BUDGETS if kept else ():
        old, new = kept[budget], challenger.recall[budget]
        if not new >= old - TOLERANCE - 1e-9:
            reasons.append(
                f"recall at {budget:g} false alerts per device-day would be {in_words(new, '.3f')}, the "
                f"champion has {in_words(old, '.3f')}; at most {TOLERANCE:g} may be lost (of "
                f"{challenger.implant_days} implant-days)"
            )
    realised = challenger.realised[PROMISE]
    before = None if champion is None else champion.realised[PROMISE]
    if not realised <= max(MAX_REALISED, before or 0.0):
        than = "" if before is None else f", the champion {in_words(before)}"
        reasons.append(
            f"it breaks the budget: at a promise of {PROMISE:g} false alert per device-day it raises "
            f"{in_words(realised)}{than}; at most {MAX_REALISED:g} is allowed"
        )
    if learned > MAX_LEARNED:
        reasons.append(
            f"{learned:.0%} of the evaluation telemetry's flows come from devices and days that it was "
            "trained on; evaluate on telemetry from after its training"
        )
    return tuple(reasons)
