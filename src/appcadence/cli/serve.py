"""serve: the scorer over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appcadence._extras import require
from appcadence.cli.loading import load_scorer, signed_by
from appcadence.cli.options import ExpectModel
from appcadence.cli.terminal import say
from appcadence.config import read


def serve(
    model: Annotated[
        str | None,
        typer.Option(help="A bundle directory or an MLflow URI.  [default: the reference model]"),
    ] = None,
    expect_model: ExpectModel = None,
    config: Annotated[Path | None, typer.Option(help="Settings, as TOML; only [model] is used.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than loopback needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any free port.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file readable only by its owner, with the token that requests must send."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Requests scored at the same time.  [default: one per core]")
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Largest request body.")] = 16,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Most rows of a table; a flow counts once for every window it touches.")
    ] = 50_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Most requests in progress.")] = 256,
    max_waiting_mb: Annotated[
        int, typer.Option(min=1, help="Most memory for the bodies of all requests in progress.")
    ] = 256,
    timeout_seconds: Annotated[int, typer.Option(min=1, help="Time limit of a request.")] = 60,
) -> None:
    """Serve a model over HTTP: POST /score and /explain, GET /model, /healthz, /metrics, /openapi.json.

    Requests hold canonical tables as JSON, or flows as an Arrow IPC stream. Scores equal those of the Python
    library. On Ctrl-C or SIGTERM, the server finishes the requests in progress and stops.

    Example: appcadence serve --model model --port 8000
    """
    require("serve", "fastapi", "orjson", "prometheus_client", "uvicorn")
    from appcadence.serving.server.app import serve as run
    from appcadence.serving.server.limits import Limits

    given = {} if workers is None else {"workers": workers}
    limits = Limits(
        **given,
        max_body_bytes=max_body_mb << 20,
        max_rows=max_rows,
        max_requests=max_requests,
        max_waiting_bytes=max_waiting_mb << 20,
        timeout_seconds=timeout_seconds,
    )
    keys = () if config is None else read(config).model.trusted_keys
    scorer = load_scorer(model, expect_model, keys)
    name = "the reference model" if model is None else model

    def ready(address: str) -> None:
        say(f"Serving {name} ({scorer.version[:12]}) at {address}; stop with Ctrl-C.")
        if model is not None:
            say(signed_by(scorer))

    run(scorer, host=host, port=port, token_file=token_file, limits=limits, ready=ready)
