"""Annealed importance sampling of log p(x): a check on the importance bound that asks nothing of q(z|x).

Neal 2001, arXiv physics/9803008; for decoder-based models Wu et al. 2017, arXiv 1611.04273. Chains start at draws of
the prior and move by Hamiltonian Monte Carlo through p(z) p(x|z)^beta, beta from 0 to 1. The mean of their weights has
the expectation p(x), so its logarithm is on average a lower bound of log p(x), as the importance bound is. (As in the
paper the step sizes are adapted on the way, so the expectation holds to the size of an adaptation.)
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.dataset.batches import images_at_once, index_batches
from pipeline.dataset.noise import generator_of
from pipeline.errors import UserError
from pipeline.metrics.hmc import Chains, Tuning
from pipeline.metrics.likelihood import Encoded
from pipeline.metrics.streams import Stream
from pipeline.vae.bounds import iw_bound
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import repeat, repeated

_LEAPFROGS = 10  # of a proposal; as in the paper
_FIRST_STEP = 0.1
_TUNING = Tuning(accepted=1.02, rejected=0.98)
_SIGMOID_REACH = 4.0  # the sigmoidal schedule is a piece of the logistic function, from -4 to 4


class Annealing(NamedTuple):
    """How a chain comes from the prior to the posterior; the noise of an image depends on (seed, its index) alone."""

    steps: int
    chains: int
    schedule: str
    seed: int


def estimate_ais(
    model: VAE,
    given: Encoded,
    examples: Tensor,
    annealing: Annealing,
    most_chains: int,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """log p(x) of some images of a split by annealed importance sampling, [len(examples)], in nats.

    `most_chains` bounds how many chains move at once, fewer of large images, and changes the result by rounding only.
    `on_steps` hears how many steps of an image's chains are done.
    """
    found = torch.empty(len(examples), dtype=given.mu.dtype, device=given.mu.device)
    at_once = images_at_once(given.pixels.shape[1:], most_chains)
    for places in index_batches(torch.arange(len(examples)), max(1, at_once // annealing.chains)):
        some = examples[places]
        noise = _Noise(annealing, some, given.mu)
        x, label = repeat(given.x(some), annealing.chains), repeated(given.label(some), annealing.chains)
        chains = Chains(
            model.prior.given(label).log_prob,
            lambda z, x=x, y=label: model.likelihood.log_prob(x, model.decode(z, y)),  # type: ignore[misc]
            noise.start(model, label),
            _FIRST_STEP,
            _LEAPFROGS,
        )
        log_w = torch.zeros_like(chains.point.likelihood)
        for before, beta in pairwise(temperatures(annealing.schedule, annealing.steps)):
            log_w = log_w + (beta - before) * chains.point.likelihood
            if beta < 1:
                chains.move(*noise.of_a_move(), beta, _TUNING)
            on_steps(len(some))
        found[places] = iw_bound(log_w.view(len(some), annealing.chains))
    return found


def temperatures(schedule: str, steps: int) -> list[float]:
    """The betas from 0 to 1, steps + 1 of them: in equal steps, or small ones at both ends (Wu et al., section 4.1).

    Raises:
        UserError: there is no such schedule.
    """
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if schedule == "linear":
        return even.tolist()
    if schedule == "sigmoid":
        curve = torch.sigmoid(_SIGMOID_REACH * (2 * even - 1))
        return ((curve - curve[0]) / (curve[-1] - curve[0])).tolist()
    raise UserError(f"evaluate.ais_schedule is {schedule!r}; expected linear or sigmoid")


class _Noise:
    """All draws of the chains of some images, each image's from a generator of its own."""

    def __init__(self, annealing: Annealing, examples: Tensor, like: Tensor) -> None:
        self._chains, self._like = annealing.chains, like
        self._generators = [generator_of(annealing.seed, Stream.ANNEALING, index) for index in examples.tolist()]

    def start(self, model: VAE, label: Tensor | None) -> Tensor:
        """Draws of the prior of these classes, [images * chains, latent_dim]."""
        labels = [None] * len(self._generators) if label is None else torch.split(label, self._chains)
        priors = [model.prior.given(of_image) for of_image in labels]
        return self._gather([p.sample(self._chains, own) for p, own in zip(priors, self._generators, strict=True)])

    def of_a_move(self) -> tuple[Tensor, Tensor]:
        """Momentum [images * chains, latent_dim] and uniform numbers [images * chains]."""
        size, dtype = self._like.shape[1], self._like.dtype
        momentum = [torch.randn(self._chains, size, generator=own, dtype=dtype) for own in self._generators]
        uniform = [torch.rand(self._chains, generator=own, dtype=dtype) for own in self._generators]
        return self._gather(momentum), self._gather(uniform)

    def _gather(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).to(self._like)
