"""What a server counts, in the text form of Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from appcadence.serving.server.limits import Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one server; threads may share them."""

    def __init__(self, queue: Queue) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "appcadence", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **named)
        said = "From the head of a request to its answer."
        self.seconds = Histogram("request_seconds", said, ["route"], buckets=_SECONDS, **named)
        self.windows = Counter("windows_scored", "Rows of scores tables answered.", **named)
        for name, said, value in (
            ("requests_under_way", "Requests being read, waiting or being scored.", lambda: queue.requests),
            ("queue_length", "Requests that wait for a worker.", lambda: queue.waiting),
            ("waiting_bytes", "Bodies of the requests under way.", lambda: queue.held_bytes),
        ):
            Gauge(name, said, **named).set_function(value)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
