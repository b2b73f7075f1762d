"""Epochs of gradient steps and validation, in which every random choice follows from the seed and the step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.dataset.batches import epoch_order, index_batches, model_input
from pipeline.dataset.noise import stream_key
from pipeline.errors import UserError
from pipeline.params import TrainParams
from pipeline.training.averaging import WeightAverage
from pipeline.training.precision import precision_context
from pipeline.vae.bounds import Bound, elbo
from pipeline.vae.model import VAE
from pipeline.vae.objectives import autoencoder_loss, beta_vae_loss

Metrics = dict[str, float]

_TRAIN_NOISE, _VAL_NOISE = 1, 2  # streams of the seed


@dataclass
class History:
    """One row of metrics per epoch, and the epoch whose weights are kept."""

    rows: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf


class Trainer:
    """Trains `model` in place on uint8 images [n, C, H, W]; `average.model` is what is validated and kept."""

    def __init__(self, model: VAE, train: Tensor, val: Tensor, params: TrainParams, device: torch.device) -> None:
        self.model = model.to(device)
        self.average = WeightAverage(self.model, params.ema_decay)
        self.train, self.val = train, val
        self.params, self.device = params, device
        self.steps_per_epoch = -(-len(train) // params.batch_size)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=params.learning_rate, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._learning_rate_factor)

    def train_epoch(self, epoch: int, on_step: Callable[[int], None] = lambda _: None) -> Metrics:
        """One pass over the training split in the order of (seed, epoch); metrics are means over its examples.

        Raises:
            UserError: the loss is not finite; the step is not applied.
        """
        start = time.perf_counter()
        beta, learning_rate = self._beta(epoch), float(self.scheduler.get_last_lr()[0])
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        order = epoch_order(len(self.train), self.params.seed, epoch)
        for step, examples in enumerate(index_batches(order, self.params.batch_size)):
            totals += _sums(self._step(epoch, step, examples, beta))
            on_step(len(examples))
        seconds = time.perf_counter() - start
        metrics = {f"train/{name}": value for name, value in self._means(totals, len(self.train)).items()}
        rates = {"learning_rate": learning_rate, "images_per_second": len(self.train) / seconds}
        return metrics | ({"beta": beta} if self.params.objective == "elbo" else {}) | rates

    @torch.no_grad()
    def validate(self) -> Metrics:
        """The same bound on the validation split with the averaged weights, under the same noise every time."""
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        for step, examples in enumerate(index_batches(torch.arange(len(self.val)), self.params.batch_size)):
            key = stream_key(self.params.seed, _VAL_NOISE)
            x = self._input(self.val, examples, key)
            totals += _sums(self._bound(self.average.model, x, self._eps(key, step, len(x))))
        return {f"val/{name}": value for name, value in self._means(totals, len(self.val)).items()}

    def score(self, metrics: Metrics) -> float:
        """What the best epoch has most of: the validation ELBO, or the auto-encoder's reconstruction term."""
        return metrics["val/recon" if self.params.objective == "autoencoder" else "val/elbo"]

    def _step(self, epoch: int, step: int, examples: Tensor, beta: float) -> Bound:
        key = stream_key(self.params.seed, _TRAIN_NOISE)
        x = self._input(self.train, examples, key, epoch)
        bound = self._bound(self.model, x, self._eps(stream_key(key, epoch), step, len(x)))
        loss = autoencoder_loss(bound) if self.params.objective == "autoencoder" else beta_vae_loss(bound, beta)
        _refuse_non_finite(loss, bound, epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.scheduler.step()
        self.average.update()
        return bound

    def _bound(self, model: VAE, x: Tensor, eps: Tensor) -> Bound:
        with precision_context(self.params.precision, self.device):
            return elbo(model, x, eps)

    def _input(self, images: Tensor, examples: Tensor, key: int, *epoch: int) -> Tensor:
        pixels = images.index_select(0, examples).to(self.device, non_blocking=True)
        return model_input(pixels, examples.to(self.device), self.params.binarize, key, *epoch)

    def _eps(self, key: int, step: int, count: int) -> Tensor:
        """Standard-normal noise [count, latent_dim] of one step; none for an auto-encoder."""
        shape = (count, self.model.config.latent_dim)
        if self.params.objective == "autoencoder":
            return torch.zeros(shape, device=self.device)
        generator = torch.Generator().manual_seed(stream_key(key, step) >> 1)
        return torch.randn(shape, generator=generator).to(self.device)

    def _beta(self, epoch: int) -> float:
        """Rises linearly from 0 over `warmup_epochs`, constant within an epoch; epochs count from 1."""
        warmup = self.params.warmup_epochs
        return self.params.beta * (min(1.0, (epoch - 1) / warmup) if warmup else 1.0)

    def _learning_rate_factor(self, step: int) -> float:
        if self.params.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * step / (self.steps_per_epoch * self.params.epochs)))

    def _means(self, totals: Tensor, count: int) -> Metrics:
        elbo_, recon, kl = (totals / count).tolist()
        if self.params.objective == "autoencoder":
            return {"recon": recon}
        return {"elbo": elbo_, "recon": recon, "kl": kl}


def fit(
    trainer: Trainer,
    on_step: Callable[[int], None] = lambda _: None,
    on_epoch: Callable[[int, Metrics], None] = lambda _epoch, _metrics: None,
) -> tuple[dict[str, Tensor], History]:
    """Train until the last epoch, or until early stopping; return the best epoch's weights and the history.

    Raises:
        UserError: the loss became non-finite.
    """
    history, best = History(), {}
    for epoch in range(1, trainer.params.epochs + 1):
        metrics = {"epoch": float(epoch)} | trainer.train_epoch(epoch, on_step) | trainer.validate()
        _refuse_non_finite_score(trainer.score(metrics), metrics)
        history.rows.append(metrics)
        if trainer.score(metrics) > history.best_score:
            history.best_epoch, history.best_score = epoch, trainer.score(metrics)
            best = {name: value.detach().clone() for name, value in trainer.average.model.state_dict().items()}
        on_epoch(epoch, metrics)
        patience = trainer.params.early_stopping_epochs
        if patience is not None and epoch - history.best_epoch >= patience:
            break
    return best, history


def _sums(bound: Bound) -> Tensor:
    """The terms summed over the batch: float64 [3]."""
    return torch.stack([term.detach().sum(dtype=torch.float64) for term in bound])


def _refuse_non_finite_score(score: float, metrics: Metrics) -> None:
    if not math.isfinite(score):
        terms = ", ".join(f"{name} {metrics[name]:g}" for name in ("val/recon", "val/kl") if name in metrics)
        raise UserError(
            f"train: the validation score is {score} after epoch {metrics['epoch']:.0f} ({terms}); "
            "expected finite terms: try a lower train.learning_rate"
        )


def _refuse_non_finite(loss: Tensor, bound: Bound, epoch: int, step: int) -> None:
    if not math.isfinite(loss.item()):
        recon, kl = bound.recon.mean().item(), bound.kl.mean().item()
        raise UserError(
            f"train: the loss is {loss.item()} at epoch {epoch}, step {step + 1} (recon {recon:g}, kl {kl:g}); "
            "the update was not applied; expected finite terms: try a lower train.learning_rate"
        )
