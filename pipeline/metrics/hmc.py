"""Hamiltonian Monte Carlo through p(z) p(x|z)^beta: Neal 2011, arXiv 1206.1901, section 3."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


class Tuning(NamedTuple):
    """What an accepted proposal makes of its chain's step size, and a rejected one."""

    accepted: float
    rejected: float

    @classmethod
    def towards(cls, acceptance: float, pace: float) -> Self:
        """The factors whose logarithms cancel where this share, in (0, 1), is accepted; they lie e^pace apart."""
        return cls(math.exp(pace * (1 - acceptance)), math.exp(-pace * acceptance))


class Point(NamedTuple):
    """Where the chains are: z [n, latent_dim], log p(z) and log p(x|z), each [n], and their gradients by z."""

    z: Tensor
    prior: Tensor
    likelihood: Tensor
    prior_gradient: Tensor
    likelihood_gradient: Tensor

    def log_density(self, beta: float = 1.0) -> Tensor:
        """log p(z) + beta log p(x|z) in nats, [n]."""
        return self.prior + beta * self.likelihood

    def gradient(self, beta: float = 1.0) -> Tensor:
        """That of `log_density` by z, [n, latent_dim]."""
        return self.prior_gradient + beta * self.likelihood_gradient


class Chains:
    """Chains that move together, each with a step size of its own.

    Args:
        log_prior: log p(z) in nats, [n, latent_dim] -> [n]; differentiable.
        log_likelihood: log p(x|z) of the x of each chain, likewise.
        z: where the chains start, [n, latent_dim].
        step: their step sizes at first, one for all or [n, 1].
        leapfrogs: of a proposal.

    Attributes:
        point: where they are.
        step: their step sizes, [n, 1].
        accepted: whether each took its last proposal, bool [n].
    """

    def __init__(
        self, log_prior: LogDensity, log_likelihood: LogDensity, z: Tensor, step: float | Tensor, leapfrogs: int
    ) -> None:
        self._log_prior, self._log_likelihood, self._leapfrogs = log_prior, log_likelihood, leapfrogs
        self.step = torch.ones_like(z[:, :1]) * step
        self.point = self._at(z)
        self.accepted = torch.zeros(len(z), dtype=torch.bool, device=z.device)

    def move(self, momentum: Tensor, uniform: Tensor, beta: float = 1.0, tuning: Tuning | None = None) -> None:
        """One transition, which with these step sizes leaves p(z) p(x|z)^beta as it is; `tuning` then changes them.

        `momentum` is standard-normal [n, latent_dim], `uniform` in [0, 1) of shape [n].
        """
        proposal, turned = self._proposal(momentum, beta)
        gain = proposal.log_density(beta) - self.point.log_density(beta)
        gain = gain + 0.5 * (momentum.square() - turned.square()).sum(1)
        self.accepted = uniform.log() < gain  # a NaN is not accepted
        pairs = zip(proposal, self.point, strict=True)
        self.point = Point(*(_choose(self.accepted, new, old) for new, old in pairs))
        if tuning is not None:
            self.step = self.step * torch.where(self.accepted, tuning.accepted, tuning.rejected)[:, None]

    def _proposal(self, momentum: Tensor, beta: float) -> tuple[Point, Tensor]:
        point = self.point
        momentum = momentum + 0.5 * self.step * point.gradient(beta)
        for left in reversed(range(self._leapfrogs)):
            point = self._at(point.z + self.step * momentum)
            momentum = momentum + (1.0 if left else 0.5) * self.step * point.gradient(beta)
        return point, momentum

    def _at(self, z: Tensor) -> Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prior, likelihood = self._log_prior(z), self._log_likelihood(z)
            gradients = [torch.autograd.grad(value.sum(), z)[0] for value in (prior, likelihood)]
        return Point(z.detach(), prior.detach(), likelihood.detach(), *gradients)


def _choose(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accepted[:, None] if new.ndim == 2 else accepted, new, old)
