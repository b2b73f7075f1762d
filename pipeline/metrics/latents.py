"""Which latent dimensions carry information."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.vae.priors.base import Prior

ACTIVE_VARIANCE = 0.01  # Burda et al., arXiv 1509.00519, section 5.3; of the prior's variance, which there is 1


class LatentUse(NamedTuple):
    """Of each dimension, [latent_dim]: mean KL in nats, and the variance of the posterior mean over the images.

    The latter is a share of the prior's variance, since a learned prior may have z as small as it likes; under a prior
    for each class, it is that of how far the posterior mean is from the mean of the class.
    """

    kl: Tensor
    variance: Tensor

    @property
    def active_units(self) -> int:
        """How many dimensions have a posterior mean that moves with the image."""
        return int((self.variance > ACTIVE_VARIANCE).sum())

    def by_kl(self) -> list[int]:
        """Dimensions in the order of their KL, the most informative first."""
        order: list[int] = self.kl.argsort(descending=True).tolist()
        return order


def latent_use(mu: Tensor, logvar: Tensor, prior: Prior) -> LatentUse:
    """Measure the posteriors of a split, both [n, latent_dim]; the KL is `prior.kl_per_dimension`."""
    mean, variance = (moment.to(mu) for moment in prior.moments())
    shift = (mu - mean) / variance.sqrt()  # classes whose priors lie apart are no information
    return LatentUse(prior.kl_per_dimension(mu, logvar).mean(0), shift.var(0))


def prior_quantiles(columns: int) -> Tensor:
    """A grid of two-dimensional z at equal steps of the standard normal's probability: [columns**2, 2]."""
    quantiles = [NormalDist().inv_cdf((step + 0.5) / columns) for step in range(columns)]
    return torch.tensor([(across, -down) for down in quantiles for across in quantiles])


def traversal(z: Tensor, dimensions: Sequence[int], deviations: Sequence[float], prior: Prior) -> Tensor:
    """Copies of z [latent_dim] in which one dimension is so many standard deviations of p(z) from its mean there.

    [dimensions * deviations, latent_dim]. Not the numbers themselves: a learned prior may have z of any scale.
    """
    mean, variance = (moment.to(z).view(-1, len(z))[0] for moment in prior.moments())
    copies = z.repeat(len(dimensions), len(deviations), 1)
    for row, dimension in enumerate(dimensions):
        copies[row, :, dimension] = mean[dimension] + variance[dimension].sqrt() * torch.tensor(deviations).to(z)
    return copies.flatten(0, 1)
