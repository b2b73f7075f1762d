"""What all routes share: the graphs behind their queues, the deadline, and whether the server is stopping."""

import asyncio
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from fastapi import HTTPException, Request

from pipeline.errors import UserError
from pipeline.runtime.labels import LABEL, Label
from pipeline.runtime.sampler import Sampler
from pipeline.runtime.server.batching import Arrays, Batcher, QueueFullError, count_rows
from pipeline.runtime.server.bodies import SMALL_JSON, check_json_size
from pipeline.runtime.server.formats import beside
from pipeline.runtime.server.graphs import Graph, check_rows, label_rows, open_graphs, warm_up
from pipeline.runtime.server.metrics import Metrics
from pipeline.runtime.server.patience import Patience
from pipeline.runtime.server.settings import Settings

Result = TypeVar("Result")


class Service:
    """Runs the graphs for the routes.

    Attributes:
        sampler: the model that is served.
        max_images: of one request, by the limit on their number and by that on their bytes.
        graphs: its graphs by name.
        draining: set when the server is to stop; new requests are then refused.
        in_flight: requests that are being answered.
    """

    def __init__(self, sampler: Sampler, settings: Settings, metrics: Metrics) -> None:
        self.sampler, self.settings, self.metrics = sampler, settings, metrics
        self.max_images = min(settings.max_images, max(1, settings.max_pixel_bytes // math.prod(sampler.image_shape)))
        self.graphs = open_graphs(sampler)
        for graph in self.graphs.values():
            warm_up(graph, sampler.device)
        self.draining = False
        self.in_flight = 0
        # One thread for all graphs: onnxruntime divides a run among the cores by itself.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="onnxruntime")
        # One at a time: a small file may decode to hundreds of megabytes, and take seconds to do so. So may JSON.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._batchers = {name: self._batcher(graph) for name, graph in self.graphs.items()}

    def graph(self, name: str) -> Graph:
        """A graph by its name; HTTP 404 where the model has none."""
        if name not in self.graphs:
            raise HTTPException(404, f"this model has no {name!r}; expected one of {', '.join(self.graphs)}")
        return self.graphs[name]

    async def run(
        self, name: str, rows: Arrays, request: Request, label: Label | None = None, checked: bool = False
    ) -> Arrays:
        """A graph's outputs for these rows, for as long as `request`'s client waits.

        If the graph takes a label, all rows have `label`, unless they hold their own. `checked` rows are known to hold
        no value out of range.

        Raises:
            HTTPException: no such graph (404), too many rows or a value out of range (422), the queue is full (503),
                the deadline passed (504).
        """
        self.check_count(count_rows(rows))
        graph = self.graph(name)
        if LABEL not in rows:
            rows = {**rows, **label_rows(graph, label, count_rows(rows))}
        if not checked:
            check_rows(graph, rows)
        try:
            outputs = self._batchers[name].submit(rows)
        except QueueFullError as full:
            raise HTTPException(503, f"the queue is full: {full}", {"Retry-After": "1"}) from None
        return await Patience(outputs, request, self.settings.request_seconds).wait()

    async def parse(
        self, text: bytes, row_shapes: Iterable[tuple[int, ...]], read: Callable[[], Result], nbytes: float
    ) -> Result:
        """What `read` makes of a body of `nbytes`, of which `text` is JSON that holds rows of these shapes.

        Raises:
            HTTPException: the JSON is larger than so many rows as are allowed need (413), or was not parsed within the
                time that a result may take (504).
        """
        if len(text) <= SMALL_JSON:
            return await beside(nbytes, read)

        def check_and_read() -> Result:
            check_json_size(text, self.max_images, row_shapes)
            return read()

        return await self.decode(check_and_read, "JSON")

    async def decode(self, read: Callable[[], Result], name: str = "picture") -> Result:
        """What `read` makes of a picture or of other content, as `name` says, once it is its turn.

        Raises:
            HTTPException: it was not here within the time that a result may take (504).
        """
        decoding = asyncio.get_running_loop().run_in_executor(self._decoder, read)
        seconds = self.settings.request_seconds
        try:
            return await asyncio.wait_for(decoding, seconds)
        except TimeoutError:
            raise HTTPException(504, f"the {name} was not decoded within {seconds} s") from None

    def check_count(self, count: int, name: str = "count") -> None:
        """Hold that a request may ask for so many.

        Raises:
            UserError: the count is 0 or above the limits, one of images and one of their bytes.
        """
        if not 1 <= count <= self.max_images:
            raise UserError(f"{name} is {count}; expected 1 to {self.max_images}")

    def close(self) -> None:
        """Let the threads end."""
        for executor in (self._worker, self._decoder):
            executor.shutdown(wait=False, cancel_futures=True)

    def _batcher(self, graph: Graph) -> Batcher:
        batcher = Batcher(
            graph.run,
            self._worker,
            batch_size=graph.batch_size,
            max_queue=self.settings.max_queue,
            on_batch=partial(self.metrics.count_batch, graph.name),
        )
        self.metrics.watch_queue(graph.name, lambda: batcher.queued)
        return batcher
