"""From pixel means to the pixels that apps hold."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

GREY_LEVEL = np.float32(1 / 255)

Images = NDArray[np.uint8]


def to_levels(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixel means in [0, 1], [n, C, H, W] -> the nearest of 256 levels, float32 [n, H, W, C]; NaN stays NaN."""
    levels: NDArray[np.float32] = np.rint(x / GREY_LEVEL).transpose(0, 2, 3, 1)
    return levels


def to_pixels(x: NDArray[np.float32]) -> Images:
    """As `to_levels`, uint8.

    Raises:
        UserError: a mean is not finite; cast to uint8, it would be some level or other.
    """
    if not np.isfinite(x.sum()):  # the sum of what lies in [0, 1] is finite, and an infinity or a NaN stays in it
        raise UserError("z lies where the decoder overflows: a pixel is not finite; expected z nearer to 0")
    return to_levels(x).astype(np.uint8)


def gather(parts: Iterable[Images], n: int, shape: tuple[int, ...]) -> Images:
    """Join parts that have n images of `shape` together; beside the result, one part is held at a time."""
    gathered = np.empty((n, *shape), np.uint8)
    filled = 0
    for part in parts:
        gathered[filled : filled + len(part)] = part
        filled += len(part)
    return gathered
