"""The order of an epoch as a function: position -> example, with nothing of the data's size held in memory."""

from torch import Tensor

from pipeline.dataset.noise import mix, signed, stream_key

_ROUNDS = 4


def shuffled(positions: Tensor, count: int, seed: int, epoch: int) -> Tensor:
    """Which example stands at each position of an epoch, int64 [m] in 0..count-1.

    A permutation of 0..count-1 that depends on (seed, epoch) alone: a Feistel network (Luby and Rackoff 1988) over
    the smallest range of whole bits that holds `count`, walked along its cycles until the value is below `count`
    (Black and Rogaway 2002).

    Args:
        positions: int64 [m], each in 0..count-1.
        count: how many examples there are.
        seed: of the training.
        epoch: 1, 2, ...
    """
    bits = max(2, (count - 1).bit_length())
    keys = [stream_key(seed, epoch, turn) for turn in range(_ROUNDS)]
    examples = _feistel(positions, bits, keys)
    while (outside := (examples >= count).nonzero().squeeze(1)).numel():
        examples[outside] = _feistel(examples[outside], bits, keys)
    return examples


def _feistel(values: Tensor, bits: int, keys: list[int]) -> Tensor:
    """A permutation of 0..2**bits-1: in turn, each half is changed by a hash of the other."""
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    low, high = values & low_mask, values >> low_bits
    for turn, key in enumerate(keys):
        if turn % 2:
            low = low ^ (_hash(high, key) & low_mask)
        else:
            high = high ^ (_hash(low, key) & high_mask)
    return (high << low_bits) | low


def _hash(values: Tensor, key: int) -> Tensor:
    return mix(values + signed(key)) >> 20
