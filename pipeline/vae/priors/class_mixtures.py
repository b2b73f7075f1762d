"""A mixture of Gaussians for each class: a density of z that is fitted after training."""

import torch
from torch import Generator, Tensor

from pipeline.vae.condition import check_label
from pipeline.vae.densities import gaussian_log_prob
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.mixtures import FixedMixture, Mixture, StoredMixture


class MixturePerClass(StoredMixture):
    """K diagonal Gaussians of each class, constants; `given` says which class. Without one there is no density.

    The mixture has log-weights [classes, K], means and log-variances [classes, K, latent_dim].
    """

    def given(self, label: Tensor | None) -> "MixtureOfRows":
        """p(z|y) of the class of each row, int64 [batch].

        Raises:
            UserError: the label is missing.
        """
        mixture = self.mixture()
        check_label(label, len(mixture.mu))
        return MixtureOfRows(Mixture(*(value[label] for value in mixture)))


class MixtureOfRows(Prior):
    """A mixture for each row of z: log-weights [batch, K], means and log-variances [batch, K, latent_dim]."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture.mu.shape[2])
        self._mixture = mixture

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        log_weights, mu, logvar = self._mixture
        wide = z[:, None].expand_as(mu)
        components = gaussian_log_prob(wide.flatten(0, 1), mu.flatten(0, 1), logvar.flatten(0, 1))
        return (log_weights + components.view_as(log_weights)).logsumexp(1)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU; `count` is that of the rows."""
        log_weights, mu, logvar = (value.cpu() for value in self._mixture)
        chosen = torch.multinomial(log_weights.exp(), 1, generator=generator)[:, 0]
        eps = torch.randn(count, self.latent_dim, generator=generator)
        rows = torch.arange(count)
        return (mu[rows, chosen] + torch.exp(0.5 * logvar[rows, chosen]) * eps).float()


def fixed_density(mixture: Mixture) -> FixedMixture | MixturePerClass:
    """The density of components [K, ...], or that of each class where they are [classes, K, ...]."""
    return FixedMixture(mixture) if mixture.mu.ndim == 2 else MixturePerClass(mixture)
