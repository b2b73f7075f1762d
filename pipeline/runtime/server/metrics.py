"""What Prometheus reads: requests, latencies, images, batches and queues. Each server has a registry of its own."""

import functools
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
UNMATCHED = "unmatched"  # a path is the client's text: as a label it would grow without bound


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of_ours: dict[str, Any] = {"registry": self.registry, "namespace": "vae"}
        self._requests = Counter("requests", "Requests answered.", ["route", "status"], **of_ours)
        self._seconds = Histogram("request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, **of_ours)
        self._rows = Counter("rows", "Rows computed: images, latents.", ["graph"], **of_ours)
        self._batch = Histogram("batch_rows", "Rows of one run.", ["graph"], buckets=_ROWS, **of_ours)
        self._queue = Gauge("queue_rows", "Rows that wait for a run.", ["graph"], **of_ours)
        self._of_route = functools.cache(self._labelled)  # of each route and status there is one entry

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Note one answered request."""
        answered, took = self._of_route(route, status)
        answered.inc()
        took.observe(seconds)

    def _labelled(self, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, str(status)), self._seconds.labels(route)

    def count_batch(self, graph: str, rows: int) -> None:
        """Note one run of a graph."""
        self._rows.labels(graph).inc(rows)
        self._batch.labels(graph).observe(rows)

    def watch_queue(self, graph: str, queued: Callable[[], int]) -> None:
        """Read a queue's length from `queued` whenever the metrics are asked for."""
        self._queue.labels(graph).set_function(queued)

    def text(self) -> bytes:
        """The figures in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)


class MeasureRequests:
    """ASGI middleware: every request is counted, by the template of its route and its status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._metrics.count_request(route, status, time.perf_counter() - start)
