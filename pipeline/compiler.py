"""torch.compile, with a way on where it fails."""

import logging
import shutil
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pipeline.errors import one_line

P = ParamSpec("P")
R = TypeVar("R")


def has_compiler(device: torch.device) -> bool:
    """Whether torch finds what it compiles with: on the CPU that is C++."""
    return device.type == "cuda" or (sys.platform != "win32" and any(map(shutil.which, ("g++", "clang++"))))


def compiled(function: Callable[P, R], device: torch.device, required: bool = False) -> Callable[P, R]:
    """`function` compiled for the shapes that it is called with: a few, since each costs seconds.

    Where compiling fails, a line says so and the plain function goes on; if `required`, the error is raised.

    Args:
        function: takes tensors on `device`.
        device: a GPU captures CUDA graphs.
        required: whether the caller has asked for it.
    """
    from torch._dynamo.exc import TorchDynamoException  # two seconds of imports, for those alone who compile

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where there is no CUDA
    mode = "reduce-overhead" if device.type == "cuda" else "default"  # there, with captured CUDA graphs
    # Else the gradient's half is compiled where autograd first asks for it, and fails out of our reach.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    fast = torch.compile(function, dynamic=False, mode=mode)

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        nonlocal fast
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # what the last step's graph gave is no longer needed
        try:
            return fast(*arguments, **named)
        except TorchDynamoException as error:
            if required:
                raise
            print(
                f"warning: torch.compile failed ({one_line(error, 120)}); going on without it",
                file=sys.stderr,
            )
            fast = function
            return function(*arguments, **named)

    return run
