"""The Fréchet distance between two sets of features (Heusel et al. 2017, arXiv 1706.08500, equation 6)."""

import torch
from torch import Tensor


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^1/2) of the means m and covariances C of features [n, d] and [n', d].

    Zero for equal moments. From finite sets it is biased upwards, the more the fewer they are, so it compares only with
    that of sets of the same sizes. n and n' are 2 or more.
    """
    real, made = real.double(), made.double()
    means, covariances = [x.mean(0) for x in (real, made)], [x.T.cov().reshape(x.shape[1], -1) for x in (real, made)]
    root = _root(covariances[0])
    # tr (C C')^1/2 by the eigenvalues of C^1/2 C' C^1/2, which are those of C C', and which symmetry keeps real.
    cross = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    spread = sum(covariance.trace() for covariance in covariances) - 2 * cross
    return float((means[0] - means[1]).square().sum() + spread)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance [d, d], which may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
