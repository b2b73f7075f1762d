"""The mean of what was measured of images one by one, and how far it may be off."""

import math

from torch import Tensor


def mean_and_stderr(values: Tensor) -> tuple[float, float]:
    """The mean of independent values [n], n > 0, and its standard error; of a single one 0, for want of a spread."""
    values = values.double()
    stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return values.mean().item(), stderr
