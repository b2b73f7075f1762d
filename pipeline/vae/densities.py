"""Log-densities and divergences in closed form, in nats."""

import math

import torch
from torch import Tensor
from torch.nn import functional

LOG_2PI = math.log(2 * math.pi)


def sum_over_event(value: Tensor) -> Tensor:
    """Sum every dimension but the first: [batch, ...] -> [batch]."""
    return value.flatten(1).sum(1)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of independent Bernoulli variables; `x` in {0, 1} and `logits` are [batch, ...] -> [batch].

    For x strictly between 0 and 1 the value is a negative cross-entropy, not a log-density.
    """
    return sum_over_event(x * logits - functional.softplus(logits))


def gaussian_log_prob(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mu, exp(logvar)) with a diagonal covariance; all broadcast to [batch, ...] -> [batch]."""
    return -0.5 * sum_over_event(LOG_2PI + logvar + (x - mu).square() * torch.exp(-logvar))


def gaussian_kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each dimension: [batch, latent_dim] -> [batch, latent_dim].

    Kingma and Welling, arXiv 1312.6114, Appendix B.
    """
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1)
