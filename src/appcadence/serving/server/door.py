"""Access control and metrics for every request."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appcadence._inputs import check_private, open_input
from appcadence.errors import AppcadenceError
from appcadence.serving.server.limits import Queue
from appcadence.telemetry.addresses import is_loopback

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one server; threads may share them."""

    def __init__(self, queue: Queue) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "appcadence", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **named)
        said = "Time from the head of a request to its answer."
        self.seconds = Histogram("request_seconds", said, ["route"], buckets=_SECONDS, **named)
        self.windows = Counter("windows_scored", "Rows of scores tables returned.", **named)
        for name, said, value in (
            ("requests_under_way", "Requests being read, waiting or being scored.", lambda: queue.requests),
            ("queue_length", "Requests waiting for a worker.", lambda: queue.waiting),
            ("waiting_bytes", "Bytes of the bodies of requests in progress.", lambda: queue.held_bytes),
        ):
            Gauge(name, said, **named).set_function(value)

    def text(self) -> bytes:
        """All metrics in Prometheus text format."""
        return generate_latest(self.registry)


OPEN = "/healthz"
"""The only path that needs no token."""
MIN_TOKEN_CHARACTERS = 32
MIN_DISTINCT_CHARACTERS = 10
MAX_TOKEN_BYTES = 4096
_MAKE_ONE = "make one with: umask 077; openssl rand -hex 32 > FILE"


class Door:
    """Checks and counts requests, and passes them to `app`.

    Without a token the server is on loopback, but a web page could let its own name resolve to it (DNS
    rebinding). Requests that name another host are therefore refused.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None, routes: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.token = token
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        route = scope["path"] if scope["path"] in self.routes else "other"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await (self._refusal(scope) or self.app)(scope, receive, noted)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self.token is None:
            if names_loopback(headers.get("host", "")):
                return None
            said = "the Host header names another machine; use the address that the server printed"
            return JSONResponse({"error": said}, 421)
        if scope["path"] == OPEN or bears(headers.get("authorization", ""), self.token):
            return None
        said = "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'"
        return JSONResponse({"error": said}, 401, {"WWW-Authenticate": "Bearer"})


def read_token(file: Path) -> str:
    """The token in a file that only its owner may read.

    Raises:
        AppcadenceError: others may read or write the file, or the token is too easy to guess.
        OSError: the file cannot be read.
    """
    with open_input(file) as stream:
        check_private(file, stream, AppcadenceError)
        content = stream.read(MAX_TOKEN_BYTES + 1)
    token = content.decode("latin-1").strip()
    if len(content) > MAX_TOKEN_BYTES or not all("!" <= c <= "~" for c in token):
        raise AppcadenceError(f"{file} holds no token: one word of printable ASCII; {_MAKE_ONE}")
    if len(token) < MIN_TOKEN_CHARACTERS or len(set(token)) < MIN_DISTINCT_CHARACTERS:
        raise AppcadenceError(
            f"the token in {file} is easy to guess: {len(token)} characters, {len(set(token))} of them "
            f"distinct; it takes {MIN_TOKEN_CHARACTERS} and {MIN_DISTINCT_CHARACTERS}; {_MAKE_ONE}"
        )
    return token


def bears(authorization: str, token: str) -> bool:
    """Whether an Authorization header has the token, compared in constant time."""
    given = f"{authorization[:7].title()}{authorization[7:]}".encode()
    wanted = f"Bearer {token}".encode()
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())


def names_loopback(host: str) -> bool:
    """Whether a Host header names this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name.strip("[]"))
