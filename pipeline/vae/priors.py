"""p(z)."""

import torch
from torch import Generator, Tensor, nn

from pipeline.vae.densities import gaussian_kl_per_dimension, gaussian_log_prob


class StandardNormal(nn.Module):
    """N(0, I) over z of shape [batch, latent_dim]."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        return gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(q || p) of each dimension of a Gaussian q, in nats: [batch, latent_dim] -> [batch, latent_dim]."""
        return gaussian_kl_per_dimension(mu, logvar)

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        return torch.randn(count, self.latent_dim, generator=generator)
