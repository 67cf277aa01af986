"""What every request passes: who may ask, and the count of what was answered."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appcadence.serving.server.access import bears, names_loopback
from appcadence.serving.server.metrics import Metrics

OPEN = "/healthz"
"""The one path that takes no token."""


class Door:
    """Lets requests through to `app`.

    Without a token the server is on loopback, and a web page could have its own name resolved to it: requests
    that name another host are refused.
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
            said = "the Host header names another machine; ask for the address that the server printed"
            return JSONResponse({"error": said}, 421)
        if scope["path"] == OPEN or bears(headers.get("authorization", ""), self.token):
            return None
        said = "the token is missing or wrong; send it as 'Authorization: Bearer TOKEN'"
        return JSONResponse({"error": said}, 401, {"WWW-Authenticate": "Bearer"})
