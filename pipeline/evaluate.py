"""Measure a trained model on the test split, and draw what it does.

Reads    the prepared images, the checkpoint; section `evaluate` of params.yaml
Writes   metrics.json, latents.csv (KL and variance of each dimension), figures/*.png, run.json (the MLflow run)
Joins    the MLflow run that train opened

    python -m pipeline.evaluate data/prepared models/checkpoint reports/evaluate
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from pipeline.checkpoint import CONFIG, HISTORY, WEIGHTS, Checkpoint, load_checkpoint
from pipeline.dataset.batches import mapped_images, to_unit
from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import open_prepared
from pipeline.device import choose_device
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, write_csv, write_json
from pipeline.metrics import figures
from pipeline.metrics.latents import ACTIVE_VARIANCE, LatentUse, latent_use, prior_quantiles
from pipeline.metrics.likelihood import Encoded, encode_split, estimate, mean_and_stderr, recon_at_mean
from pipeline.params import EvaluateParams, flatten, load_params
from pipeline.record import Record, read_record, write_record
from pipeline.tracking.runs import log_stage
from pipeline.vae.likelihoods.make import bits_per_dim
from pipeline.vae.model import VAE

RECONSTRUCTIONS = 24
SAMPLES = 100
TRAVERSED_DIMENSIONS = 10
TRAVERSAL = tuple(np.linspace(-3, 3, 13).round(2).tolist())
MANIFOLD_COLUMNS = 20

_BINARIZATION, _FIGURES = 1, 2  # streams of the seed


def measure(checkpoint: Checkpoint, given: Encoded, use: LatentUse, params: EvaluateParams) -> dict[str, float]:
    """All metrics of the test split, in nats per image where they have no other unit.

    A plain auto-encoder defines no density, so of it only the reconstruction term at the posterior's mean is told.
    """
    model = checkpoint.model
    if checkpoint.objective == "autoencoder":
        return {"test/recon": recon_at_mean(model, given).mean().item(), "test/active_units": use.active_units}
    k = params.importance_samples
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"importance bound, K = {k}", total=len(given.mu))
        estimates = estimate(
            model, given, k, params.seed, params.batch_log_weights, lambda done: progress.advance(task, done)
        )
    nll, nll_stderr = mean_and_stderr(-estimates.iw_bound)
    discrete_nll, _ = mean_and_stderr(-estimates.discrete_bound)
    return {
        "test/elbo": estimates.elbo.mean().item(),
        "test/recon": estimates.recon.mean().item(),
        "test/kl": estimates.kl.mean().item(),
        f"test/nll_iw{k}": nll,
        f"test/nll_iw{k}_stderr": nll_stderr,
        "test/bits_per_dim": bits_per_dim(discrete_nll, given.pixels[0].numel()),
        "test/active_units": use.active_units,
    }


@torch.no_grad()
def draw(model: VAE, pixels: Tensor, given: Encoded, use: LatentUse, seed: int) -> dict[str, Figure]:
    """Figures of what the model makes, by file name; `pixels` is the test split, uint8 [n, C, H, W]."""
    device = given.mu.device
    generator = torch.Generator().manual_seed(stream_key(seed, _FIGURES) >> 1)
    shown = torch.randperm(len(pixels), generator=generator)[:RECONSTRUCTIONS]
    reconstructed = _images(model, given.mu[shown.to(device)])
    samples = _images(model, model.prior.sample(SAMPLES, generator).to(device))
    dimensions = use.by_kl()[:TRAVERSED_DIMENSIONS]
    moved = _images(model, _traversal(given.mu[shown[0]], dimensions, TRAVERSAL))
    pictures = {
        "reconstructions": figures.reconstructions(to_unit(pixels[shown]).numpy(), reconstructed),
        "samples": figures.image_grid(samples, 10, "Samples: mean of p(x|z), z from the prior"),
        "traversals": figures.traversals(moved, dimensions, use.kl.tolist(), TRAVERSAL),
    }
    if model.config.latent_dim == 2 and model.config.prior == "standard":
        grid = _images(model, prior_quantiles(MANIFOLD_COLUMNS).to(device))
        pictures["manifold"] = figures.manifold(grid, MANIFOLD_COLUMNS)
    return pictures


def plot(training: Record, use: LatentUse) -> dict[str, Figure]:
    """Figures of how training went and what each dimension carries, by file name."""
    return {
        "learning_curves": figures.learning_curves(training.curves, int(training.metrics["best_epoch"])),
        "kl_per_dimension": figures.kl_per_dimension(use.kl.tolist(), use.variance.tolist(), ACTIVE_VARIANCE),
    }


def save(folder: Path, metrics: dict[str, float], use: LatentUse, pictures: dict[str, Figure]) -> None:
    """Write metrics.json, latents.csv and the figures into an existing folder."""
    write_json(folder / "metrics.json", metrics)
    columns = enumerate(zip(use.kl.tolist(), use.variance.tolist(), strict=True))
    write_csv(
        folder / "latents.csv", [{"dimension": d, "kl": kl, "variance": variance} for d, (kl, variance) in columns]
    )
    (folder / "figures").mkdir()
    for name, figure in pictures.items():
        figures.save_figure(figure, folder / "figures" / f"{name}.png")


def main() -> None:
    """Load, measure, draw, save, and say what came of it."""
    parser = argparse.ArgumentParser(description="Measure a trained VAE on the test split.")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()
    params, checkpoint = load_params(), load_checkpoint(arguments.checkpoint)
    training = read_record(arguments.checkpoint, HISTORY, (WEIGHTS, CONFIG, HISTORY))
    pixels = _test_images(arguments.prepared, checkpoint.model)
    model = checkpoint.model.to(choose_device(params.train.device))

    given = encode_split(model, pixels, checkpoint.binarize, stream_key(params.evaluate.seed, _BINARIZATION))
    use = latent_use(given.mu, given.logvar, model.prior)
    metrics = measure(checkpoint, given, use, params.evaluate)
    _refuse_non_finite(metrics)
    pictures = draw(model, pixels, given, use, params.evaluate.seed) | plot(training, use)
    with atomic_directory(arguments.report) as beside:
        save(beside, metrics, use, pictures)
        values, artifacts = flatten(params.evaluate, "evaluate"), sorted(beside.iterdir())
        record = Record("evaluate", "", values, metrics=metrics, artifacts=artifacts)
        write_record(beside, log_stage([training], record))
    print(f"evaluate: {_headline(metrics)} on {len(pixels):,} test images -> {arguments.report}")


def _refuse_non_finite(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"evaluate: {name} is {value}; expected a finite number: some test image is impossible under the model"
            )


def _test_images(prepared: Path, model: VAE) -> Tensor:
    data = open_prepared(prepared)
    if data.image_shape != model.config.image_shape:
        raise UserError(
            f"{prepared}: images are {list(data.image_shape)}; expected {list(model.config.image_shape)}, "
            "the shape that the checkpoint was trained on"
        )
    if len(data.test.images) < 2:
        raise UserError(
            f"{prepared}: holds 1 test image; expected at least 2 (prepare.test_fraction): one has no spread"
        )
    return mapped_images(data.test.images)


def _images(model: VAE, z: Tensor) -> figures.Array:
    """Pixel means [n, C, H, W] in [0, 1] of z [n, latent_dim]."""
    images: figures.Array = model.mean(z).cpu().numpy()
    return images


def _traversal(z: Tensor, dimensions: Sequence[int], values: Sequence[float]) -> Tensor:
    """Copies of z [latent_dim] in which one dimension takes each value: [dimensions * values, latent_dim]."""
    copies = z.repeat(len(dimensions), len(values), 1)
    for row, dimension in enumerate(dimensions):
        copies[row, :, dimension] = torch.tensor(values)
    return copies.flatten(0, 1)


def _headline(metrics: dict[str, float]) -> str:
    return ", ".join(
        f"{name.removeprefix('test/')} {value:.{0 if name == 'test/active_units' else 2}f}"
        for name, value in metrics.items()
        if not name.endswith("stderr")
    )


if __name__ == "__main__":
    run_stage(main)
