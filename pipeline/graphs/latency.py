"""How long an app waits for images of the exported sampler."""

import statistics
import time
from pathlib import Path

from pipeline.runtime.sampler import Sampler

IMAGES = 64
WARM_UP, CALLS, LONGEST_SECONDS = 3, 20, 5.0


def sample_latency(folder: Path) -> float:
    """Median milliseconds of `Sampler(folder).sample(64)` on this machine, over 20 calls or as many as 5 s hold."""
    sampler = Sampler(folder)
    label = 0 if sampler.labels else None
    for _ in range(WARM_UP):
        sampler.sample(IMAGES, label=label)
    durations: list[float] = []
    while not durations or (len(durations) < CALLS and sum(durations) < LONGEST_SECONDS):
        start = time.perf_counter()
        sampler.sample(IMAGES, label=label)
        durations.append(time.perf_counter() - start)
    return 1000 * statistics.median(durations)
