"""Requests that wait at the same time run together: a queue before one graph, and one run at a time behind it.

Nothing waits on purpose. An idle graph starts at once; what arrives during a run is the next batch. Every row of our
graphs stands alone, so the company that a row runs in does not change its result.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""Named arrays of equally many rows."""


class QueueFullError(Exception):
    """There is no room for these rows now; later there may be."""


@dataclass(frozen=True, eq=False)
class _Job:
    rows: Arrays
    done: "asyncio.Future[Arrays]"

    def __len__(self) -> int:
        return count_rows(self.rows)


class Batcher:
    """Joins the rows of concurrent callers into runs of at most `batch_size` rows.

    Attributes:
        queued: rows that wait for a run.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        executor: Executor,
        *,
        batch_size: int,
        max_queue: int,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`run` is called in `executor`, never twice at once; `on_batch` hears how many rows each run has."""
        self._run, self._executor, self._on_batch = run, executor, on_batch
        self._batch_size, self._max_queue = batch_size, max_queue
        self._waiting: deque[_Job] = deque()
        self._running = False
        self.queued = 0

    def submit(self, rows: Arrays) -> "asyncio.Future[Arrays]":
        """The graph's outputs for these rows, or what `run` raised for them alone; who cancels it gives its place up.

        Raises:
            QueueFullError: as many rows as may wait already do.
        """
        n = count_rows(rows)
        if self.queued + n > self._max_queue and self._waiting:
            raise QueueFullError(f"{self.queued} rows wait already; expected at most {self._max_queue} with these {n}")
        # A large request enters in pieces, so that it holds up nobody for longer than one run.
        jobs = [self._enqueue(_slice(rows, at, at + self._batch_size)) for at in range(0, n, self._batch_size)]
        if not self._running:
            asyncio.get_running_loop().call_soon(self._start)  # with what else is asked in this turn of the loop
        return jobs[0].done if len(jobs) == 1 else asyncio.ensure_future(_gather(jobs))

    def _enqueue(self, rows: Arrays) -> _Job:
        job = _Job(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self.queued += len(job)
        return job

    def _start(self) -> None:
        jobs = [] if self._running else self._take()
        if jobs:
            self._running = True
            self._on_batch(sum(map(len, jobs)))
            run = asyncio.get_running_loop().run_in_executor(self._executor, self._run_together, jobs)
            run.add_done_callback(partial(self._deliver, jobs))

    def _take(self) -> list[_Job]:
        """The jobs of the next run, in order of arrival; those whose caller left are dropped."""
        jobs: list[_Job] = []
        room = self._batch_size
        while self._waiting and len(self._waiting[0]) <= room:
            job = self._waiting.popleft()
            self.queued -= len(job)
            if not job.done.cancelled():
                room -= len(job)
                jobs.append(job)
        return jobs

    def _run_together(self, jobs: list[_Job]) -> list[Arrays | Exception]:
        """One result a job; where a run fails, each job is tried alone, so that only the culprit fails."""
        try:
            outputs = self._run(_join([job.rows for job in jobs]))
        except Exception as error:
            return [error] if len(jobs) == 1 else [self._run_together([job])[0] for job in jobs]
        ends = np.cumsum([len(job) for job in jobs])
        return [_slice(outputs, int(end) - len(job), int(end)) for job, end in zip(jobs, ends, strict=True)]

    def _deliver(self, jobs: list[_Job], run: "asyncio.Future[list[Arrays | Exception]]") -> None:
        self._running = False
        self._start()  # first, so that the worker is busy while results are handed out
        for job, result in zip(jobs, run.result(), strict=True):
            if job.done.cancelled():
                continue
            if isinstance(result, Exception):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)


def count_rows(rows: Arrays) -> int:
    """How many rows these arrays have."""
    return len(next(iter(rows.values())))


async def _gather(jobs: list[_Job]) -> Arrays:
    return _join(await asyncio.gather(*(job.done for job in jobs)))


def _slice(rows: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in rows.items()}


def _join(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
