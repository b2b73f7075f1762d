"""Steps and validation. What a trainer does next follows from its params, its weights and its position alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.params import TrainParams
from pipeline.training.averaging import WeightAverage
from pipeline.training.calibration import mean_squared_error, to_calibrate
from pipeline.training.compilation import compiled
from pipeline.training.feed import Batch, Feed
from pipeline.training.flat import FlatParameters
from pipeline.training.nonfinite import NonFiniteError, describe_terms
from pipeline.training.precision import choose_precision, precision_context
from pipeline.training.ranks import Ranks
from pipeline.training.schedule import learning_rate_factor, warmed_up
from pipeline.vae.bounds import Bound, elbo
from pipeline.vae.model import VAE
from pipeline.vae.objectives import autoencoder_loss, beta_vae_loss

Metrics = dict[str, float]

_STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 50}  # at the device, which would have to stop and wait


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
    """Trains `model` in place on uint8 images [n, C, H, W]; `average.weights` are what is validated and kept.

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
    ) -> None:
        self.model = model.to(device)
        self.flat = FlatParameters(self.model)
        self.average = WeightAverage(self.flat.weights.data, params.ema_decay)
        self.optimizer = torch.optim.Adam([self.flat.weights], lr=params.learning_rate, fused=True)
        self.feed = Feed(train, val, params, model.config.latent_dim, device, ranks)
        self.params, self.device, self.ranks = params, device, ranks
        self.precision = choose_precision(params.precision, device)
        self.position = Position()
        self._compiled = compiled(self._eager_objective, params, self.flat.weights.numel(), len(train), device)
        self._compiled_size = len(ranks.share(0, self.feed.global_batch(0)))
        self._beta = torch.zeros((), device=device)
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # of elbo, recon, kl
        self._largest_norm = torch.zeros((), device=device)
        self._halted = torch.zeros((), device=device)  # 1 once a step was not finite: nothing moves any more
        self._taken = torch.zeros((), dtype=torch.int64, device=device)

    def steps(self) -> Iterator[int]:
        """Take the rest of this epoch's steps, one at each turn; gives how many examples the step saw.

        Raises:
            NonFiniteError: the loss or its gradient was not finite; the weights are those before that step.
        """
        look = _STEPS_BETWEEN_LOOKS[self.device.type]
        first = self.position.step
        self._taken.fill_(first)
        self._beta.fill_(warmed_up(self.params.beta, self.position.epoch, self.params.warmup_epochs))
        start = time.perf_counter()
        for step, batch in enumerate(self.feed.steps(self.position.epoch, first), first):
            self._step(batch, step)
            last = step + 1 == self.feed.steps_per_epoch
            if last or (step + 1 - first) % look == 0:
                self._look()
            self.position.step = step + 1
            self.position.seconds += time.perf_counter() - start
            yield self.feed.global_batch(step)
            start = time.perf_counter()

    def end_epoch(self) -> Metrics:
        """The metrics of the epoch whose steps were all taken, and validation; the position moves to the next one."""
        position, params = self.position, self.params
        self._calibrate()
        metrics = {"epoch": float(position.epoch), **self._means("train", self.sums(), len(self.feed.train))}
        if params.objective == "elbo":
            metrics["beta"] = warmed_up(params.beta, position.epoch, params.warmup_epochs)
        metrics |= {
            "learning_rate": self._learning_rate(step=0),
            "largest_gradient_norm": self._largest_norm.item(),
            "images_per_second": len(self.feed.train) / position.seconds,
            **self.validate(),
        }
        self.position = Position(position.epoch + 1, learning_rate_scale=position.learning_rate_scale)
        self._sums.zero_()
        self._largest_norm.zero_()
        return metrics

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The bound on the validation split with the averaged weights, under the same noise every time."""
        sums = torch.zeros_like(self._sums)
        with self._averaged():
            for batch in self.feed.validation():
                sums += _sum_terms(self._bound(batch))
        return self._means("val", self.ranks.add_up(sums), len(self.feed.val))

    def score(self, metrics: Metrics) -> float:
        """What the best epoch has most of: the validation ELBO, or the auto-encoder's reconstruction term."""
        return metrics["val/recon" if self.params.objective == "autoencoder" else "val/elbo"]

    def sums(self) -> Tensor:
        """elbo, recon and kl summed over what all ranks saw of this epoch, float64 [3]."""
        return self.ranks.add_up(self._sums.clone())

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes in a training and is not in `position`; `load` takes it back."""
        adam = self.optimizer.state[self.flat.weights]
        tensors = {"weights": self.flat.weights.data, "sums": self.sums(), "largest_gradient_norm": self._largest_norm}
        if self.average.decay > 0:
            tensors["average"] = self.average.weights
        return tensors | {f"adam.{name}": value for name, value in adam.items()}

    def load(self, tensors: dict[str, Tensor], position: Position) -> None:
        """Go on from here."""
        self.flat.weights.data.copy_(tensors["weights"])
        if self.average.decay > 0:
            self.average.weights.copy_(tensors["average"])
        # What the ranks saw before is the first one's, so that it is counted once.
        self._sums.copy_(tensors["sums"] if self.ranks.is_first else torch.zeros(3))
        self._largest_norm.copy_(tensors["largest_gradient_norm"])
        self._halted.zero_()
        adam = {name.removeprefix("adam."): value for name, value in tensors.items() if name.startswith("adam.")}
        self.optimizer.state[self.flat.weights] = {name: value.to(self.device).clone() for name, value in adam.items()}
        self.position = position

    def _step(self, batch: Batch, step: int) -> None:
        self.flat.gradients.zero_()
        if len(batch.examples):
            loss, sums = self._objective(batch, self._beta)
            share = len(batch.examples) / self.feed.global_batch(step)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            # A loss that is not finite may have a finite gradient; this lets every rank see it.
            self.flat.gradients[:1] += loss.detach() * 0
            self._sums += sums
        self.ranks.add_up(self.flat.gradients)
        norm = torch.linalg.vector_norm(self.flat.gradients)
        self._halted = torch.maximum(self._halted, (~norm.isfinite()).to(torch.float32))
        if self.device.type == "cpu" and self._halted.item():
            return
        self._apply(norm, step)

    def _apply(self, norm: Tensor, step: int) -> None:
        """Move the weights, unless the device knows of a step that was not finite."""
        if self.params.max_gradient_norm is not None:
            self.flat.gradients.mul_((self.params.max_gradient_norm / norm).clamp(max=1))
        self.optimizer.param_groups[0]["lr"] = self._learning_rate(step)
        if self.device.type == "cuda":
            self.optimizer.found_inf = self._halted  # type: ignore[attr-defined]  # as torch's GradScaler does
        self.optimizer.step()
        applied = 1 - self._halted
        self.average.update(self._steps_before(step) + 1, applied if self.device.type == "cuda" else None)
        self._largest_norm = torch.where(self._halted > 0, self._largest_norm, self._largest_norm.maximum(norm))
        self._taken += applied.to(torch.int64)

    def _look(self) -> None:
        """Hold that no step of late was other than finite."""
        if self._halted.item():
            raise self._describe(int(self._taken.item()))

    @torch.no_grad()
    def _describe(self, step: int) -> NonFiniteError:
        """What the step was that could not be taken; the weights are still those before it."""
        examples = self.feed.examples(self.position.epoch, step)
        terms = [self._bound(batch) for batch in self.feed.batches_of(self.position.epoch, examples)]
        bound = Bound(*(torch.cat(parts).cpu() for parts in zip(*terms, strict=True)))
        return NonFiniteError(describe_terms(self.position.epoch, step, examples, bound))

    def _bound(self, batch: Batch) -> Bound:
        with precision_context(self.precision, self.device):
            return elbo(self.model, batch.x, batch.eps)

    def _eager_objective(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, [], and the terms summed over the batch, float64 [3]."""
        bound = self._bound(batch)
        plain = self.params.objective == "autoencoder"
        return autoencoder_loss(bound) if plain else beta_vae_loss(bound, beta), _sum_terms(bound)

    def _objective(self, batch: Batch, beta: Tensor) -> tuple[Tensor, Tensor]:
        """As `_eager_objective`; compiled where that is worth its while, for batches of the usual size."""
        if self._compiled is None or len(batch.examples) != self._compiled_size:
            return self._eager_objective(batch, beta)
        return self._compiled(batch, beta)

    def _learning_rate(self, step: int) -> float:
        steps = self.feed.steps_per_epoch * self.params.epochs
        factor = learning_rate_factor(self.params.schedule, self._steps_before(step), steps)
        return self.params.learning_rate * self.position.learning_rate_scale * factor

    def _steps_before(self, step: int) -> int:
        """How many steps the whole training took before this one of the present epoch."""
        return (self.position.epoch - 1) * self.feed.steps_per_epoch + step

    def _means(self, split: str, sums: Tensor, count: int) -> Metrics:
        elbo_, recon, kl = (sums / count).tolist()
        terms = (
            {"recon": recon} if self.params.objective == "autoencoder" else {"elbo": elbo_, "recon": recon, "kl": kl}
        )
        return {f"{split}/{name}": value for name, value in terms.items()}

    def _calibrate(self) -> None:
        """Give a likelihood what no gradient sets, for the weights that are validated and kept."""
        likelihood = to_calibrate(self.model.likelihood)
        if likelihood is None:
            return
        with self._averaged():
            error = mean_squared_error(self.model, self.feed.steps(self.position.epoch), self.ranks)
            likelihood.calibrate(error)
            self.average.weights.copy_(self.flat.weights.data)
        likelihood.calibrate(error)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model has the averaged weights, and is in evaluation mode, for the duration of a block."""
        trained = self.flat.weights.data.clone() if self.average.decay > 0 else None
        self.flat.weights.data.copy_(self.average.weights)
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
            if trained is not None:
                self.flat.weights.data.copy_(trained)


def _sum_terms(bound: Bound) -> Tensor:
    """The terms summed over the batch: float64 [3]."""
    return torch.stack([term.detach().sum(dtype=torch.float64) for term in bound])
