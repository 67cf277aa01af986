"""200 clients at once ask one server for scores, for a minute; then as many send the largest bodies it takes.

    python benchmarks/server.py [--seconds 60] [--clients 200]

Prints requests, errors, the median and the 99th percentile of what a client waits, and the largest memory
that the server process had, beside its bound: what it takes without a request, all bodies that may wait, and
for each worker forty times the largest body.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.serving.server.limits import Limits
from appcadence.serving.server.wire import plain_rows
from appcadence.telemetry.simulate.fleet import simulate

JSON = {"Content-Type": "application/json"}
LARGE_CLIENTS = 16
EXPANSION = 40


@contextlib.contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The address and the process id of a server of the reference model."""
    command = [sys.executable, "-m", "appcadence", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"at\s(http://\S+);", process.stdout.readline() + process.stdout.readline())
        assert found is not None
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait()


def peak_mb(pid: int) -> float:
    """Largest resident memory of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


async def ask(address: str, bodies: list[bytes], clients: int, seconds: float) -> None:
    """Let clients ask, each as soon as it has its answer, and print what came of it."""
    waited: list[float] = []
    statuses: dict[str, int] = {}
    end = time.monotonic() + seconds

    async def client(number: int, session: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                body = bodies[number % len(bodies)]
                status = str((await session.post(f"{address}/score", content=body, headers=JSON)).status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            waited.append(time.perf_counter() - began)
            statuses[status] = statuses.get(status, 0) + 1

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as session:
        await asyncio.gather(*(client(number, session) for number in range(clients)))
    p50, p99 = np.quantile(waited, [0.5, 0.99])
    errors = sum(count for status, count in statuses.items() if status != "200")
    print(f"{len(waited):,} requests, {errors:,} errors {statuses}; p50 {p50:.2f} s, p99 {p99:.2f} s")


def body(flows: pa.Table) -> bytes:
    return orjson.dumps({"flows": plain_rows(flows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    flows, limits = simulate(4, 1, 1).tables["flows"], Limits()
    devices = [flows.filter(pc.equal(flows["device_id"], d)) for d in flows["device_id"].unique()]
    with server() as (address, pid):
        idle = peak_mb(pid)
        print(f"{options.clients} clients, a device's day each ({len(flows) // len(devices)} flows):")
        asyncio.run(ask(address, [body(table) for table in devices], options.clients, options.seconds))
        print(f"peak memory {peak_mb(pid):.0f} MB, {idle:.0f} MB of it before the first request")
        row = orjson.dumps(plain_rows(flows.slice(0, 1))[0])
        rows = [row.replace(b'"device_id":"', b'"device_id":"%d-' % n) for n in range(limits.max_rows)]
        most = limits.max_body_bytes // (max(map(len, rows)) + 1) - 1
        large = b'{"flows":[' + b",".join(rows[:most]) + b"]}"
        print(
            f"{LARGE_CLIENTS} clients, {len(large) / 2**20:.0f} MB each ({min(most, len(rows)):,} devices):"
        )
        asyncio.run(ask(address, [large], LARGE_CLIENTS, options.seconds / 2))
        bound = idle + (limits.max_waiting_bytes + limits.workers * EXPANSION * limits.max_body_bytes) / 2**20
        print(f"peak memory {peak_mb(pid):.0f} MB; bound {bound:.0f} MB")


if __name__ == "__main__":
    main()
