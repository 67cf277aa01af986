"""The server as a process: it binds, says so, serves, and ends when it is told to."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from appcadence.errors import AppcadenceError
from appcadence.serving.scorer import Scorer
from appcadence.serving.server.app import application
from appcadence.serving.server.door import read_token
from appcadence.serving.server.limits import Limits
from appcadence.serving.server.work import Work
from appcadence.telemetry.addresses import is_loopback

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
    """Serve a scorer over HTTP until SIGTERM or SIGINT; what is under way then is answered first.

    `ready` is told the address. Port 0 is one that is free.

    Raises:
        AppcadenceError: the host is not loopback and there is no token, or the token is not usable.
        OSError: the address cannot be bound, or the token not read.
    """
    limits = limits or Limits()
    token = None if token_file is None else read_token(token_file)
    if token is None and not is_loopback(host):
        raise AppcadenceError(
            f"host {host} lets other machines ask; give a file with the token that they must send",
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
            ws="none",
            lifespan="off",
            limit_concurrency=limits.max_requests + _MAX_IDLE_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=limits.timeout_seconds,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        # Uvicorn drains, and then raises the signal that it was given once more.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):
            _Server(config, lambda: ready(address)).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says that it is ready once it heeds signals: one that comes while it starts may be lost."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
