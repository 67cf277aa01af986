"""The endpoints, their OpenAPI description, and the process that serves them until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as HTTPError
from starlette.requests import ClientDisconnect

from appcadence._version import VERSION
from appcadence.config import Alerts
from appcadence.errors import AppcadenceError, known_are
from appcadence.serving.scorer import Scorer
from appcadence.serving.server.arrow_body import FILE, STREAM
from appcadence.serving.server.connection import heads_within
from appcadence.serving.server.door import CONTENT_TYPE, OPEN, Door, Metrics, read_token
from appcadence.serving.server.limits import Limits, Place, Queue
from appcadence.serving.server.wire import EXPLANATION, SCORED, Error, Health, Model, scores_json
from appcadence.serving.server.work import EXAMPLE, EXPLAIN_EXAMPLE, NoSuchWindow, Work
from appcadence.telemetry.addresses import is_loopback

_JSON = "application/json"
_REFS = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Scores network windows of iOS apps. Results equal those of the Python library to the bit: JSON numbers "
    "have all digits, null means unknown, and times are in UTC."
)
_SAID = {
    401: "The token is missing or wrong.",
    404: "The window or the path does not exist.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type or encoding of the body is not supported.",
    421: "The Host header names another machine, and there is no token.",
    422: "The telemetry or a parameter is invalid.",
    503: "The server is overloaded, or the request takes too long; try again.",
}
_PARAMETERS = ("alerts_per_device_day", "false_discovery_rate")
_BINARY = {"schema": {"type": "string", "format": "binary"}}

Budget = Annotated[
    float,
    Query(gt=0, le=1e6, allow_inf_nan=False, description="Alert budget: benign alerts per device-day."),
]
Rate = Annotated[
    float | None,
    Query(gt=0, lt=1, description="Instead of the budget: the share of alerts that may be benign."),
]


class _Found(NamedTuple):
    content: bytes
    windows: int


def application(scorer: Scorer, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """The server as an ASGI application, for `serve` or another ASGI server with one process.

    Without a token, it answers only requests whose Host header names this machine.
    """
    limits = limits or Limits()
    work, queue = Work(scorer, limits.max_rows), Queue(limits)
    counted = Metrics(queue)
    app = FastAPI(
        title="appcadence",
        version=VERSION,
        description=_DESCRIPTION,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={code: {"model": Error, "description": said} for code, said in _SAID.items()},
    )
    routes = frozenset(("/score", "/explain", "/model", OPEN, "/metrics", "/openapi.json"))
    app.add_middleware(Door, metrics=counted, token=token, routes=routes)
    _add_errors(app)

    async def answer(request: Request, do: Callable[[bytes], _Found]) -> bytes:
        async def read(place: Place) -> bytes:
            return await _body(request, place)

        found = await queue.answer(read, do)
        counted.windows.inc(found.windows)
        return found.content

    @app.post("/score", response_model=SCORED, openapi_extra=_takes("Telemetry", EXAMPLE, arrow=True))
    async def score(
        request: Request, alerts_per_device_day: Budget = 1.0, false_discovery_rate: Rate = None
    ) -> Response:
        """Score all windows of the given flows; other tables are optional and improve the scores."""
        arrow = _kind(request, _JSON, STREAM, FILE) != _JSON
        alerts = Alerts(alerts_per_device_day, false_discovery_rate)
        wanted = STREAM in request.headers.get("accept", "")

        def do(body: bytes) -> _Found:
            scores = work.run(work.tables(body, arrow), alerts).scores
            return _Found(_stream(scores) if wanted else scores_json(scores), len(scores))

        return Response(await answer(request, do), media_type=STREAM if wanted else _JSON)

    @app.post(
        "/explain", response_model=EXPLANATION, openapi_extra=_takes("TelemetryAndWindow", EXPLAIN_EXAMPLE)
    )
    async def explain(
        request: Request, alerts_per_device_day: Budget = 1.0, false_discovery_rate: Rate = None
    ) -> Response:
        """Explain one window of the given flows: its row, reasons, and the contributions of all features.

        Contributions, `constant` and the row's `device_shift` add up to its score.
        """
        _kind(request, _JSON)
        alerts = Alerts(alerts_per_device_day, false_discovery_rate)
        content = await answer(request, lambda body: _Found(work.explain(body, alerts), 1))
        return Response(content, media_type=_JSON)

    @app.get("/model", response_model=Model)
    async def model() -> Response:
        """The model: its id, window, features, baseline and card."""
        return Response(work.model(), media_type=_JSON)

    @app.get(OPEN, response_model=Health)
    async def healthz() -> Response:
        """Whether the server is up. Needs no token."""
        return JSONResponse({"status": "ok"})

    app.add_api_route(OPEN, healthz, methods=["HEAD"], include_in_schema=False)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Metrics in Prometheus text format."""
        return Response(counted.text(), media_type=CONTENT_TYPE)

    _describe(app, work, token is not None)
    return app


def _kind(request: Request, *kinds: str) -> str:
    """The content type of a body; requests that would be misread are refused."""
    for name in request.query_params:
        if name not in _PARAMETERS:
            raise HTTPException(422, f"there is no parameter {name!r}; {known_are(name, _PARAMETERS)}")
        if len(request.query_params.getlist(name)) > 1:
            raise HTTPException(422, f"the parameter {name} is given more than once; give it once")
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise HTTPException(415, f"the body is encoded ({coding}); send it without Content-Encoding")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise HTTPException(415, f"the body is {kind or 'of no type'}; send it as {' or '.join(kinds)}")
    return kind


async def _body(request: Request, place: Place) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > place.queue.limits.max_body_bytes:
        place.add(int(declared))  # refuses it before it arrives
    parts = []
    try:
        async for part in request.stream():
            place.add(len(part))
            parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "the connection closed before the body was complete") from None
    return b"".join(parts)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _add_errors(app: FastAPI) -> None:
    """Every error is one sentence in JSON."""

    def said(status: int, text: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": str(AppcadenceError(text))}, status, headers)

    async def asked(request: Request, error: Any) -> Response:
        text = str(error.detail)
        if error.status_code == 404:
            text = f"there is no path {request.url.path}; /openapi.json lists all of them"
        elif error.status_code == 405:
            text = f"{request.url.path} takes {error.headers['Allow']}, not {request.method}"
        return said(error.status_code, text, error.headers)

    async def unfit(request: Request, error: Any) -> Response:
        fault = error.errors()[0]
        return said(422, f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}")

    async def refused(request: Request, error: Any) -> Response:
        return said(404 if isinstance(error, NoSuchWindow) else 422, str(error))

    async def failed(request: Request, error: Exception) -> Response:
        return said(500, "the server failed on this request; see its standard error")

    app.add_exception_handler(HTTPError, asked)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(AppcadenceError, refused)
    app.add_exception_handler(Exception, failed)


def _takes(name: str, example: dict[str, Any], arrow: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {_JSON: {"schema": {"$ref": _REFS.format(model=name)}, "example": example}}
    if arrow:
        content |= dict.fromkeys((STREAM, FILE), _BINARY)
    return {"requestBody": {"required": True, "content": content}}


def _describe(app: FastAPI, work: Work, token: bool) -> None:
    """Add to the description what FastAPI does not see: bodies that are read here, Arrow, the token."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = generate()
            schemas = described["components"]["schemas"]
            for adapter in (work.telemetry, work.telemetry_and_window):
                schema = adapter.json_schema(ref_template=_REFS)
                schemas |= schema.pop("$defs", {}) | {schema["title"]: schema}
            described["paths"]["/score"]["post"]["responses"]["200"]["content"][STREAM] = _BINARY
            if token:
                scheme = {"type": "http", "scheme": "bearer"}
                described["components"]["securitySchemes"] = {"token": scheme}
                described["security"] = [{"token": []}]
                described["paths"][OPEN]["get"]["security"] = []
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


_MAX_IDLE_CONNECTIONS = 256
_KEEP_ALIVE_SECONDS = 30


def serve(
    scorer: Scorer,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve a scorer over HTTP until SIGTERM or SIGINT; requests in progress are answered first.

    `ready` is called with the address. Port 0 means any free port.

    Raises:
        AppcadenceError: the host is not loopback and there is no token, or the token is unusable.
        OSError: the address cannot be bound, or the token file cannot be read.
    """
    limits = limits or Limits()
    token = None if token_file is None else read_token(token_file)
    if token is None and not is_loopback(host):
        raise AppcadenceError(
            f"host {host} is open to other machines; give a file with the token that they must send",
            "token_file",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listening:
        Work(scorer, limits.max_rows).warm_up()
        config = uvicorn.Config(
            application(scorer, limits, token),
            log_level="error",
            access_log=False,
            server_header=False,
            http=heads_within(limits.timeout_seconds),
            ws="none",
            lifespan="off",
            limit_concurrency=limits.max_requests + _MAX_IDLE_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=limits.timeout_seconds,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        # Uvicorn drains, and then raises the signal again.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config, lambda: ready(address)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Reports readiness only once it handles signals, since one that comes during start-up may be lost."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
