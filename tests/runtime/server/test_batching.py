import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.runtime.server.batching import Batcher, QueueFullError


def rows(*values):
    return {"a": np.array(values)}


def doubled(rows):
    return {"b": 2 * rows["a"]}


class Gate:
    """A graph that waits until it is opened, and remembers the rows of each run."""

    def __init__(self, run=doubled):
        self.open, self.run, self.seen = threading.Event(), run, []

    def __call__(self, rows):
        assert self.open.wait(10)
        self.seen.append(rows["a"].tolist())
        return self.run(rows)


def serving(test, run=doubled, **limits):
    """Run the coroutine function `test` with a batcher."""

    async def running():
        with ThreadPoolExecutor(1) as executor:
            await test(Batcher(run, executor, **{"batch_size": 4, "max_queue": 8} | limits))

    asyncio.run(running())


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_requests_of_one_moment_share_a_run_and_each_gets_its_own_rows():
    sizes = []

    async def test(batcher):
        results = await asyncio.gather(*(batcher.submit(rows(*part)) for part in ([1], [2, 3], [4])))
        assert [result["b"].tolist() for result in results] == [[2], [4, 6], [8]]

    serving(test, on_batch=sizes.append)
    assert sizes == [4]


def test_requests_of_several_rows_fill_a_run_by_their_rows():
    sizes = []

    async def test(batcher):
        await asyncio.gather(*(batcher.submit(rows(*part)) for part in ([1, 2, 3], [4], [5, 6, 7], [8, 9])))

    serving(test, on_batch=sizes.append, max_queue=16)
    assert sizes == [4, 3, 2]


def test_what_arrives_during_a_run_is_the_next_batch():
    gate = Gate()

    async def test(batcher):
        first = asyncio.ensure_future(batcher.submit(rows(1)))
        await asyncio.sleep(0.02)
        others = [asyncio.ensure_future(batcher.submit(rows(n))) for n in (2, 3, 4)]
        await until(lambda: batcher.queued == 3)
        gate.open.set()
        await asyncio.gather(first, *others)

    serving(test, gate)
    assert gate.seen == [[1], [2, 3, 4]]


def test_a_large_request_is_cut_into_runs_and_joined_again():
    async def test(batcher):
        result = await batcher.submit(rows(*range(11)))
        assert result["b"].tolist() == list(range(0, 22, 2))

    serving(test)


def test_a_full_queue_refuses_and_recovers():
    gate = Gate()

    async def test(batcher):
        accepted = [asyncio.ensure_future(batcher.submit(rows(*range(4))))]
        await asyncio.sleep(0.02)
        accepted += [asyncio.ensure_future(batcher.submit(rows(*range(4)))) for _ in range(2)]
        await until(lambda: batcher.queued == 8)
        with pytest.raises(QueueFullError, match="8 rows wait already"):
            await batcher.submit(rows(1))
        gate.open.set()
        await asyncio.gather(*accepted)
        assert (await batcher.submit(rows(5)))["b"].tolist() == [10]

    serving(test, gate)


def test_a_caller_that_leaves_costs_no_run_and_blocks_nobody():
    gate = Gate()

    async def test(batcher):
        first = asyncio.ensure_future(batcher.submit(rows(1)))
        await asyncio.sleep(0.02)
        leaving, staying = (asyncio.ensure_future(batcher.submit(rows(n))) for n in (2, 3))
        await until(lambda: batcher.queued == 2)
        leaving.cancel()
        gate.open.set()
        assert [(await job)["b"].tolist() for job in (first, staying)] == [[2], [6]]
        assert batcher.queued == 0

    serving(test, gate)
    assert gate.seen == [[1], [3]]


def test_a_caller_that_leaves_during_its_run_spoils_nothing():
    gate = Gate()

    async def test(batcher):
        leaving, staying = (asyncio.ensure_future(batcher.submit(rows(n))) for n in (1, 2))
        await asyncio.sleep(0.02)
        leaving.cancel()
        gate.open.set()
        assert (await staying)["b"].tolist() == [4]

    serving(test, gate)


def test_a_failing_request_fails_alone():
    def run(rows):
        if (rows["a"] == 13).any():
            raise RuntimeError("thirteen")
        return doubled(rows)

    async def test(batcher):
        results = await asyncio.gather(*(batcher.submit(rows(n)) for n in (1, 13, 2)), return_exceptions=True)
        assert [str(result) if isinstance(result, Exception) else result["b"].tolist() for result in results] == [
            [2],
            "thirteen",
            [4],
        ]

    serving(test, run)


def test_every_graph_has_run_its_largest_batch_before_the_first_request(start, sampler, monkeypatch):
    sizes, opened = {}, sampler.runner

    def recording(name):
        run = opened(name)

        def recorded(names, rows):
            sizes[name] = len(next(iter(rows.values())))
            return run(names, rows)

        return recorded

    monkeypatch.setattr(sampler, "runner", recording)
    start()
    assert sizes == {"sampler.onnx": 16, "decoder.onnx": 16, "encoder.onnx": 16, "scorer.onnx": 4}
