"""Which device computes, and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from pipeline.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU.

    Raises:
        UserError: `cuda` was asked for and there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: train.device is 'cuda' but no CUDA device is available; expected auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the networks run; the densities stay in fp32 in either."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
