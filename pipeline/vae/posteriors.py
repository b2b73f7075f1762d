"""q(z|x) of a batch: an object that draws z and knows how likely it was to draw it."""

from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pipeline.vae.densities import gaussian_log_prob
from pipeline.vae.flows import Flow, Moved
from pipeline.vae.priors.base import Prior


class Draw(NamedTuple):
    """One z per example, [batch, latent_dim], and what drawing it has made known already."""

    z: Tensor
    log_q: Tensor | None = None
    """log q(z|x), [batch], where it comes with the draw."""
    kl_per_dimension: Tensor | None = None
    """Of a ladder, [batch, latent_dim], in nats: its sum has less noise than log q - log p at z."""
    parameters: Tensor | None = None
    """What the decoder makes of z, where it comes with the draw."""


class Posterior:
    """q(z|x) of each example of a batch.

    Attributes:
        mu: the mean of a Gaussian that stands for q where one is wanted (encoder.onnx), [batch, latent_dim].
        logvar: its log-variance, [batch, latent_dim].
    """

    mu: Tensor
    logvar: Tensor

    def draw(self, eps: Tensor) -> Draw:
        """z from standard-normal noise, [batch, latent_dim]; differentiable in q's parameters."""
        raise NotImplementedError

    def log_prob(self, draw: Draw) -> Tensor:
        """log q(z|x) of a draw of this posterior, in nats: [batch]."""
        raise NotImplementedError

    def kl(self, draw: Draw, prior: Prior) -> Tensor:
        """KL(q || p) in nats, [batch], or where it has no closed form, an unbiased estimate of it from the draw."""
        return self.log_prob(draw) - prior.log_prob(draw.z)

    def kl_per_dimension(self, draw: Draw, prior: Prior) -> Tensor:  # noqa: ARG002
        """What each dimension has of the KL, in nats, [batch, latent_dim].

        Raises:
            ValueError: the dimensions of this posterior have no KL of their own.
        """
        raise ValueError(f"{type(self).__name__} has no KL per dimension")

    def has_closed_kl(self, prior: Prior) -> bool:  # noqa: ARG002
        """Whether `kl` is the same for every draw."""
        return False

    def repeat(self, times: int) -> Self:
        """Each example so many times in a row: a posterior of batch * times examples."""
        raise NotImplementedError

    def moved(self, shift: Tensor, stretch: Tensor) -> Self:
        """The posterior of the same family whose Gaussians lie elsewhere; all that hangs on their draws stays.

        Args:
            shift: by how many of its standard deviations each mean moves, [batch, latent_dim].
            stretch: what is added to each log-variance, [batch, latent_dim].
        """
        raise NotImplementedError


class DiagonalGaussian(Posterior):
    """N(mu, diag(exp(logvar))) (arXiv 1312.6114, equation 9)."""

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        self.mu, self.logvar = mu, logvar

    def draw(self, eps: Tensor) -> Draw:
        """z = mu + sigma * eps (arXiv 1312.6114, section 2.4)."""
        return Draw(reparameterize(self.mu, self.logvar, eps))

    def log_prob(self, draw: Draw) -> Tensor:
        """log q(z|x) in nats, [batch]."""
        return gaussian_log_prob(draw.z, self.mu, self.logvar)

    def kl(self, draw: Draw, prior: Prior) -> Tensor:
        """KL(q || p) in nats, [batch]: in closed form where the prior has one."""
        return prior.kl(self.mu, self.logvar, draw.z)

    def kl_per_dimension(self, draw: Draw, prior: Prior) -> Tensor:  # noqa: ARG002  # the same for every draw
        """What each dimension has of the KL, in nats, [batch, latent_dim]."""
        return prior.kl_per_dimension(self.mu, self.logvar)

    def has_closed_kl(self, prior: Prior) -> bool:
        """Whether the prior knows its KL from a Gaussian."""
        return prior.has_closed_kl

    def repeat(self, times: int) -> "DiagonalGaussian":
        """Each example so many times in a row."""
        return DiagonalGaussian(repeat(self.mu, times), repeat(self.logvar, times))

    def moved(self, shift: Tensor, stretch: Tensor) -> "DiagonalGaussian":
        """The Gaussian with another mean and variance."""
        return DiagonalGaussian(reparameterize(self.mu, self.logvar, shift), self.logvar + stretch)

    def detached(self) -> "DiagonalGaussian":
        """The same density, as a constant: what of log q(z|x) is left when q's own parameters are held still."""
        return DiagonalGaussian(self.mu.detach(), self.logvar.detach())


class FlowPosterior(Posterior):
    """A diagonal Gaussian, moved by a flow in the light of a context (arXiv 1606.04934, section 3).

    log q(z|x) comes with a draw and is known of nothing else: an autoregressive flow has no cheap way back.

    Args:
        base: the Gaussian of each example.
        flow: moves its draws.
        context: what the encoder tells the flow of each example, [batch, flow.context_dim].
    """

    def __init__(self, base: DiagonalGaussian, flow: Flow, context: Tensor) -> None:
        self.base, self.flow, self.context = base, flow, context

    @cached_property
    def mu(self) -> Tensor:  # type: ignore[override]
        """Where the flow moves the Gaussian's mean, [batch, latent_dim]."""
        return self._centre.z

    @cached_property
    def logvar(self) -> Tensor:  # type: ignore[override]
        """The Gaussian's log-variance plus twice what the flow stretches by there, [batch, latent_dim].

        At `mu` the Gaussian of both has the density of q.
        """
        return self.base.logvar + 2 * self._centre.log_diagonal

    def draw(self, eps: Tensor) -> Draw:
        """The Gaussian's draw, moved; log q(z|x) = log N(z_0) - log det (arXiv 1606.04934, equation 6)."""
        start = self.base.draw(eps)
        z, log_diagonal = self.flow(start.z, self.context)
        return Draw(z, self.base.log_prob(start) - log_diagonal.sum(1))

    def log_prob(self, draw: Draw) -> Tensor:
        """log q(z|x) in nats, [batch], of a draw that this posterior has made.

        Raises:
            ValueError: the draw does not say it.
        """
        if draw.log_q is None:
            raise ValueError("a flow knows log q(z|x) of its own draws alone; got a z from elsewhere")
        return draw.log_q

    def repeat(self, times: int) -> "FlowPosterior":
        """Each example so many times in a row."""
        return FlowPosterior(self.base.repeat(times), self.flow, repeat(self.context, times))

    def moved(self, shift: Tensor, stretch: Tensor) -> "FlowPosterior":
        """Another Gaussian through the same flow, in the same context."""
        return FlowPosterior(self.base.moved(shift, stretch), self.flow, self.context)

    @cached_property
    def _centre(self) -> Moved:
        moved: Moved = self.flow(self.base.mu, self.context)
        return moved


def reparameterize(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + sigma * eps (arXiv 1312.6114, section 2.4); shapes broadcast."""
    return mu + torch.exp(0.5 * logvar) * eps


def repeat(value: Tensor, times: int) -> Tensor:
    """Each example `times` times in a row: [batch, ...] -> [batch * times, ...]; one example alone is not copied."""
    return value[:, None].expand(-1, times, *value.shape[1:]).flatten(0, 1)


def repeated(label: Tensor | None, times: int) -> Tensor | None:
    """Each class so many times in a row; None stays None."""
    return None if label is None else repeat(label, times)
