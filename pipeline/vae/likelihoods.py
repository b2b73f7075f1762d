"""p(x|z): what the decoder's output means. Each is normalised, and knows its mean and how to draw from it."""

import math

import torch
from torch import Generator, Tensor, nn

from pipeline.errors import UserError
from pipeline.vae.densities import bernoulli_log_prob, bounded_logvar, gaussian_log_prob

INITIAL_SIGMA = 0.25  # about the spread of pixels in [0, 1]: neither the data nor the KL drowns the other at the start


class Bernoulli(nn.Module):
    """Binary pixels; the decoder gives logits."""

    bin_width = 1.0

    def log_prob(self, x: Tensor, logits: Tensor) -> Tensor:
        """log p(x|z) in nats; [batch, C, H, W] twice -> [batch]."""
        return bernoulli_log_prob(x, logits)

    def mean(self, logits: Tensor) -> Tensor:
        """E[x|z], in [0, 1], shaped as `logits`."""
        return torch.sigmoid(logits)

    def sample(self, logits: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x in {0, 1}, shaped as `logits`."""
        return torch.bernoulli(torch.sigmoid(logits), generator=generator)


class Gaussian(nn.Module):
    """Real pixels; the decoder gives means. With a fixed sigma this is the squared error up to a constant.

    A learned log-variance is used through `bounded_logvar`; a fixed one is what the user says.
    """

    bin_width = 1 / 255  # a grey level, in units of the pixel range: turns a density into bits of 8-bit data

    logvar: Tensor

    def __init__(self, sigma: float | str) -> None:
        super().__init__()
        self._learned = sigma == "learned"
        if self._learned:
            self.logvar = nn.Parameter(torch.tensor(2 * math.log(INITIAL_SIGMA)))
        else:
            self.register_buffer("logvar", torch.tensor(2 * math.log(float(sigma))))

    def log_prob(self, x: Tensor, mu: Tensor) -> Tensor:
        """log p(x|z) in nats, a density per unit of the pixel range; [batch, C, H, W] twice -> [batch]."""
        return gaussian_log_prob(x, mu, self._logvar())

    def mean(self, mu: Tensor) -> Tensor:
        """E[x|z], shaped as `mu`; not clipped."""
        return mu

    def sample(self, mu: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x, shaped as `mu`; not clipped."""
        eps = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
        return mu + torch.exp(0.5 * self._logvar()) * eps

    def _logvar(self) -> Tensor:
        return bounded_logvar(self.logvar) if self._learned else self.logvar


Likelihood = Bernoulli | Gaussian


def make_likelihood(name: str, sigma: float | str) -> Likelihood:
    """Build a likelihood by its name in params.yaml; `sigma` is the Gaussian's alone.

    Raises:
        UserError: there is no such likelihood.
    """
    if name == "bernoulli":
        return Bernoulli()
    if name == "gaussian":
        return Gaussian(sigma)
    raise UserError(f"model.likelihood is {name!r}; expected bernoulli or gaussian")


def bits_per_dim(nll: float, dimensions: int, likelihood: Likelihood) -> float:
    """Bits per dimension of the stored data, from an nll in nats per example.

    A density is turned into the probability of a grey level by the level's width (the midpoint rule).
    """
    return nll / (dimensions * math.log(2)) - math.log2(likelihood.bin_width)
