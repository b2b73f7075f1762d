"""A prior of noise that an invertible map moves."""

import torch
from torch import Generator, Tensor

from pipeline.vae.densities import gaussian_log_prob
from pipeline.vae.flows import FlowSize, coupling_flow
from pipeline.vae.priors.base import Prior

_MOMENT_DRAWS = 10_000  # its moments are then known to a hundredth of a standard deviation


class FlowPrior(Prior):
    """Standard-normal noise, moved by coupling layers (RealNVP, arXiv 1605.08803); it starts as N(0, I)."""

    def __init__(self, latent_dim: int, size: FlowSize) -> None:
        super().__init__(latent_dim)
        self.flow = coupling_flow(latent_dim, size)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, by the noise that z came from; [batch, latent_dim] -> [batch]."""
        eps, log_diagonal = self.flow.inverse(z)
        return gaussian_log_prob(eps, torch.zeros_like(eps), torch.zeros_like(eps)) + log_diagonal.sum(1)

    def from_noise(self, eps: Tensor) -> Tensor:
        """Standard-normal noise -> z, each [batch, latent_dim]."""
        z: Tensor = self.flow(eps).z
        return z

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of 10,000 draws, the same at every call; both [latent_dim]."""
        z = self.sample(_MOMENT_DRAWS, Generator().manual_seed(0))
        return z.mean(0), z.var(0)

    @torch.no_grad()
    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        eps = torch.randn(count, self.latent_dim, generator=generator)
        return self.from_noise(eps.to(next(self.parameters()))).float().cpu()
