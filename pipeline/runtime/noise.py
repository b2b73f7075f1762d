"""The seeded noise of the sampler, in numpy: the definition that the graph in `sampler.onnx` repeats.

The generator is counter-based: Widynski, "Squares: A Fast Counter-Based RNG", arXiv:2004.06278. A row (seed, index)
is a pure function of its two numbers. Each pair of normals has a counter of its own, index * 2^16 + pair + an offset,
and each seed a key of its own, so no state is carried from row to row. The words are bit for bit the same on every
runtime. The normals agree to float rounding, because runtimes differ in the last bits of log, cos and sin.
"""

import operator
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

SEED_LIMIT = 2**63
"""Seeds are 0 .. SEED_LIMIT - 1: every int64 that is not negative."""

PAIRS_PER_INDEX = 2**16
"""Counters that belong to one index, hence at most 2^17 latent dimensions."""

INDEX_LIMIT = 2**64 // PAIRS_PER_INDEX
"""Indices are 0 .. INDEX_LIMIT - 1; with them every 64-bit counter is used once."""

# Numbers without a pattern (hexadecimal digits of pi, the last bit of a key set). They turn 0, 1, 2, ... into keys
# whose every bit looks random, and keep the first counters from being small.
KEY_FACTOR = 2 * 0x243F6A8885A308D3
KEY_OFFSET = 0x13198A2E03707345
COUNTER_OFFSET = 0xA4093822299F31D0

HALF = 2**32
WORD_TO_UNIFORM = np.float32(2.0**-64)
HALF_A_WORD = np.float32(2.0**-65)
WORD_TO_ANGLE = np.float32(np.pi * 2.0**-63)  # the full turn of 2^64 words

Words = NDArray[np.uint64]


def standard_normal(seed: NDArray[np.int64], index: NDArray[np.int64], latent_dim: int) -> NDArray[np.float32]:
    """Standard normal variates, [n, latent_dim], by Box and Muller's method (1958) in float32; |z| stays below 9.5.

    Args:
        seed: [n], each in 0 .. SEED_LIMIT - 1.
        index: [n], each in 0 .. INDEX_LIMIT - 1.
        latent_dim: at most 2 * PAIRS_PER_INDEX.
    """
    pairs = (latent_dim + 1) // 2
    words = random_integers(seed, index, 2 * pairs).astype(np.float32)
    uniform = words[:, :pairs] * WORD_TO_UNIFORM + HALF_A_WORD  # in (0, 1]: a word of 0 has a radius too
    radius = np.sqrt(np.float32(-2) * np.log(uniform))
    angle = words[:, pairs:] * WORD_TO_ANGLE
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :latent_dim]


def random_integers(seed: NDArray[np.int64], index: NDArray[np.int64], draws: int) -> Words:
    """64-bit words, [n, draws], whose upper 32 bits are random; the lower ones are not to be used on their own.

    With `pairs = ceil(draws / 2)`, column j < pairs holds the state after four rounds of counter j: its upper half is
    the paper's squares32. Column pairs + j holds the state after the fifth: xor its upper half to the lower half of
    column j for the paper's squares64. Fewer rounds would not do: after three, the highest bit of a seed still shows.
    """
    pairs = (draws + 1) // 2
    key = seed_key(seed)[:, None]
    y: Words = counters(index, pairs) * key
    z: Words = y + key
    state = _swap_halves(y * y + y)
    state = _swap_halves(state * state + z)
    state = _swap_halves(state * state + y)
    fourth = state * state + z
    state = _swap_halves(fourth)
    fifth = state * state + y
    return np.concatenate([fourth, fifth], axis=1)[:, :draws]


def counters(index: NDArray[np.int64], pairs: int) -> Words:
    """The counters of each row's pairs, [n, pairs]: no two pairs of one seed share one."""
    first = index.astype(np.uint64) * PAIRS_PER_INDEX
    offsets: Words = np.arange(pairs, dtype=np.uint64) + COUNTER_OFFSET
    return first[:, None] + offsets


def seed_key(seed: NDArray[np.int64]) -> Words:
    """The Squares key of each seed, [n]: odd, and no two seeds share one, because the factor is twice an odd number."""
    key: Words = seed.astype(np.uint64) * KEY_FACTOR + KEY_OFFSET
    return key


def check_seed(seed: SupportsIndex) -> int:
    """The seed as an int.

    Raises:
        UserError: it is not a whole number in 0 .. SEED_LIMIT - 1.
    """
    return _check_whole("seed", seed, 0, SEED_LIMIT - 1)


def check_first(first: SupportsIndex, count: SupportsIndex = 1, count_name: str = "count") -> int:
    """The index of the first of `count` images, as an int; errors call the count `count_name`.

    Raises:
        UserError: either is not a whole number, `count` is below 1, or the last index reaches INDEX_LIMIT.
    """
    count = _check_whole(count_name, count, 1, INDEX_LIMIT)
    return _check_whole("first", first, 0, INDEX_LIMIT - count)


def _check_whole(name: str, value: SupportsIndex, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        found = repr(value) if number is None or isinstance(value, bool) else number
        raise UserError(f"{name} is {found}; expected a whole number from {low} to {high}") from None
    return number


def _swap_halves(words: Words) -> Words:
    half = np.uint64(32)
    return (words >> half) | (words << half)
