"""Images as the small networks of this package see them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.dataset.batches import index_batches

LARGEST_SIDE = 32
_TOGETHER = 256  # images read at once; bounds the memory


def small_input(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] -> float32 in [-1, 1]; a side longer than 32 is averaged down to it."""
    height, width = (min(side, LARGEST_SIDE) for side in images.shape[2:])
    return adaptive_avg_pool2d(images.float() / 127.5 - 1, (height, width))


@torch.no_grad()
def in_batches(read: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `read` makes of uint8 images [n, C, H, W], a few hundred at a time: [n, ...]."""
    return torch.cat([read(images[rows]) for rows in index_batches(torch.arange(len(images)), _TOGETHER)])
