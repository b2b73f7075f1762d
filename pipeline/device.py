"""Which device computes."""

import torch

from pipeline.errors import UserError


def choose_device(name: str, index: int = 0) -> torch.device:
    """`auto` is CUDA where there is a device, else the CPU; of several devices, that with this index.

    Raises:
        UserError: `cuda` was asked for and there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: train.device is 'cuda' but no CUDA device is available; expected auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, index) if name == "cuda" else torch.device(name)
