"""One run: the engine of the train stage, measured on its way by what the evaluate stage measures with."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.dataset.batches import mapped_images
from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import PreparedData
from pipeline.device import choose_device
from pipeline.errors import UserError
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.metrics.streams import Stream
from pipeline.paper.marginal import log_marginal
from pipeline.paper.mcem import MonteCarloEM
from pipeline.paper.plan import MCEM, Run
from pipeline.training.flat import named_weights
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.trainer import Position, Trainer
from pipeline.vae.model import VAE, VAEConfig

Row = dict[str, float]


def train_and_measure(run: Run, data: PreparedData) -> tuple[VAE, list[Row]]:
    """Train until the last milestone; the model as it is then, in evaluation mode, and a row for each milestone.

    A row has `samples` (training samples seen) and, in nats per image, of the same images each time, for `train` and
    `test`: `train_elbo`, the ELBO, and `train_nll`, minus the importance-weighted bound of K samples of z, where there
    is an encoder; `train_log_p`, the estimate of log p(x) by L samples of p(z|x), where L is above 0. `learning_rate`
    is that of the run, the best by the first measurement on training images where it has several to choose among.

    Raises:
        UserError: the device is not there, the network does not fit, or a step was not finite.
    """
    try:
        return _train_and_measure(_at_best_rate(run, data), data)
    except NonFiniteError as error:
        raise UserError(f"{run.name}: {error}; expected finite terms: try a lower train.learning_rate") from None


def _at_best_rate(run: Run, data: PreparedData) -> Run:
    """The run with that of its learning rates which is ahead, on training images, at the first measurement."""
    if not run.learning_rates:
        return run
    candidates = [run.at_rate(rate) for rate in run.learning_rates]
    return max(candidates, key=lambda candidate: _first_score(candidate, data))


def _first_score(run: Run, data: PreparedData) -> float:
    """The ELBO of training images at the first milestone, or what stands for it without an encoder, in nats."""
    try:
        _, rows = _train_and_measure(replace(run, measure=run.measure.first_alone), data)
    except NonFiniteError:
        return -math.inf
    score = rows[0].get("train_elbo", rows[0].get("train_log_p", -math.inf))
    return score if math.isfinite(score) else -math.inf


def _train_and_measure(run: Run, data: PreparedData) -> tuple[VAE, list[Row]]:
    params = run.params
    torch.manual_seed(params.train.seed)
    model = VAE(VAEConfig(image_shape=data.image_shape, **params.model.model_dump()))
    exact = copy.deepcopy(model)  # the trained one may compute in bf16
    train = mapped_images(data.train.images)
    trainer = trainer_of(run, model, train)
    exact.to(next(model.parameters()).device)
    shown = {
        "train": spread(data.train.images, run.measure.images),
        "test": spread(data.test.images, run.measure.images),
    }
    due = run.measure.milestones
    rows: list[Row] = []
    for seen in samples_seen(trainer):
        if seen >= due[len(rows)] and not trainer.is_held_back:  # else the trainer says why at its next look
            exact.load_state_dict(named_weights(model, trainer.flat.weights))
            reached = {"samples": float(seen), "learning_rate": params.train.learning_rate}
            rows.append(reached | measure(exact, shown, run))
        if len(rows) == len(due):
            break
    return exact.cpu().eval(), rows


def trainer_of(run: Run, model: VAE, train: Tensor) -> Trainer | MonteCarloEM:
    """What trains `model` by the run's algorithm on the images `train`."""
    params, device = run.params.train, choose_device(run.params.train.device)
    if run.algorithm == MCEM:
        return MonteCarloEM(model, train, params, device)
    return Trainer(model, train, train[:1], params, device)


def samples_seen(trainer: Trainer | MonteCarloEM) -> Iterator[int]:
    """Take step after step, epoch after epoch, without end; how many training samples were seen after each.

    A sample counts at each update of the weights by it: five times for each proposal of Monte Carlo EM.
    """
    seen = 0
    while True:
        for examples in trainer.steps():
            seen += examples
            yield seen
        trainer.position = Position(trainer.position.epoch + 1)


def measure(model: VAE, shown: Mapping[str, Tensor], run: Run) -> Row:
    """The bounds and estimates of each split's images, uint8 [n, C, H, W], means in nats."""
    params, how, row = run.params, run.measure, {}
    seed = params.evaluate.seed
    model.eval()
    for split, images in shown.items():
        given = encode_split(model, images, params.train.binarize, stream_key(seed, Stream.TEST_BINARIZATION))
        if run.algorithm != MCEM:
            estimates = estimate(model, given, how.importance_samples, seed, params.evaluate.batch_log_weights)
            row[f"{split}_elbo"] = estimates.elbo.mean().item()
            row[f"{split}_nll"] = -estimates.iw_bound.mean().item()
        if how.posterior_samples:
            x = given.x(torch.arange(len(images)))
            row[f"{split}_log_p"] = log_marginal(model, x, how.posterior_samples, seed).mean().item()
    model.train()
    return row


def spread(images: np.ndarray, count: int) -> Tensor:
    """At most so many of the images, evenly spaced over all of them: the first ones of a set may be the easy ones."""
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(images[chosen]))
