"""Features of images by a network of random weights, for distances between sets of images.

A random network needs no labels, no download and no images of a kind like ours; Naeem et al. 2020 (arXiv 2002.09797,
section 3.2) find that off ImageNet's photographs its features tell good samples from bad ones as well as Inception's or
better. The weights are those of the pipeline's own noise generator, the same on every machine.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, relu

from pipeline.dataset.noise import standard_normal, stream_key
from pipeline.quality.inputs import in_batches, small_input

EXTRACTOR = "random-conv-16-32-64"
"""Three 3x3 convolutions of so many channels, each with ReLU and 2x2 averaging, then 2x2 means: 256 features."""

_CHANNELS = (16, 32, 64)
_CELLS = 2
_SEED = 0


def random_conv_features(images: Tensor) -> Tensor:
    """The features of uint8 [n, C, H, W] by EXTRACTOR, float32 [n, 256]; larger sides are first averaged down to 32."""
    weights = _weights(images.shape[1])
    return in_batches(lambda batch: _read(batch, weights), images)


def _read(images: Tensor, weights: list[Tensor]) -> Tensor:
    x = small_input(images)
    for weight in weights:
        x = avg_pool2d(relu(conv2d(x, weight, padding=1)), 2, ceil_mode=True)
    return adaptive_avg_pool2d(x, _CELLS).flatten(1)


def _weights(channels: int) -> list[Tensor]:
    """He's initialisation (arXiv 1502.01852, equation 10) by the pipeline's generator; stream s for layer s."""
    weights = []
    for layer, (before, after) in enumerate(zip((channels, *_CHANNELS[:-1]), _CHANNELS, strict=True)):
        draws = standard_normal(stream_key(_SEED, layer), torch.arange(after), 9 * before)
        weights.append(draws.view(after, before, 3, 3) * math.sqrt(2 / (9 * before)))
    return weights
