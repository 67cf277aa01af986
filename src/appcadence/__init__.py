"""appcadence: finds iOS apps whose network rhythm is explained neither by the user nor by their purpose.

`__all__` is the public API (docs/api.md). Each name is imported on first use, so that `import appcadence` is
quick and needs no optional package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from appcadence.errors import AppcadenceError, BundleError, SchemaError, TelemetryError

if TYPE_CHECKING:
    from appcadence.features.catalog import describe
    from appcadence.features.extraction import extract
    from appcadence.features.history import History
    from appcadence.models.bundle import save as save_bundle
    from appcadence.nightly import score_directory
    from appcadence.serving.scorer import Scorer
    from appcadence.telemetry.ingest.convert import convert
    from appcadence.telemetry.readiness.assess import readiness
    from appcadence.telemetry.simulate.fleet import simulate
    from appcadence.training.evaluate import evaluate
    from appcadence.training.train import train

    __version__: str

__all__ = [
    "AppcadenceError",
    "BundleError",
    "History",
    "SchemaError",
    "Scorer",
    "TelemetryError",
    "convert",
    "describe",
    "evaluate",
    "extract",
    "readiness",
    "save_bundle",
    "score_directory",
    "simulate",
    "train",
]

_HOMES = {
    "History": "features.history:History",
    "Scorer": "serving.scorer:Scorer",
    "convert": "telemetry.ingest.convert:convert",
    "describe": "features.catalog:describe",
    "evaluate": "training.evaluate:evaluate",
    "extract": "features.extraction:extract",
    "readiness": "telemetry.readiness.assess:readiness",
    "save_bundle": "models.bundle:save",
    "score_directory": "nightly:score_directory",
    "simulate": "telemetry.simulate.fleet:simulate",
    "train": "training.train:train",
    "__version__": "_version:VERSION",  # looked up in the installation, which is slow
}

if not TYPE_CHECKING:  # with it, a type checker would accept any name

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].partition(":")
        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
