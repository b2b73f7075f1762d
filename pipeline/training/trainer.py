"""Steps and validation. What a trainer does next follows from its params, its weights and its position alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.optimizers import OPTIMIZERS
from pipeline.params import TrainParams
from pipeline.training.averaging import WeightAverage
from pipeline.training.calibration import mean_squared_error, sharing_batches, to_calibrate
from pipeline.training.feed import Batch, Feed, SplitLabels
from pipeline.training.flat import FlatParameters
from pipeline.training.gradients import Gradients
from pipeline.training.guard import StepGuard
from pipeline.training.nonfinite import NonFiniteError, batch_rows, describe_terms
from pipeline.training.precision import choose_precision, dtype_of, precision_context
from pipeline.training.ranks import Ranks
from pipeline.training.schedule import learning_rate_factor, warmed_up
from pipeline.training.validation import Metrics, bound_of, means, sum_over
from pipeline.training.weight_prior import WeightPrior
from pipeline.vae.bounds import Bound
from pipeline.vae.model import VAE


@dataclass
class Position:
    """How far a training is."""

    epoch: int = 1
    """1, 2, ...: the one in progress."""
    step: int = 0
    """Steps of this epoch that were taken."""
    seconds: float = 0.0
    """What they took."""
    learning_rate_scale: float = 1.0
    """Below 1 after a return from a non-finite step."""


class Trainer:
    """Trains `model` in place on uint8 images [n, C, H, W], a conditional one with their labels.

    `average.weights` are what is validated and kept.

    Attributes:
        position: of the next step.
    """

    def __init__(
        self,
        model: VAE,
        train: Tensor,
        val: Tensor,
        params: TrainParams,
        device: torch.device,
        ranks: Ranks = Ranks(),  # noqa: B008  # frozen
        labels: SplitLabels = SplitLabels(),  # noqa: B008  # immutable
    ) -> None:
        self.model = model.to(device)
        self.precision = choose_precision(params.precision, device)
        self.flat = FlatParameters(self.model, dtype_of(self.precision))
        self.average = WeightAverage(self.flat.weights, params.ema_decay)
        self.optimizer = OPTIMIZERS[params.optimizer](self.flat.weights, self.flat.gradients)
        self.feed = Feed(train, val, params, model.config.latent_dim, device, ranks, labels)
        self.params, self.device, self.ranks = params, device, ranks
        self.position = Position()
        self._shared = sharing_batches(self.model.likelihood, ranks)
        usual_size = len(ranks.share(0, self.feed.global_batch(0)))
        self._gradients = Gradients(self.model, self.flat, params, self.precision, device)
        if self._shared is None:
            self._gradients.quicken(len(train), usual_size)
        self._weight_prior = WeightPrior(self.model, self.flat, params.weight_prior_precision, len(train))
        self._beta = torch.zeros((), device=device)
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # of elbo, recon, kl
        self._guard = StepGuard(device)

    def steps(self) -> Iterator[int]:
        """Take the rest of this epoch's steps, one at each turn; gives how many examples the step saw.

        Raises:
            NonFiniteError: the loss or its gradient was not finite; the weights are those before that step.
        """
        first = self.position.step
        self._guard.begin(first)
        self._beta.fill_(warmed_up(self.params.beta, self.position.epoch, self.params.warmup_epochs))
        start = time.perf_counter()
        for step, batch in enumerate(self.feed.steps(self.position.epoch, first), first):
            self._step(batch, step)
            held_back = self._guard.held_back(step, last=step + 1 == self.feed.steps_per_epoch)
            if held_back is not None:
                raise self._describe(held_back)
            self.position.step = step + 1
            self.position.seconds += time.perf_counter() - start
            yield self.feed.global_batch(step)
            start = time.perf_counter()

    def end_epoch(self) -> Metrics:
        """The metrics of the epoch whose steps were all taken, and validation; the position moves to the next one."""
        position, params = self.position, self.params
        self._calibrate()
        metrics = {
            "epoch": float(position.epoch),
            **means("train", self.sums(), len(self.feed.train), params.objective),
        }
        if params.objective != "autoencoder":
            metrics["beta"] = warmed_up(params.beta, position.epoch, params.warmup_epochs)
        metrics |= {
            "learning_rate": self._learning_rate(step=0),
            "largest_gradient_norm": self._guard.largest.item(),
            "images_per_second": len(self.feed.train) / position.seconds,
            **self.validate(),
        }
        self.position = Position(position.epoch + 1, learning_rate_scale=position.learning_rate_scale)
        self._sums.zero_()
        self._guard.begin(0, torch.zeros(()))
        return metrics

    def validate(self) -> Metrics:
        """The bound on the validation split with the averaged weights, under the same noise every time."""
        with self._averaged(), precision_context(self.precision, self.device):
            sums = sum_over(self.model, self.feed.validation())
        return means("val", self.ranks.add_up(sums), len(self.feed.val), self.params.objective)

    @property
    def is_held_back(self) -> bool:
        """Whether a step was not finite and the weights wait for somebody to look."""
        return self._guard.is_holding_back

    def score(self, metrics: Metrics) -> float:
        """What the best epoch has most of: the validation ELBO, or the auto-encoder's reconstruction term."""
        return metrics["val/recon" if self.params.objective == "autoencoder" else "val/elbo"]

    def sums(self) -> Tensor:
        """elbo, recon and kl summed over what all ranks saw of this epoch, float64 [3]."""
        return self.ranks.add_up(self._sums.clone())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes in a training and is not in `position`; `load` takes it back."""
        tensors = {"weights": self.flat.weights, "sums": self.sums(), "largest_gradient_norm": self._guard.largest}
        if self.average.decay > 0:
            tensors["average"] = self.average.weights
        return tensors | self.optimizer.tensors()

    def load(self, tensors: dict[str, Tensor], position: Position) -> None:
        """Go on from here."""
        self.flat.weights.copy_(tensors["weights"])
        if self.average.decay > 0:
            self.average.weights.copy_(tensors["average"])
        # What the ranks saw before is the first one's, so that it is counted once.
        self._sums.copy_(tensors["sums"] if self.ranks.is_first else torch.zeros(3))
        self._guard.begin(position.step, tensors["largest_gradient_norm"])
        self.optimizer.load(tensors)
        self.position = position

    def _step(self, batch: Batch, step: int) -> None:
        self.flat.publish()
        if len(batch.examples):
            loss, sums = self._gradients(batch, self._beta)
            share = len(batch.examples) / self.feed.global_batch(step)
            if share < 1:
                self.flat.gradients.mul_(share)
            # A loss that is not finite may have a finite gradient; this lets every rank see it.
            self.flat.gradients[:1].add_(loss, alpha=0)
            self._sums += sums
        else:
            self.flat.gradients.zero_()
            if self._shared is not None:
                self._shared.see_none()
        self.ranks.add_up(self.flat.gradients)
        self._weight_prior.add_gradient()
        norm = torch.dot(self.flat.gradients, self.flat.gradients).sqrt_()
        if self._guard.admit(norm):
            self._apply(norm, step)

    def _apply(self, norm: Tensor, step: int) -> None:
        """Move the weights, unless the device knows of a step that was not finite."""
        if self.params.max_gradient_norm is not None:
            self.flat.gradients.mul_((self.params.max_gradient_norm / norm).clamp(max=1))
        self.optimizer.step(self._learning_rate(step), self._guard.refused)
        self.average.update(self._steps_before(step) + 1, self._guard.applied)

    @torch.no_grad()
    def _describe(self, step: int) -> NonFiniteError:
        """What the step was that could not be taken; the weights are still those before it."""
        examples = self.feed.examples(self.position.epoch, step)
        batches = self.feed.batches_of(self.position.epoch, examples)
        with precision_context(self.precision, self.device):
            terms = [bound_of(self.model, batch)[0] for batch in batches]
        bound = Bound(*(torch.cat(parts).cpu() for parts in zip(*terms, strict=True)))
        return NonFiniteError(describe_terms(self.position.epoch, step, examples, bound), batch_rows(examples, bound))

    def _learning_rate(self, step: int) -> float:
        steps = self.feed.steps_per_epoch * self.params.epochs
        factor = learning_rate_factor(self.params.schedule, self._steps_before(step), steps)
        return self.params.learning_rate * self.position.learning_rate_scale * factor

    def _steps_before(self, step: int) -> int:
        """How many steps the whole training took before this one of the present epoch."""
        return (self.position.epoch - 1) * self.feed.steps_per_epoch + step

    def _calibrate(self) -> None:
        """Give a likelihood what no gradient sets, for the weights that are validated and kept."""
        likelihood = to_calibrate(self.model.likelihood)
        if likelihood is None:
            return
        batches = self.feed.steps(self.position.epoch)
        with self._averaged(), precision_context(self.precision, self.device):
            error = mean_squared_error(self.model, batches, self.params.global_batch_size, self.ranks)
            likelihood.calibrate(error)
            self.average.weights.copy_(self.flat.weights)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model has the averaged weights, and is in evaluation mode, for the duration of a block."""
        trained = self.flat.weights.clone() if self.average.decay > 0 else None
        self.flat.weights.copy_(self.average.weights)
        self.flat.publish()
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
            if trained is not None:
                self.flat.weights.copy_(trained)
