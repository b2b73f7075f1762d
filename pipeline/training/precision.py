"""The precision in which the networks run."""

from contextlib import AbstractContextManager, nullcontext

import torch


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the networks run; weights, densities and bounds stay in fp32 in either."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
