"""The limits of one server, and its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from fastapi import HTTPException

from appcadence._cpus import usable_cpus
from appcadence.errors import AppcadenceError

_RETRY = {"Retry-After": "1"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """Limits of a server, all at least 1.

    They bound its memory: waiting bodies take at most `max_waiting_bytes`, and each of the `workers` holds
    one body as tables and rows, about twenty times its size as JSON.

    Raises:
        AppcadenceError: a limit is less than 1.
    """

    workers: int = usable_cpus()
    """Requests scored at the same time."""
    max_body_bytes: int = 16 << 20
    max_rows: int = 50_000
    """Rows of one table; a flow counts once for every window it touches."""
    max_requests: int = 256
    """Requests in progress: being read, waiting or being scored."""
    max_waiting_bytes: int = 256 << 20
    """Bytes of the bodies of all requests in progress."""
    timeout_seconds: int = 60
    """From the head of a request to its answer; and for the head itself."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise AppcadenceError(f"{field.name} is {value}; expected at least 1", field.name)


class Place:
    """What one request occupies until it is answered and its work has ended."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.held_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Take `n_bytes` more, or refuse the request."""
        limits = self.queue.limits
        if self.held_bytes + n_bytes > limits.max_body_bytes:
            raise HTTPException(
                413, f"the body has more than {limits.max_body_bytes:,} bytes; send fewer flows"
            )
        if self.queue.held_bytes + n_bytes > limits.max_waiting_bytes:
            raise HTTPException(503, "too many bytes are waiting to be scored; try again", _RETRY)
        self.held_bytes += n_bytes
        self.queue.held_bytes += n_bytes

    def leave(self) -> None:
        """Release everything."""
        self.queue.held_bytes -= self.held_bytes
        self.queue.requests -= 1


class Queue:
    """The requests in progress and their workers; everything but the work runs on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.waiting = 0
        """Requests whose body is complete and whose work has not started."""
        self.held_bytes = 0
        self.free = asyncio.Semaphore(limits.workers)
        self.pool = ThreadPoolExecutor(limits.workers, "appcadence-score")

    async def answer(self, read: Callable[[Place], Awaitable[bytes]], work: Callable[[bytes], _T]) -> _T:
        """Read a body and process it in a thread, within the limits.

        Work that takes too long cannot be stopped: nobody waits for it any more, but it keeps its place and
        its worker until it ends.
        """
        if self.requests >= self.limits.max_requests:
            raise HTTPException(503, "too many requests are waiting to be scored; try again", _RETRY)
        self.requests += 1
        place, job, body = Place(self), None, None
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                body = await read(place)
                await self._worker()
                job = asyncio.get_running_loop().run_in_executor(self.pool, work, body)
                return await asyncio.shield(job)
        except TimeoutError:
            seconds = self.limits.timeout_seconds
            if body is None:
                raise HTTPException(408, f"the body did not arrive within {seconds} s") from None
            raise HTTPException(503, f"no worker finished within {seconds} s; try again", _RETRY) from None
        finally:
            if job is None:
                place.leave()
            else:
                job.add_done_callback(lambda done: self._ended(done, place))

    async def _worker(self) -> None:
        self.waiting += 1
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1

    def _ended(self, job: asyncio.Future[Any], place: Place) -> None:
        if not job.cancelled():
            job.exception()  # retrieved, or asyncio would warn
        self.free.release()
        place.leave()
