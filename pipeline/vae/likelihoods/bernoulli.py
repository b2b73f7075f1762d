"""Binary pixels."""

import torch
from torch import Generator, Tensor

from pipeline.vae.densities import bernoulli_elements, bernoulli_log_prob
from pipeline.vae.likelihoods.base import Likelihood


class Bernoulli(Likelihood):
    """Pixels in {0, 1}; the decoder gives logits. Of a grey x, `log_prob` is a cross-entropy, not a log-probability."""

    def pixel_log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x_pixel|z) in nats, [batch, ...]."""
        return bernoulli_elements(x, parameters).sum(1)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z) in nats, [batch]."""
        return bernoulli_log_prob(x, parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x|z], in [0, 1]."""
        return torch.sigmoid(parameters)

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw x in {0, 1}."""
        return torch.bernoulli(torch.sigmoid(parameters), generator=generator)

    def sample_from(self, parameters: Tensor, eps: Tensor) -> Tensor:
        """The draw that standard-normal `eps` makes: 1 where its distribution function is below the mean."""
        is_white: Tensor = torch.special.ndtr(eps) < torch.sigmoid(parameters)
        return is_white.to(parameters.dtype)
