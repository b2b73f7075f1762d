"""The kernel inception distance (Binkowski et al. 2018, arXiv 1801.01401), over any features."""

import torch
from torch import Tensor

BLOCKS = 8


def kid_blocks(real: Tensor, made: Tensor) -> Tensor | None:
    """Unbiased estimates of the squared MMD between two independent sets, one for each of up to 8 blocks of both.

    Their mean is the distance, their spread its standard error. The kernel is (1 + x.y / d)^3. None where there are
    fewer than four of either: two blocks of two are the least that has a spread.

    Args:
        real: features [n, d].
        made: features [m, d].
    """
    blocks = min(BLOCKS, len(real) // 2, len(made) // 2)
    if blocks < 2:
        return None
    # Shuffled: of a set in the order of its classes, as stored sets may be, a block of consecutive rows would hold too
    # many pairs of one class, and every eighth row too few.
    generator = torch.Generator().manual_seed(0)
    real, made = (rows[torch.randperm(len(rows), generator=generator)].double() for rows in (real, made))
    return torch.stack([_squared_mmd(real[at::blocks], made[at::blocks]) for at in range(blocks)])


def paired_kid(one: Tensor, other: Tensor) -> float:
    """The same between two sets [n, d], n > 1, whose rows belong together, as two decoders' images of the same z do.

    Such rows are not independent, so a row is not held against its own partner (Gretton et al. 2012, equation 4).
    """
    one, other = one.double(), other.double()
    cross = _kernel(one, other)
    return float(_off_diagonal(_kernel(one, one)) + _off_diagonal(_kernel(other, other)) - 2 * _off_diagonal(cross))


def scaled(features: Tensor, by: Tensor) -> Tensor:
    """Features [n, d] in units of the root mean square of `by` [m, d]: the kernel has a scale of its own."""
    return features / by.square().mean().sqrt().clamp(min=torch.finfo(by.dtype).tiny)


def _squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    return _off_diagonal(_kernel(x, x)) + _off_diagonal(_kernel(y, y)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _off_diagonal(kernel: Tensor) -> Tensor:
    """The mean over pairs of different rows."""
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
