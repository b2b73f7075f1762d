"""Mixtures of diagonal Gaussians: of learned components, and of constant ones."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.densities import LOG_2PI, bounded_logvar
from pipeline.vae.priors.base import Prior


class Mixture(NamedTuple):
    """Diagonal Gaussians: log-weights [K], means and log-variances [K, latent_dim]."""

    log_weights: Tensor
    mu: Tensor
    logvar: Tensor


class MixturePrior(Prior):
    """A mixture of K diagonal Gaussians; `mixture` says which."""

    def mixture(self) -> Mixture:
        """The components, as functions of the weights."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return mixture_log_prob(z, self.mixture())

    @torch.no_grad()
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of z, both [latent_dim]."""
        log_weights, centres, spread = self.mixture()
        weights = log_weights.exp()[:, None]
        mean = (weights * centres).sum(0)
        return mean, (weights * (spread.exp() + (centres - mean).square())).sum(0)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        log_weights, mu, logvar = (value.cpu() for value in self.mixture())
        chosen = torch.multinomial(log_weights.exp(), count, replacement=True, generator=generator)
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return mu[chosen] + torch.exp(0.5 * logvar[chosen]) * eps


class LearnedMixture(MixturePrior):
    """Weights, means and log-variances are the model's; they start as broad Gaussians around draws from N(0, I)."""

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__(latent_dim)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(torch.randn(components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(components, latent_dim))

    def mixture(self) -> Mixture:
        """The components; log-variances by `bounded_logvar`."""
        return Mixture(self.logits.log_softmax(0), self.mu, bounded_logvar(self.logvar))


class StoredMixture(Prior):
    """A density that is made of the components of a mixture as they are now: constants, which train no further."""

    @torch.no_grad()
    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture.mu.shape[-1])
        for name, value in mixture._asdict().items():
            self.register_buffer(name, value.detach().clone())

    def mixture(self) -> Mixture:
        """The components, in the shapes that they were given in."""
        return Mixture(*(self.get_buffer(name) for name in Mixture._fields))


class FixedMixture(StoredMixture, MixturePrior):
    """A mixture of constants, for an exported graph or a density that was fitted after training."""


def mixture_log_prob(z: Tensor, mixture: Mixture) -> Tensor:
    """log of the mixture's density in nats; [batch, latent_dim] -> [batch].

    The squares are expanded into matrix products, so that memory grows with batch * K alone, and these are of float64:
    near a narrow component z^2 - 2 z mu + mu^2 is a small difference of large terms.
    """
    log_weights, mu, logvar = (value.double() for value in mixture)
    precision, wide = torch.exp(-logvar), z.double()
    squares = (
        (mu.square() * precision).sum(1) + wide.square() @ precision.T - 2 * wide @ (mu * precision).T
    )  # (batch, K)
    constants = log_weights - 0.5 * (LOG_2PI + logvar).sum(1)
    return (constants - 0.5 * squares).to(z.dtype).logsumexp(1)
