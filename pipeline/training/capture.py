"""A step recorded as a CUDA graph, which a GPU replays without waiting for the host to start each of its kernels."""

import torch
from torch import Tensor

from pipeline.training.compilation import Step
from pipeline.training.feed import Batch

_WARM_UPS = 3  # outside the graph: the first calls choose algorithms and make the workspaces that it is to use


class CapturedStep:
    """`step`, recorded at its first call; all later ones replay the same kernels, to the bit.

    Every call takes a batch of the first one's shapes, and overwrites what the last one returned.

    Args:
        step: a batch and beta -> the loss and the terms; what else it writes lies in the same place at each call.
            It may not wait for the device.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step.

        Raises:
            RuntimeError: at the first call: the step does something that cannot be recorded.
        """
        if self._graph is None:
            copies = [value.clone() for value in _read(batch)]
            self._batch, self._beta = Batch(batch.examples, *copies), beta.clone()  # where the graph reads
            self._graph, self._result = self._record()
        else:
            for copy, value in zip((*_read(self._batch), self._beta), (*_read(batch), beta), strict=True):
                copy.copy_(value)
        self._graph.replay()
        return self._result

    def _record(self) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                self._step(self._batch, self._beta)
        current.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # MLflow's and the signals' threads may go on: only this one must do nothing that cannot be recorded.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._step(self._batch, self._beta)
        return graph, result


def _read(batch: Batch) -> list[Tensor]:
    """What a step reads of a batch: all but which examples it shows."""
    return [batch.x, batch.eps] if batch.label is None else [batch.x, batch.eps, batch.label]
