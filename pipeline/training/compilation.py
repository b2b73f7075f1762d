"""Whether the steps of a training are compiled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pipeline.compiler import compiled, has_compiler
from pipeline.params import TrainParams

P = ParamSpec("P")
R = TypeVar("R")

_WORTH_IT = 8e12
"""Floating-point operations of a training from which on the compiler's 5 to 25 seconds are won back: on two cores a
training of 784-400-20 took 25 us an image without it and 18 us with it. It is a number and not a measurement, since a
choice that hung on the machine's mood would make two runs of one seed differ."""

_STEPS_WORTH_IT = 30_000
"""Steps of a training from which on a GPU's compiler is taken to be won back. There a small model waits for the host to
start its kernels, whatever their work: some 100 a step, at some 10 us each, become one captured graph. So what is won
is about 1 ms a step, and the compiler takes about 30 s. That is an estimate; nothing of it was measured."""


def compiled_step(
    function: Callable[P, R], params: TrainParams, weights: int, examples: int, device: torch.device
) -> Callable[P, R] | None:
    """`function` compiled by torch, or None where that would cost more time than it saves.

    Args:
        function: takes tensors whose shapes never change.
        params: `compile` says auto, always or never.
        weights: of the model.
        examples: of one epoch.
        device: of the tensors.
    """
    pays = _is_worth_it(params, weights, examples, device) and has_compiler(device)
    if params.compile == "never" or params.objective == "dreg" or (params.compile == "auto" and not pays):
        return None
    torch._dynamo.config.trace_autograd_ops = True  # a function with torch.autograd.grad is one graph, not two
    return compiled(function, device, required=params.compile == "always")


def _is_worth_it(params: TrainParams, weights: int, examples: int, device: torch.device) -> bool:
    if device.type == "cuda":
        return params.epochs * -(-examples // params.global_batch_size) >= _STEPS_WORTH_IT
    work = 6 * weights * examples * params.epochs  # forward 2, backward 4 for each weight and example
    return work >= _WORTH_IT
