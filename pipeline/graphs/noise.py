"""The noise of `pipeline.runtime.noise` as an ONNX graph of plain arithmetic, which every runtime has.

Inside the graph a tensor is [pairs, n]: a value per row then broadcasts over long runs of memory, not over a few
dimensions at a time. uint64 arithmetic wraps, so that a 32-bit rotation is a division plus a product; bitwise
operators would be shorter, but have no CUDA kernels. In large batches the divisions are what costs, in small ones the
number of nodes: hence none is spent on cutting bits off, and constants are [1, 1], which costs less beside a tensor of
two dimensions than a scalar does.
"""

import numpy as np
from onnx import TensorProto

from pipeline.errors import UserError
from pipeline.graphs.nodes import Nodes
from pipeline.runtime.noise import (
    COUNTER_OFFSET,
    HALF,
    HALF_A_WORD,
    KEY_FACTOR,
    KEY_OFFSET,
    PAIRS_PER_INDEX,
    WORD_TO_ANGLE,
    WORD_TO_UNIFORM,
)


def add_noise(nodes: Nodes, seed: str, index: str, latent_dim: int) -> str:
    """Append the nodes from seed and index, int64 [n], to standard normal float32 [latent_dim, n].

    Raises:
        UserError: latent_dim is outside 1 .. 2 * PAIRS_PER_INDEX.
    """
    return normals(nodes, *words(nodes, seed, index, latent_dim), latent_dim)


def add_noise_and_word(nodes: Nodes, seed: str, index: str, latent_dim: int) -> tuple[str, str]:
    """As `add_noise`, with a word of the row, uint64 [1, n], of one pair of counters more.

    Raises:
        UserError: latent_dim is outside 1 .. 2 * PAIRS_PER_INDEX - 2.
    """
    pairs = _pairs(latent_dim)
    fourth, fifth = words(nodes, seed, index, 2 * (pairs + 1))
    ends = [nodes.constant(name, np.array([at])) for name, at in (("top", 0), ("pairs", pairs), ("bottom", pairs + 1))]
    rows = [nodes("Slice", value, ends[0], ends[1], ends[0]) for value in (fourth, fifth)]
    return normals(nodes, rows[0], rows[1], latent_dim), nodes("Slice", fourth, ends[1], ends[2], ends[0])


def words(nodes: Nodes, seed: str, index: str, latent_dim: int) -> tuple[str, str]:
    """The states of Squares after four and after five rounds, each uint64 [pairs, n]."""
    pairs = _pairs(latent_dim)
    scaled = nodes("Mul", _to_uint64(nodes, seed), _word(nodes, "key_factor", KEY_FACTOR))
    key = nodes("Add", scaled, _word(nodes, "key_offset", KEY_OFFSET))
    first = nodes("Mul", _to_uint64(nodes, index), _word(nodes, "stride", PAIRS_PER_INDEX))
    offsets = (np.arange(pairs, dtype=np.uint64) + COUNTER_OFFSET)[:, None]
    y = nodes("Mul", nodes("Add", first, nodes.constant("offsets", offsets)), key)  # [pairs, n]
    z = nodes("Add", y, key)
    state = y
    for summand in (y, z, y):
        state = _swap_halves(nodes, _square_plus(nodes, state, summand))
    fourth = _square_plus(nodes, state, z)
    fifth = _square_plus(nodes, _swap_halves(nodes, fourth), y)
    return fourth, fifth


def normals(nodes: Nodes, fourth: str, fifth: str, latent_dim: int) -> str:
    """Box and Muller's normals, float32 [latent_dim, n], from two words a pair, uint64 [pairs, n]."""
    # HardSigmoid is a product plus a sum, cut to [0, 1], in one node.
    uniform = nodes("HardSigmoid", _to_float(nodes, fourth), alpha=float(WORD_TO_UNIFORM), beta=float(HALF_A_WORD))
    minus_two = nodes.constant("minus_two", np.array([[-2]], np.float32))
    radius = nodes("Sqrt", nodes("Mul", nodes("Log", uniform), minus_two))
    angle = nodes("Mul", _to_float(nodes, fifth), nodes.constant("word_to_angle", np.array([[WORD_TO_ANGLE]])))
    cosines = nodes("Mul", radius, nodes("Cos", angle))
    sines = nodes("Mul", radius, nodes("Sin", angle))
    both = nodes("Concat", cosines, sines, axis=0)  # [2 * pairs, n]
    if latent_dim % 2 == 0:
        return both
    zero, end = (nodes.constant(name, np.array([at])) for name, at in (("zero", 0), ("end", latent_dim)))
    return nodes("Slice", both, zero, end, zero)


def _square_plus(nodes: Nodes, state: str, summand: str) -> str:
    return nodes("Add", nodes("Mul", state, state), summand)


def _swap_halves(nodes: Nodes, state: str) -> str:
    half = _word(nodes, "half", HALF)
    return nodes("Add", nodes("Div", state, half), nodes("Mul", state, half))


def _to_uint64(nodes: Nodes, value: str) -> str:
    return nodes("Cast", value, to=TensorProto.UINT64)


def _to_float(nodes: Nodes, words: str) -> str:
    return nodes("Cast", words, to=TensorProto.FLOAT)


def _word(nodes: Nodes, name: str, value: int) -> str:
    return nodes.constant(name, np.array([[value]], dtype=np.uint64))


def _pairs(latent_dim: int) -> int:
    if not 1 <= latent_dim <= 2 * PAIRS_PER_INDEX:
        raise UserError(f"latent_dim is {latent_dim}; expected a whole number from 1 to {2 * PAIRS_PER_INDEX}")
    return (latent_dim + 1) // 2
