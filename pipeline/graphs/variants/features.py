"""Features of images by a network of random weights, for distances between sets of images.

A random network needs no labels, no download and no images of a kind like ours; Naeem et al. 2020 (arXiv 2002.09797,
section 3.2) find that off ImageNet's photographs its features tell good samples from bad ones as well as Inception's or
better. The weights are those of the sampler's own generator, the same on every machine.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, relu

from pipeline.runtime.noise import standard_normal

EXTRACTOR = "random-conv-16-32-64"
"""Three 3x3 convolutions of so many channels, each with ReLU and 2x2 averaging, then 2x2 means: 256 features."""

_CHANNELS = (16, 32, 64)
_LARGEST_SIDE = 32
_CELLS = 2
_TOGETHER = 256  # images; bounds the memory


@torch.no_grad()
def features(images: NDArray[np.uint8]) -> Tensor:
    """The features of uint8 [n, H, W, C] by EXTRACTOR, float32 [n, 256]; larger sides are first averaged down to 32."""
    weights = _weights(images.shape[-1])
    return torch.cat([_read(images[at : at + _TOGETHER], weights) for at in range(0, len(images), _TOGETHER)])


def _read(images: NDArray[np.uint8], weights: list[Tensor]) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)).movedim(3, 1).float() / 127.5 - 1  # (n, C, H, W)
    height, width = (min(side, _LARGEST_SIDE) for side in x.shape[2:])
    x = adaptive_avg_pool2d(x, (height, width))
    for weight in weights:
        x = avg_pool2d(relu(conv2d(x, weight, padding=1)), 2, ceil_mode=True)
    return adaptive_avg_pool2d(x, _CELLS).flatten(1)


def _weights(channels: int) -> list[Tensor]:
    """He's initialisation (arXiv 1502.01852, equation 10) by the generator of the sampler; seed s for layer s."""
    weights = []
    for layer, (before, after) in enumerate(zip((channels, *_CHANNELS[:-1]), _CHANNELS, strict=True)):
        rows = np.arange(after, dtype=np.int64)
        draws = standard_normal(np.full_like(rows, layer), rows, 9 * before)
        weights.append(torch.from_numpy(draws).view(after, before, 3, 3) * math.sqrt(2 / (9 * before)))
    return weights
