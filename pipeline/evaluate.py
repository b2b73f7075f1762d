"""Measure a trained model on the test split, and draw what it does.

Reads    the prepared images, the checkpoint; sections `evaluate` and `health` of params.yaml
Writes   metrics.json, health.json (which limits the model keeps), latents.csv (KL and variance of each dimension),
         figures/*.png, aggregate.safetensors (a mixture fitted to the training codes), run.json (the MLflow run)
Joins    the MLflow run that train opened

    python -m pipeline.evaluate data/prepared models/checkpoint reports/evaluate
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pipeline.threads  # noqa: F401  # before torch

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from pipeline.aggregate import save_aggregate
from pipeline.checkpoint import CONFIG, HISTORY, WEIGHTS, Checkpoint, load_checkpoint
from pipeline.dataset.batches import evenly, mapped_images, to_unit
from pipeline.dataset.classes import renumbered
from pipeline.dataset.noise import generator_of, stream_key
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.device import choose_device, memory_bounded_by
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, expect_own_folder, write_csv, write_json
from pipeline.health import FAILED_CHECKS, HEALTH, Check, Sizes, examine, verdict
from pipeline.metrics import figures
from pipeline.metrics.assessment import assess
from pipeline.metrics.classes import class_rows
from pipeline.metrics.latents import ACTIVE_VARIANCE, LatentUse, latent_use, prior_quantiles, traversal
from pipeline.metrics.likelihood import Encoded, encode_split, recon_at_mean
from pipeline.metrics.report import density_metrics
from pipeline.metrics.samples import pixel_means
from pipeline.metrics.streams import Stream
from pipeline.params import EvaluateParams, Params, flatten, load_params
from pipeline.record import Record, read_record, write_record
from pipeline.tracking.runs import log_stage
from pipeline.vae.model import VAE
from pipeline.vae.posteriors import repeated
from pipeline.vae.priors.mixtures import Mixture

METRICS = "metrics.json"
RECONSTRUCTIONS = 24
SAMPLES, COLUMNS = 100, 10
MOST_CLASSES = 20  # rows of the figure of samples
TRAVERSED_DIMENSIONS = 10
TRAVERSAL = tuple(np.linspace(-3, 3, 13).round(2).tolist())
MANIFOLD_COLUMNS = 20

MOST_TRAINING_IMAGES = 10_000  # that test images are compared with


class Evaluation(NamedTuple):
    """What was found: metrics and figures by name, what the latents carry, their mixture, and the checks of health."""

    metrics: dict[str, float]
    use: LatentUse
    pictures: dict[str, Figure]
    mixture: Mixture | None
    checks: list[Check]


def measure(
    checkpoint: Checkpoint, test: Encoded, train: Encoded, use: LatentUse, params: EvaluateParams
) -> dict[str, float]:
    """All metrics of the test split, in nats per image where they have no other unit; `train` is some of that split.

    A plain auto-encoder defines no density, so of it only the reconstruction term at the posterior's mean is told.
    """
    active = {"test/active_units": use.active_units}
    if checkpoint.objective == "autoencoder":
        return {"test/recon": recon_at_mean(checkpoint.model, test).mean().item()} | active
    console = Console()
    if not console.is_terminal:
        samples = params.importance_samples
        print(f"evaluate: importance bound of {len(test.mu):,} images with {samples:,} samples each ...", flush=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        return density_metrics(checkpoint.model, test, train, params, progress) | active


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Say what takes a while: beside a spinner at a terminal, in a line elsewhere."""
    console = Console()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        print(f"evaluate: {what} ...", flush=True)
        yield


@torch.no_grad()
def draw(model: VAE, pixels: Tensor, given: Encoded, use: LatentUse, seed: int) -> dict[str, Figure]:
    """Figures of what the model makes, by file name; `pixels` is the test split, uint8 [n, C, H, W]."""
    device = given.mu.device
    generator = generator_of(seed, Stream.FIGURES)
    shown = torch.randperm(len(pixels), generator=generator)[:RECONSTRUCTIONS]
    reconstructed = _images(model, given.mu[shown.to(device)], given.label(shown))
    dimensions = use.by_kl()[:TRAVERSED_DIMENSIONS]
    label = given.label(shown[:1])
    copies = traversal(given.mu[shown[0]], dimensions, TRAVERSAL, model.prior.given(label))
    moved = _images(model, copies, repeated(label, len(copies)))
    pictures = {
        "reconstructions": figures.reconstructions(to_unit(pixels[shown]).numpy(), reconstructed),
        "samples": _samples(model, generator, device),
        "traversals": figures.traversals(moved, dimensions, use.kl.tolist(), TRAVERSAL),
    }
    if model.config.latent_dim == 2 and model.config.prior == "standard" and not model.config.classes:
        grid = _images(model, prior_quantiles(MANIFOLD_COLUMNS).to(device))
        pictures["manifold"] = figures.manifold(grid, MANIFOLD_COLUMNS)
    return pictures


def _samples(model: VAE, generator: torch.Generator, device: torch.device) -> Figure:
    """Samples from the prior; of a conditional model a row for each class."""
    if classes := model.config.classes[:MOST_CLASSES]:
        rows = class_rows(model, COLUMNS, len(classes), generator.initial_seed()).numpy()
        return figures.image_grid(rows, COLUMNS, "Samples of each class; a column shares its noise", classes)
    samples = _images(model, model.prior.sample(SAMPLES, generator).to(device))
    return figures.image_grid(samples, COLUMNS, "Samples: mean of p(x|z), z from the prior")


def plot(training: Record, use: LatentUse, metrics: Mapping[str, float]) -> dict[str, Figure]:
    """Figures of how training went, what each dimension carries, and how the bound converges, by file name."""
    epochs = training.metrics
    kept = epochs.get("kept_epoch", epochs["best_epoch"])  # the same in a checkpoint that does not tell them apart
    bound = {"importance_bound": figures.importance_bound(metrics)} if "test/nll_iw1" in metrics else {}
    return bound | {
        "learning_curves": figures.learning_curves(training.curves, int(kept)),
        "kl_per_dimension": figures.kl_per_dimension(use.kl.tolist(), use.variance.tolist(), ACTIVE_VARIANCE),
    }


def evaluate(checkpoint: Checkpoint, data: PreparedData, training: Record, params: Params) -> Evaluation:
    """Measure and draw; `data` numbers its classes as the checkpoint does.

    Raises:
        UserError: the images do not fit the model, or something that was measured is not finite.
    """
    known, pixels = _images_of(data, checkpoint.model)
    of_known, of_test = _labels(data, checkpoint.model)
    model = checkpoint.model.to(choose_device(params.train.device))
    seed = params.evaluate.seed
    train = encode_split(model, known, checkpoint.binarize, stream_key(seed, Stream.TRAIN_BINARIZATION), of_known)
    test = encode_split(model, pixels, checkpoint.binarize, stream_key(seed, Stream.TEST_BINARIZATION), of_test)
    use = latent_use(test.mu, test.logvar, model.prior.given(test.labels))
    noisy = checkpoint.objective != "autoencoder"
    with waiting_for("codes and samples"):
        assessment = assess(model, data, test.mu, params.evaluate, checkpoint.binarize, noisy_codes=noisy)
    metrics = measure(checkpoint, test, train, use, params.evaluate)
    metrics |= {f"test/{name}": value for name, value in assessment.metrics.items()}
    _refuse_non_finite(metrics)
    sizes = Sizes(model.config.latent_dim, pixels[0].numel(), params.evaluate.importance_samples)
    checks = examine(metrics, sizes, params)
    metrics[FAILED_CHECKS] = sum(not check.healthy for check in checks)
    pictures = draw(model, pixels, test, use, seed) | plot(training, use, metrics) | assessment.pictures
    return Evaluation(metrics, use, pictures, assessment.mixture, checks)


def save(folder: Path, evaluation: Evaluation) -> None:
    """Write metrics.json, health.json, latents.csv, the mixture and the figures into an existing folder."""
    write_json(folder / METRICS, evaluation.metrics)
    columns = enumerate(zip(evaluation.use.kl.tolist(), evaluation.use.variance.tolist(), strict=True))
    write_csv(
        folder / "latents.csv", [{"dimension": d, "kl": kl, "variance": variance} for d, (kl, variance) in columns]
    )
    (folder / "figures").mkdir()
    for name, figure in evaluation.pictures.items():
        figures.save_figure(figure, folder / "figures" / f"{name}.png")
    save_aggregate(folder, evaluation.mixture)
    write_json(folder / HEALTH, verdict(evaluation.checks))


def main() -> None:
    """Load, evaluate, save, and say what came of it."""
    arguments = _arguments()
    expect_own_folder(arguments.report, METRICS)
    params, checkpoint = load_params(), load_checkpoint(arguments.checkpoint)
    training = read_record(arguments.checkpoint, HISTORY, (WEIGHTS, CONFIG, HISTORY))
    data = renumbered(open_prepared(arguments.prepared), checkpoint.model.config.classes)
    with memory_bounded_by("evaluate.batch_log_weights"):
        evaluation = evaluate(checkpoint, data, training, params)
    with atomic_directory(arguments.report, METRICS) as beside:
        save(beside, evaluation)
        values = flatten(params.evaluate, "evaluate") | flatten(params.health, "health")
        artifacts = sorted(beside.iterdir())
        record = Record("evaluate", "", values, metrics=evaluation.metrics, artifacts=artifacts)
        write_record(beside, log_stage([training], record))
    failed = [check.name for check in evaluation.checks if not check.healthy]
    state = f"; unhealthy: {', '.join(failed)}" if failed else ""
    told = _headline(evaluation.metrics, params.evaluate.importance_samples)
    print(f"evaluate: {told} on {len(data.test.images):,} test images -> {arguments.report}{state}")


def _refuse_non_finite(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"evaluate: {name} is {value}; expected a finite number: some test image is impossible under the model"
            )


def _images_of(data: PreparedData, model: VAE) -> tuple[Tensor, Tensor]:
    """Some training images, from all over the split, and all test images: uint8 [n, C, H, W]."""
    if data.image_shape != model.config.image_shape:
        raise UserError(
            f"{data.folder}: images are {list(data.image_shape)}; expected {list(model.config.image_shape)}, "
            "the shape that the checkpoint was trained on"
        )
    for split, images in (("test", data.test.images), ("training", data.train.images)):
        if len(images) < 2:
            raise UserError(f"{data.folder}: holds 1 {split} image; expected at least 2: one has no spread")
    some = evenly(len(data.train.images), MOST_TRAINING_IMAGES)
    return mapped_images(data.train.images)[some], mapped_images(data.test.images)


def _labels(data: PreparedData, model: VAE) -> tuple[Tensor | None, Tensor | None]:
    """The classes of the same images, int64 [n], which a conditional model is told."""
    if not model.config.classes or data.train.labels is None or data.test.labels is None:
        return None, None
    some = evenly(len(data.train.labels), MOST_TRAINING_IMAGES)
    return mapped_images(data.train.labels)[some], mapped_images(data.test.labels)


def _images(model: VAE, z: Tensor, label: Tensor | None = None) -> figures.Array:
    """Pixel means [n, C, H, W] in [0, 1] of z [n, latent_dim]."""
    images: figures.Array = pixel_means(model, z, label).numpy()
    return images


def _headline(metrics: Mapping[str, float], samples: int) -> str:
    names = ("elbo", "recon", "kl", f"nll_iw{samples}", "bits_per_dim", "active_units", "sample_label_accuracy")
    found = ((name, metrics[f"test/{name}"]) for name in names if f"test/{name}" in metrics)
    return ", ".join(f"{name} {value:.{0 if name == 'active_units' else 2}f}" for name, value in found)


def _arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description=__doc__, formatter_class=layout)
    parser.add_argument("prepared", type=Path, help="folder of the prepare stage")
    parser.add_argument("checkpoint", type=Path, help="folder of the train stage")
    parser.add_argument("report", type=Path, help="folder to write")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
