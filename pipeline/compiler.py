"""torch.compile, with a way on where it fails."""

import logging
import shutil
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pipeline.errors import UserError, one_line

P = ParamSpec("P")
R = TypeVar("R")


def has_compiler(device: torch.device) -> bool:
    """Whether torch finds what it compiles with: on the CPU that is C++."""
    return device.type == "cuda" or (sys.platform != "win32" and any(map(shutil.which, ("g++", "clang++"))))


def compiled(function: Callable[P, R], device: torch.device, required: str | None = None) -> Callable[P, R]:
    """`function` compiled for the shapes that it is called with: a few, since each costs seconds.

    Where compiling fails, a line says so and the plain function goes on, unless it is required.

    Args:
        function: takes tensors on `device`.
        device: a GPU captures CUDA graphs.
        required: where the user has asked for it, what to tell them, with {} for what failed.

    Raises:
        UserError: from the function that is returned, where compiling fails and is required.
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
            failure = f"torch.compile failed ({one_line(error, 120)})"
            if required:
                raise UserError(required.format(failure)) from None
            print(f"warning: {failure}; going on without it", file=sys.stderr)
            fast = function
            return function(*arguments, **named)

    return run
