"""The matrix products and convolutions of this engine's steps, and nothing else but Adam where that is asked for.

A step is taken once and its products are recorded, forward and backward, in the precision that the engine picks; then
they are repeated on the same operands, which stay in the cache as far as they fit. No loop around them can beat that.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from engine import make_trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from turns import SETTINGS, Turns

from pipeline.training.gradients import Gradients

LEARNING_RATE = 0.0  # the products are those of one step: their gradient says nothing of the next
LATE_STEP = 10_000  # by then the average moves slowly


class Recorder(TorchDispatchMode):
    """Keeps every product that is computed under it, ready to be computed again."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in flop_registry:
            self.products.append(partial(func, *args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def repeated(products: list[Callable[[], Any]]) -> Callable[[], None]:
    """All of them once; on a GPU as one captured graph, so that no product waits for the host to start it."""

    @torch.no_grad()
    def run() -> None:
        for product in products:
            product()

    if not torch.cuda.is_available():
        return run
    run()  # the libraries choose their kernels before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def main() -> None:
    trainer = make_trainer()
    gradients = Gradients(trainer.model, trainer.flat, trainer.params, trainer.precision, trainer.device)
    trainer.flat.publish()
    with Recorder() as recorder:
        gradients(next(iter(trainer.feed.steps(epoch=1))), torch.ones((), device=trainer.device))
    operations = recorder.products
    if SETTINGS["optimizer"]:
        operations += [partial(trainer.optimizer.step, LEARNING_RATE), partial(trainer.average.update, LATE_STEP)]
    step = repeated(operations)
    turns = Turns(precision=trainer.precision)
    for _ in range(SETTINGS["epochs"]):
        for _ in range(trainer.feed.steps_per_epoch):
            step()
            turns.step(SETTINGS["batch"])
        turns.end_epoch(dict)


if __name__ == "__main__":
    main()
