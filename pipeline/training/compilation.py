"""Whether and how a training's objective is compiled."""

import logging
import shutil
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch._dynamo.exc import TorchDynamoException

from pipeline.params import TrainParams

P = ParamSpec("P")
R = TypeVar("R")

_WORTH_IT = 8e12
"""Floating-point operations of a training from which on the compiler's 5 to 25 seconds are won back: on two cores a
training of 784-400-20 took 25 us an image without it and 18 us with it. It is a number and not a measurement, since a
choice that hung on the machine's mood would make two runs of one seed differ."""


def compiled(
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
    work = 6 * weights * examples * params.epochs  # forward 2, backward 4 for each weight and example
    if (
        params.compile == "never"
        or params.objective == "dreg"
        or (params.compile == "auto" and (work < _WORTH_IT or not _has_compiler(device)))
    ):
        return None
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no CUDA
    mode = "reduce-overhead" if device.type == "cuda" else "default"  # there, with captured CUDA graphs
    fast = torch.compile(function, dynamic=False, mode=mode)

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        nonlocal fast
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # what the last step's graph gave is no longer needed
        try:
            return fast(*arguments, **named)
        except TorchDynamoException as error:
            if params.compile == "always":
                raise
            print(f"warning: torch.compile failed ({' '.join(str(error).split())[:120]}); going on without it")
            fast = function
            return function(*arguments, **named)

    return run


def _has_compiler(device: torch.device) -> bool:
    """On the CPU torch compiles C++."""
    return device.type == "cuda" or (sys.platform != "win32" and any(map(shutil.which, ("g++", "clang++"))))
