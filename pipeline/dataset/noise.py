"""Noise that is a pure function of (seed, stream, example): no state to save, no order to keep.

The generator is SplitMix64's output function (Steele, Lea and Flood 2014) on a counter. Its quality matters here
only for binarising pixels; the exported sampler has a generator of its own.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORDS_OF_16_BITS = 4
_COUNTERS_PER_EXAMPLE = 2**24  # so up to 2**26 pixels an image never share a counter with the next image


def uniform_16_bits(key: int, examples: Tensor, count: int) -> Tensor:
    """Uniform integers in 0..65535, int32 [batch, count].

    Args:
        key: of `stream_key`.
        examples: int64 [batch], the index of each example in its split.
        count: how many integers each example needs.
    """
    blocks = -(-count // _WORDS_OF_16_BITS)
    counters = examples[:, None] * _COUNTERS_PER_EXAMPLE + torch.arange(blocks, device=examples.device)
    words = _mix(counters * _signed(_GOLDEN) + _signed(key))  # (batch, blocks)
    return words.view(torch.int16)[:, :count].to(torch.int32) + 32768


def stream_key(seed: int, *stream: int) -> int:
    """A 64-bit key for one stream of noise, such as (seed, split, epoch)."""
    key = seed
    for part in stream:
        key = int(_mix(torch.tensor([_signed(key * _GOLDEN + part + 1)])).item())
    return key % 2**64


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _signed(_MIX_1)
    value = (value ^ _shift_right(value, 27)) * _signed(_MIX_2)
    return value ^ _shift_right(value, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """A logical shift; torch's int64 shift is arithmetic."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same bits: torch multiplies int64 modulo 2**64."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value
