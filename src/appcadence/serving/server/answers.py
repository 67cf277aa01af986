"""The types of the answers, from which the OpenAPI description is made."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from appcadence.models.scores import CONTRIBUTION, SCORES
from appcadence.serving.server.wire import answered, list_of, typed_dict


class Error(TypedDict):
    """Any answer that is no success."""

    error: str


class Health(TypedDict):
    """`GET /healthz`"""

    status: str


class Feature(TypedDict):
    """One of the model's features."""

    name: str
    family: str
    unit: str
    meaning: str


class Baseline(TypedDict):
    """What the model learned from: the latest flow, and counts."""

    end: str
    devices: int
    groups: int
    known_channels: int


class Model(TypedDict):
    """`GET /model`"""

    id: str
    appcadence: str
    window: str
    feature_schema: str
    features: list[Feature]
    excluded_families: list[str]
    baseline: Baseline
    card: dict[str, Any]


class Finding(TypedDict):
    """A reason, or what could not be checked."""

    code: str
    parameters: dict[str, Any]
    text: str


class Explained(TypedDict):
    """What speaks for the benign reading."""

    code: str
    text: str


ROW = typed_dict("ScoresRow", {field.name: answered(field.name, field.type) for field in SCORES})
SCORED = typed_dict("Scores", {"scores": list_of(ROW)})
EXPLANATION = typed_dict(
    "Explanation",
    {
        "row": ROW,
        "findings": list[Finding],
        "explained_by": list[Explained],
        "constant": float,
        "contributions": list_of(answered("contribution", CONTRIBUTION)),
    },
)
