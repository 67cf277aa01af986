"""MLflow made quiet, without telemetry, and failing within seconds."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

from appcadence._extras import require
from appcadence.errors import AppcadenceError

DEFAULT_URI = "sqlite:///mlflow.db"
NAME = "appcadence"
BUNDLE_TAG = "appcadence.bundle"
_MAX_CHARACTERS = 300
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def reach() -> None:
    """Check that MLflow answers within five seconds, before work whose outcome it should record.

    Raises:
        AppcadenceError: MLflow is not installed, or its server does not answer.
    """
    with session(timeout_seconds=5, retries=0) as (_, client):
        client.search_experiments(max_results=1)


@contextlib.contextmanager
def session(timeout_seconds: int = 10, retries: int = 1) -> Iterator[tuple[Any, Any]]:
    """Yields (the mlflow module, a client): quiet, without telemetry, and failing within seconds.

    By default MLflow waits and retries for minutes. Settings in the environment take precedence.

    Raises:
        MissingExtraError: MLflow is not installed.
        AppcadenceError: MLflow fails inside the block.
    """
    require("train", "mlflow", "sqlalchemy")
    patience = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
    }
    added = {key: value for key, value in (_DEFAULTS | patience).items() if key not in os.environ}
    # Telemetry must be off before the import, and stay off for the threads that MLflow leaves behind.
    os.environ.update(added)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    heard = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        warnings.simplefilter("ignore")  # MLflow warns about its own code, which is of no use to our users
        import mlflow
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # Through the environment, which can be undone; set_tracking_uri would outlive this block.
        if not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
            added["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"] = DEFAULT_URI
        uri: str = mlflow.get_tracking_uri()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield mlflow, mlflow.MlflowClient(tracking_uri=uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise AppcadenceError(_sentence(uri, error)) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            for key in added:
                if key != "MLFLOW_DISABLE_TELEMETRY":
                    os.environ.pop(key, None)


def redacted(text: str) -> str:
    """The text without user names and passwords in its URLs."""
    return re.sub(r"://[^/\s@]*@", "://", text)


def _sentence(uri: str, error: BaseException) -> str:
    """What went wrong, in one sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and uri.startswith("http"):
            at = redacted(uri)
            return f"the MLflow server at {at} does not answer; start it, or correct MLFLOW_TRACKING_URI"
        cause = cause.__cause__ or cause.__context__
    reason = redacted(" ".join(str(error).split()))
    reason = reason if len(reason) <= _MAX_CHARACTERS else reason[:_MAX_CHARACTERS] + " ..."
    return f"MLflow at {redacted(uri)} refused: {reason}"
