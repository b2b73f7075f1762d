"""Noise that is a pure function of (seed, stream, example): no state to save, no order to keep.

The generator is SplitMix64's output function (Steele, Lea and Flood 2014) on a counter. It serves training and
measurement; the exported sampler has a generator of its own.
"""

import functools
import math

import torch
from torch import Generator, Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORDS_OF_16_BITS = 4
_COUNTERS_PER_EXAMPLE = 2**24  # so up to 2**26 pixels an image never share a counter with the next image


def uniform_16_bits(key: int, examples: Tensor, count: int) -> Tensor:
    """Uniform integers in -32768..32767, int16 [batch, count].

    Args:
        key: of `stream_key`.
        examples: int64 [batch], the index of each example in its split.
        count: how many integers each example needs.
    """
    words = _words(key, examples, -(-count // _WORDS_OF_16_BITS))
    return words.view(torch.int16)[:, :count]


def standard_normal(key: int, examples: Tensor, count: int) -> Tensor:
    """Draws from N(0, 1), float32 [batch, count], by the transform of Box and Muller (1958).

    Args:
        key: of `stream_key`.
        examples: int64 [batch], the index of each example in its split.
        count: how many draws each example needs.
    """
    words = _words(key, examples, -(-count // 2))
    uniform = (words.view(torch.int32).to(torch.float64) + (2**31 + 0.5)) / 2**32  # in (0, 1), never 0
    radius = uniform[:, 0::2].log().mul_(-2).sqrt_()
    angle = uniform[:, 1::2] * (2 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2)  # (batch, words, 2)
    return pairs.flatten(1)[:, :count].to(torch.float32)


def mix(value: Tensor) -> Tensor:
    """SplitMix64's output function of each int64, in place: a bijection of the 2**64 words that looks random."""
    scratch = torch.empty_like(value)
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        torch.bitwise_right_shift(value, shift, out=scratch)
        scratch &= (1 << (64 - shift)) - 1  # torch's shift is arithmetic, the function's is logical
        value ^= scratch
        if factor is not None:
            value *= signed(factor)
    return value


@functools.lru_cache(4096)
def stream_key(seed: int, *stream: int) -> int:
    """A 64-bit key for one stream of noise, such as (seed, split, epoch)."""
    key = seed
    for part in stream:
        key = int(mix(torch.tensor([signed(key * _GOLDEN + part + 1)])).item())
    return key % 2**64


def generator_of(seed: int, *stream: int, device: torch.device | str = "cpu") -> Generator:
    """A generator of torch's own for one stream of noise, where draws are many or have an order.

    What it draws on a GPU is other noise than on the CPU.
    """
    return Generator(device).manual_seed(stream_key(seed, *stream) >> 1)


def signed(value: int) -> int:
    """The int64 with the same bits: torch multiplies int64 modulo 2**64."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _words(key: int, examples: Tensor, count: int) -> Tensor:
    """Words of 64 random bits, int64 [batch, count]."""
    counters = examples[:, None] * _COUNTERS_PER_EXAMPLE + torch.arange(count, device=examples.device)
    return mix(counters.mul_(signed(_GOLDEN)).add_(signed(key)))
