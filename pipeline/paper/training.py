"""One run: the engine of the train stage, measured on its way by what the evaluate stage measures with."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoint import Checkpoint
from pipeline.dataset.batches import mapped_images
from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import PreparedData
from pipeline.device import choose_device
from pipeline.errors import UserError
from pipeline.metrics.likelihood import encode_split, estimate
from pipeline.paper.plan import Measure, Run
from pipeline.params import Params
from pipeline.training.flat import named_weights
from pipeline.training.nonfinite import NonFiniteError
from pipeline.training.trainer import Position, Trainer
from pipeline.vae.model import VAE, VAEConfig

Row = dict[str, float]

_BINARIZATION = 1  # a stream of the seed


def train_and_measure(run: Run, data: PreparedData) -> tuple[Checkpoint, list[Row]]:
    """Train until the last milestone; the model as it is then, and a row for each milestone.

    A row has `samples` (training samples seen) and, in nats per image, `train_elbo`, `test_elbo`, `train_nll` and
    `test_nll`: the ELBO, and minus the importance-weighted bound of K samples of z, of the same images each time.

    Raises:
        UserError: the device is not there, the network does not fit, or a step was not finite.
    """
    params = run.params
    torch.manual_seed(params.train.seed)
    model = VAE(VAEConfig(image_shape=data.image_shape, **params.model.model_dump()))
    exact = copy.deepcopy(model)  # the trained one may compute in bf16
    train = mapped_images(data.train.images)
    trainer = Trainer(model, train, train[:1], params.train, choose_device(params.train.device))
    exact.to(trainer.device)
    shown = {
        "train": spread(data.train.images, run.measure.images),
        "test": spread(data.test.images, run.measure.images),
    }
    due = run.measure.milestones
    rows: list[Row] = []
    try:
        for seen in samples_seen(trainer):
            if seen >= due[len(rows)]:
                exact.load_state_dict(named_weights(model, trainer.flat.weights))
                rows.append({"samples": float(seen), **measure(exact, shown, params, run.measure)})
            if len(rows) == len(due):
                break
    except NonFiniteError as error:
        raise UserError(f"{run.name}: {error}; expected finite terms: try a lower train.learning_rate") from None
    return Checkpoint(exact.cpu().eval(), params.train.objective, params.train.binarize), rows


def samples_seen(trainer: Trainer) -> Iterator[int]:
    """Take step after step, epoch after epoch, without end; how many training samples were seen after each."""
    seen = 0
    while True:
        for examples in trainer.steps():
            seen += examples
            yield seen
        trainer.position = Position(trainer.position.epoch + 1)


def measure(model: VAE, shown: dict[str, Tensor], params: Params, how: Measure) -> Row:
    """The bound and the estimate of -log p(x) of each split's images, uint8 [n, C, H, W], means in nats."""
    seed, row = params.evaluate.seed, {}
    model.eval()
    for split, images in shown.items():
        given = encode_split(model, images, params.train.binarize, stream_key(seed, _BINARIZATION))
        estimates = estimate(model, given, how.importance_samples, seed, params.evaluate.batch_log_weights)
        row[f"{split}_elbo"] = estimates.elbo.mean().item()
        row[f"{split}_nll"] = -estimates.iw_bound.mean().item()
    model.train()
    return row


def spread(images: np.ndarray, count: int) -> Tensor:
    """At most so many of the images, evenly spaced over all of them: the first ones of a set may be the easy ones."""
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(images[chosen]))
