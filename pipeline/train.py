"""Train a model on the prepared images, and keep the weights of the best epoch.

Reads    the folder that prepare wrote; sections `model` and `train` of params.yaml
Writes   a checkpoint: model.safetensors, config.json, history.csv (a row per epoch), run.json (the MLflow run)
Opens    the MLflow run that evaluate and export join

    python -m pipeline.train data/prepared models/checkpoint
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from pipeline.checkpoint import HISTORY, Checkpoint, save_checkpoint
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.device import choose_device
from pipeline.errors import run_stage
from pipeline.files import atomic_directory, write_csv
from pipeline.params import ModelParams, Params, flatten, load_params
from pipeline.record import Record, write_record
from pipeline.tracking.provenance import provenance
from pipeline.tracking.training import TrainingRun, training_run
from pipeline.training.loop import History, Trainer, fit
from pipeline.training.progress import training_progress
from pipeline.vae.model import VAE, VAEConfig

MOSTLY_BINARY = 0.95


def build_model(params: ModelParams, image_shape: tuple[int, int, int], seed: int) -> VAE:
    """A model with freshly drawn weights, the same for the same seed.

    Raises:
        UserError: the network does not fit images of [C, H, W] = `image_shape`.
    """
    torch.manual_seed(seed)
    return VAE(VAEConfig(image_shape=image_shape, **params.model_dump()))


def likelihood_warning(params: Params, binary_fraction: float) -> str | None:
    """Say so where a Bernoulli likelihood meets grey values: its cross-entropy is then no log-likelihood."""
    grey = binary_fraction < 1 and params.train.binarize == "none"
    if params.model.likelihood != "bernoulli" or not grey:
        return None
    better = "train.binarize: dynamic" if binary_fraction > MOSTLY_BINARY else "model.likelihood: gaussian"
    other = "model.likelihood: gaussian" if better.startswith("train") else "train.binarize: dynamic"
    return (
        f"params.yaml: model.likelihood is 'bernoulli' with train.binarize: none, but {1 - binary_fraction:.0%} of "
        f"the values are neither 0 nor 255; the ELBO will be no likelihood: better {better}, or {other}"
    )


def train_model(params: Params, data: PreparedData, run: TrainingRun) -> tuple[VAE, History]:
    """Train, log every epoch, and return the model with the best epoch's weights, on the CPU.

    Raises:
        UserError: the device is not there, the network does not fit, or the loss became non-finite.
    """
    model = build_model(params.model, data.image_shape, params.train.seed)
    train, val = (torch.from_numpy(split.images) for split in (data.train, data.val))
    trainer = Trainer(model, train, val, params.train, choose_device(params.train.device))
    with training_progress(params.train.epochs, len(train)) as progress:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            run.log_epoch(metrics)
            progress.epoch(epoch, metrics)

        best, history = fit(trainer, progress.step, on_epoch)
    model.load_state_dict(best)
    return model.cpu(), history


def save(folder: Path, params: Params, model: VAE, history: History, record: Record) -> None:
    """Write the whole checkpoint folder, or nothing."""
    with atomic_directory(folder) as beside:
        save_checkpoint(beside, Checkpoint(model, params.train.objective, params.train.binarize))
        write_csv(beside / HISTORY, history.rows)
        write_record(beside, record)


def main() -> None:
    """Load, train, save, and say what came of it."""
    parser = argparse.ArgumentParser(description="Train a VAE on prepared images.")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    # Once pixels that are always black are learned, their gradients are denormal numbers, and arithmetic on those
    # costs a third of the speed. It is set before the first operation, so that torch's threads inherit it.
    torch.set_flush_denormal(True)
    params, data = load_params(), open_prepared(arguments.prepared)
    if warning := likelihood_warning(params, data.meta["values"]["binary_fraction"]):
        print(f"warning: {warning}", file=sys.stderr)

    values = flatten(params.prepare, "prepare") | flatten(params.model, "model") | flatten(params.train, "train")
    tags = provenance(params.digest(), data.sha256)
    with training_run(values, tags) as run:
        model, history = train_model(params, data, run)
        best = history.rows[history.best_epoch - 1]
        record = Record("train", run.id, values, tags, {"best_epoch": history.best_epoch})
        save(arguments.checkpoint, params, model, history, record)
        run.finish(dataclasses.replace(record, artifacts=sorted(arguments.checkpoint.iterdir())))
    name = "recon" if params.train.objective == "autoencoder" else "elbo"
    print(
        f"train: best val/{name} {best[f'val/{name}']:.2f} nats at epoch {history.best_epoch} of {len(history.rows)}"
        f" -> {arguments.checkpoint} (MLflow run {run.id})"
    )


if __name__ == "__main__":
    run_stage(main)
