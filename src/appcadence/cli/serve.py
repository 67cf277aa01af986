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
        typer.Option(help="A bundle directory or an MLflow URI; without it the reference model."),
    ] = None,
    expect_model: ExpectModel = None,
    config: Annotated[Path | None, typer.Option(help="Settings, as TOML, of which [model] counts.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback takes --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file, its owner's alone, with the token that requests must bear.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Requests that are scored at a time.  [default: one a core]")
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Largest body.")] = 16,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Rows of a table; a flow counts in each window that it lasts.")
    ] = 50_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 256,
    max_waiting_mb: Annotated[int, typer.Option(min=1, help="Bodies of all requests under way.")] = 256,
    timeout_seconds: Annotated[int, typer.Option(min=1, help="Most that a request may take.")] = 60,
) -> None:
    """Serve a model over HTTP: POST /score and /explain, GET /model, /healthz, /metrics, /openapi.json.

    Takes canonical tables as JSON, or flows as an Arrow IPC stream. Numbers are those of the Python library.
    Ctrl-C or SIGTERM ends it when what is under way is answered.

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
        say(f"Serving {name} ({scorer.version[:12]}) at {address}; end with Ctrl-C.")
        if model is not None:
            say(signed_by(scorer))

    run(scorer, host=host, port=port, token_file=token_file, limits=limits, ready=ready)
