"""Gaussian priors: N(0, I), and one for each row or for each class."""

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.condition import check_label
from pipeline.vae.densities import bounded_logvar, gaussian_kl_per_dimension, gaussian_log_prob
from pipeline.vae.priors.base import Prior


class StandardNormal(Prior):
    """N(0, I)."""

    has_closed_kl = True

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """KL(q || p) in nats, [batch], whatever z (arXiv 1312.6114, Appendix B)."""
        return gaussian_kl_per_dimension(mu, logvar).sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Zeros and ones, each [latent_dim]."""
        return torch.zeros(self.latent_dim), torch.ones(self.latent_dim)

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(q || p) of each dimension of a Gaussian q, in nats: [batch, latent_dim] -> [batch, latent_dim]."""
        return gaussian_kl_per_dimension(mu, logvar)

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        return torch.randn(count, self.latent_dim, generator=generator)


class Normal(Prior):
    """N(mu, diag(exp(logvar))), one for each row of z, both [batch, latent_dim]."""

    has_closed_kl = True

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        super().__init__(mu.shape[1])
        self.mu, self.logvar = mu, logvar

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return gaussian_log_prob(z, self.mu, self.logvar)

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:  # noqa: ARG002
        """KL(q || p) in nats, [batch], whatever z."""
        return self.kl_per_dimension(mu, logvar).sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each row, both [batch, latent_dim]."""
        return self.mu, self.logvar.exp()

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(q || p) of each dimension of a Gaussian q, in nats: [batch, latent_dim] -> [batch, latent_dim]."""
        return gaussian_kl_per_dimension((mu - self.mu) * torch.exp(-0.5 * self.logvar), logvar - self.logvar)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU; `count` is that of the rows."""
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return (self.mu + torch.exp(0.5 * self.logvar) * eps.to(self.mu)).float().cpu()


class PerClass(Prior):
    """p(z|y) = N(mu_y, diag(exp(logvar_y))), learned; `given` says which. Without a class there is no density."""

    has_closed_kl = True

    def __init__(self, latent_dim: int, classes: int) -> None:
        super().__init__(latent_dim)
        self.mu = nn.Parameter(torch.zeros(classes, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(classes, latent_dim))

    def given(self, label: Tensor | None) -> Normal:
        """p(z|y) of the class of each row, int64 [batch].

        Raises:
            UserError: the label is missing.
        """
        check_label(label, len(self.mu))
        return Normal(self.mu[label], bounded_logvar(self.logvar)[label])
