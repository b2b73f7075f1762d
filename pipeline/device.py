"""Which device computes."""

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
