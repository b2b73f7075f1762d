"""Batches of whole tensors: the stored uint8 pixels as the model wants to see them."""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.noise import stream_key, uniform_16_bits
from pipeline.errors import UserError

MOST_IMAGES_AT_ONCE = 1000
_SMALL = 1024  # values; a thousand larger images would take too much, at some 150 bytes a value in convolutions
_THRESHOLDS_PER_LEVEL = 257  # 65535 / 255
_SMALLEST, _LARGEST = -32768, 32767  # of an int16
_STATIC = 0  # the stream of noise that never changes; epochs are 1, 2, ...


def mapped_images(images: np.ndarray) -> Tensor:
    """A memory-mapped split, uint8 [n, C, H, W], or its labels, int64 [n], as a tensor over the same pages.

    It is not to be written to. Nothing is read before an example is asked for, and what was read stays the kernel's
    to drop.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


def index_batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Split `order` into batches; the last one may be smaller."""
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def evenly(count: int, most: int) -> Tensor:
    """At most so many places among `count`, in equal steps: a stored split may be in the order of its classes."""
    return torch.from_numpy(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def images_at_once(image_shape: Sequence[int], most: int = MOST_IMAGES_AT_ONCE) -> int:
    """How many images a network may be given at once: `most` of up to 1,024 values each, as many values of larger ones.

    More or fewer change what it gives by rounding only.
    """
    return max(1, min(most, most * _SMALL // math.prod(image_shape)))


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [0, 1]."""
    return pixels.to(torch.float32, copy=True).div_(255)


def binarize(pixels: Tensor, examples: Tensor, seed: int, epoch: int = _STATIC) -> Tensor:
    """Draw each pixel as 1 with its grey value as probability (to 2^-16), else 0; float32, shaped as `pixels`.

    Args:
        pixels: uint8 [batch, C, H, W].
        examples: int64 [batch], on the same device: the noise of an example depends on (seed, epoch, example).
        seed: of the split's noise.
        epoch: 1, 2, ... draws anew in every epoch; the default draws the same binary image every time.
    """
    noise = uniform_16_bits(stream_key(seed, epoch), examples, pixels.shape[1:].numel())
    noise.clamp_(max=_LARGEST - 1)  # below the threshold of a white pixel, which is then always drawn
    threshold = pixels.flatten(1).to(torch.int16).mul_(_THRESHOLDS_PER_LEVEL) ^ _SMALLEST  # 0..65535, minus 32768
    return (noise < threshold).view_as(pixels).to(torch.float32)


def model_input(pixels: Tensor, examples: Tensor, mode: str, seed: int, epoch: int = _STATIC) -> Tensor:
    """What the model sees of stored pixels under params.yaml's `train.binarize`; float32 in [0, 1].

    Under `static` the epoch is ignored; measurements leave it out, so that a split is the same every time.
    """
    if mode == "none":
        return to_unit(pixels)
    if mode not in ("static", "dynamic"):
        raise UserError(f"train.binarize is {mode!r}; expected none, static or dynamic")
    return binarize(pixels, examples, seed, epoch if mode == "dynamic" else _STATIC)
