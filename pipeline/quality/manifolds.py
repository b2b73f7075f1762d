"""How much of one set lies where another has its mass: precision, recall, density and coverage of features.

Around each point of a set lies a ball that reaches to its k-th nearest neighbour in the set; the balls together are the
set's estimated manifold.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import index_batches

K_PRECISION = 3  # of precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, section 3)
K_DENSITY = 5  # of density and coverage (Naeem et al. 2020, arXiv 2002.09797, section 4)
_TOGETHER = 1000  # rows of distances held at once


class Overlap(NamedTuple):
    """Of real and made images; shares in [0, 1], but for `density`, which may exceed 1."""

    precision: float
    """How many made images lie in the ball of a real one: do they look real?"""
    recall: float
    """How many real images lie in the ball of a made one: are all kinds made?"""
    density: float
    """In how many balls of real images a made one lies, over k: 1 on average for two sets of one kind."""
    coverage: float
    """How many real images have a made one in their ball: 1 - 2^-k on average for two large sets of one kind and size;
    unlike recall, not moved by a few made images far from all others."""


def overlap(real: Tensor, made: Tensor) -> Overlap | None:
    """Compare features [n, d] and [m, d]; None where one set has no more images than K_DENSITY.

    Recall and coverage depend on n and m: they compare only with those of sets of the same sizes.
    """
    if min(len(real), len(made)) <= K_DENSITY:
        return None
    real, made = real.double(), made.double()
    radii = _radii(real)  # (n, 2)
    reach = _radii(made)[:, 0]  # (m,)

    def of_made(distance: Tensor) -> Tensor:  # (batch, n) -> (batch, 2)
        return torch.stack([(distance <= radii[:, 0]).any(1).double(), (distance <= radii[:, 1]).sum(1).double()], 1)

    def of_real(distance: Tensor) -> Tensor:  # (batch, m) -> (batch, 2)
        return torch.stack([(distance <= reach).any(1).double(), distance.amin(1)], 1)

    precise, balls = _per_row(made, real, of_made).unbind(1)
    recalled, nearest = _per_row(real, made, of_real).unbind(1)
    return Overlap(
        precision=precise.mean().item(),
        recall=recalled.mean().item(),
        density=balls.mean().item() / K_DENSITY,
        coverage=(nearest <= radii[:, 1]).double().mean().item(),
    )


def _radii(points: Tensor) -> Tensor:
    """The distances of each point [n, d] to its neighbours number K_PRECISION and K_DENSITY, [n, 2]."""

    def of_point(distance: Tensor) -> Tensor:
        ordered = distance.topk(K_DENSITY + 1, largest=False).values  # number 0 is the point itself
        return ordered[:, [K_PRECISION, K_DENSITY]]

    return _per_row(points, points, of_point)


def _per_row(rows: Tensor, columns: Tensor, summary: Callable[[Tensor], Tensor]) -> Tensor:
    """A summary of each row of the matrix of Euclidean distances, [n, ...]; the matrix is never held whole."""
    blocks = index_batches(torch.arange(len(rows)), _TOGETHER)
    return torch.cat([summary(torch.cdist(rows[block], columns)) for block in blocks])
