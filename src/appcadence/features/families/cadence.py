"""The cadence score at both levels and in parts of the time; `interval`, which sorts the gaps, fills it."""

from __future__ import annotations

from appcadence.features._cadence import PRIOR_GAPS
from appcadence.features.feature import Feature


def _score(name: str, what: str, phrase: str) -> Feature:
    meaning = (
        f"{what}: log-likelihood ratio of a beacon (jitter to 20% or 80%, missed beats) against chance, in "
        f"nats, / (number of gaps + {PRIOR_GAPS:.0f}); 0 = chance, about 2.6 = clockwork"
    )
    return Feature(name, meaning, phrase, unit="nats", source="generalised likelihood ratio")


FEATURES = (
    _score(
        "session_cadence_score", "gaps between session starts", "evidence for a beacon in the session starts"
    ),
    _score("beat_cadence_score", "gaps between connections", "evidence for a beacon in the connections"),
    _score(
        "part_cadence_score",
        "largest of all and of the first, middle and last half of at least 12 starts, at the level with the "
        "larger score, so that a beacon that begins at noon is not diluted by the morning",
        "evidence for a beacon in a part of the time",
    ),
)
