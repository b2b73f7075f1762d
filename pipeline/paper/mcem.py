"""Monte Carlo EM: the third algorithm of the paper's Figure 3, which has no encoder (appendix E).

The E-step moves a Markov chain through p(z|x) of each image of a batch, the M-step raises log p(x, z) of where it is.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.dataset.noise import generator_of
from pipeline.metrics.hmc import Chains, Tuning
from pipeline.optimizers import OPTIMIZERS
from pipeline.params import TrainParams
from pipeline.training.feed import Feed
from pipeline.training.flat import FlatParameters
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.ranks import Ranks
from pipeline.training.trainer import Position
from pipeline.training.weight_prior import WeightPrior
from pipeline.vae.model import VAE

_CHAINS = 3  # a stream of the seed; the feed has the first two
_LEAPFROGS, _ACCEPTANCE, _UPDATES = 10, 0.9, 5  # as in the paper
_FIRST_STEP, _PACE = 0.1, 0.1


class MonteCarloEM:
    """Trains the decoder of `model` in place on uint8 images [n, C, H, W], in float32; the encoder stays as it is.

    Each image keeps its chain, and the chain its step size, from one pass over the data to the next. A turn takes a
    batch, moves its chains by one proposal, and updates the weights five times with the z that are then there.

    Attributes:
        flat: the weights.
        position: of the next pass over the data.
        acceptance: the share of proposals that were accepted, of the last turn.
        is_held_back: as a `Trainer` has it; here each update is looked at before it is taken.
    """

    is_held_back = False

    def __init__(self, model: VAE, train: Tensor, params: TrainParams, device: torch.device) -> None:
        self.model = model.to(device)
        self.flat = FlatParameters(self.model)
        self.position = Position()
        self.acceptance = 0.0
        self._optimizer = OPTIMIZERS[params.optimizer](self.flat.weights, self.flat.gradients)
        self._weight_prior = WeightPrior(model, self.flat, params.weight_prior_precision, len(train))
        self._feed = Feed(train, train[:1], params, model.config.latent_dim, device, Ranks())
        self._learning_rate = params.learning_rate
        self._generator = generator_of(params.seed, _CHAINS)
        self._z = model.prior.sample(len(train), self._generator).to(device)
        self._step = torch.full_like(self._z[:, :1], _FIRST_STEP)

    def steps(self) -> Iterator[int]:
        """Take the weight updates of one pass over the data; gives how many images each of them saw.

        Raises:
            NonFiniteError: log p(x, z) or its gradient was not finite; the weights are those before that update.
        """
        for batch in self._feed.steps(self.position.epoch):
            z = self._sample(batch.examples, batch.x)
            for _ in range(_UPDATES):
                self._update(batch.x, z)
                yield len(z)

    def _sample(self, examples: Tensor, x: Tensor) -> Tensor:
        """z of p(z|x) of these images, [m, latent_dim], by one proposal from where their chains are."""
        model, start = self.model, self._z[examples]
        momentum = torch.randn(start.shape, generator=self._generator).to(start)
        uniform = torch.rand(len(start), generator=self._generator).to(start)
        chains = Chains(
            model.prior.log_prob,
            lambda z: model.likelihood.log_prob(x, model.decode(z)),
            start,
            self._step[examples],
            _LEAPFROGS,
        )
        chains.move(momentum, uniform, tuning=Tuning.towards(_ACCEPTANCE, _PACE))
        self._z[examples], self._step[examples] = chains.point.z, chains.step
        self.acceptance = chains.accepted.float().mean().item()
        return chains.point.z

    def _update(self, x: Tensor, z: Tensor) -> None:
        log_joint = self.model.likelihood.log_prob(x, self.model.decode(z)) + self.model.prior.log_prob(z)
        self.flat.differentiate(-log_joint.mean())
        self._weight_prior.add_gradient()
        if not self.flat.gradients.norm().isfinite():
            raise NonFiniteError(f"epoch {self.position.epoch}: the gradient of log p(x, z) is not finite")
        self._optimizer.step(self._learning_rate)
