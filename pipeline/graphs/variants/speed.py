"""How much faster one sampler is than another: both take turns in one process, so that both see the same machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.graphs.labels import classes_of, in_turn, label_input
from pipeline.runtime.captured import CapturedGraph
from pipeline.runtime.draws import rows
from pipeline.runtime.sampler import SAMPLER
from pipeline.runtime.session import Device, open_session, served_device

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SIZES = (1, 64, 512)
"""Images a call."""

DECIDING_SIZES = (64, 512)
"""Those whose lesser ratio is held to export.min_speedup: a single image is mostly overhead."""

WARM_UP, ROUNDS, LONGEST_SECONDS = 2, 400, 1.5


def measure_speedups(plain: bytes, variant: bytes, device: Device) -> dict[int, float]:
    """The ratio of the median seconds of a call, plain over variant, for each of SIZES.

    400 rounds of one call each, or as many as 1.5 seconds hold: other work on the machine comes in bursts. The files
    are samplers, and run as `Sampler` serves them: on CUDA by captured graphs.
    """
    sessions = [open_session(content, device, name=SAMPLER) for content in (plain, variant)]
    classes = classes_of(sessions[0], SAMPLER)
    runners = [_served(*pair, device) for pair in zip((plain, variant), sessions, strict=True)]

    def turn(size: int) -> Sequence[float]:
        durations = []
        for run in runners:
            given = rows(size, 0, 0, 1.0) | label_input(in_turn(classes, size))
            start = time.perf_counter()
            run(["images"], given)
            durations.append(time.perf_counter() - start)
        return durations

    def ratio(size: int) -> float:
        for _ in range(WARM_UP):
            turn(size)
        turns: list[Sequence[float]] = []
        end = time.perf_counter() + LONGEST_SECONDS
        while len(turns) < ROUNDS and (not turns or time.perf_counter() < end):
            turns.append(turn(size))
        seconds: list[float] = [statistics.median(column) for column in zip(*turns, strict=True)]
        return seconds[0] / max(seconds[1], 1e-9)

    return {size: ratio(size) for size in SIZES}


def _served(content: bytes, session: "InferenceSession", device: Device) -> Callable[..., Any]:
    run: Callable[..., Any] = session.run
    if served_device(session) != "cuda":
        return run
    try:
        return CapturedGraph(open_session(content, device, name=SAMPLER, capture=True)).run
    except UserError:  # it cannot be captured, and is not where it is served either
        return run
