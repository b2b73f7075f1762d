"""Samples of a trained model, judged: by distances to the test images, as copies of training images; and its codes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from pipeline.dataset.batches import to_unit
from pipeline.dataset.noise import stream_key
from pipeline.dataset.store import PreparedData
from pipeline.metrics import figures
from pipeline.metrics.codes import Codes, code_training
from pipeline.metrics.mixture import fit_mixture, fit_mixture_per_class
from pipeline.metrics.quality import Reference, choose_extractors, classifier_of
from pipeline.metrics.samples import draw_images
from pipeline.metrics.streams import Stream
from pipeline.params import EvaluateParams
from pipeline.quality.classifier import Classifier
from pipeline.quality.probe import probe_accuracy
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.class_mixtures import fixed_density
from pipeline.vae.priors.mixtures import Mixture

AGGREGATE_PREFIX, YARDSTICK_PREFIX = "aggregate_", "yardstick_"
"""Before the names of metrics: of samples of the aggregate density; of training images in the place of samples."""

_SHOWN = 100


class Assessment(NamedTuple):
    """What was found: metrics and figures by name, and the density that was fitted to the codes."""

    metrics: dict[str, float]
    pictures: dict[str, Figure]
    mixture: Mixture | None


def assess(
    model: VAE, data: PreparedData, test_mu: Tensor, params: EvaluateParams, binarize: str, noisy_codes: bool = True
) -> Assessment:
    """Judge the model's samples and codes.

    Args:
        model: in evaluation mode.
        data: what prepare wrote.
        test_mu: the codes of the test split, [n, latent_dim].
        params: how many samples, and what is fitted.
        binarize: how the model was trained.
        noisy_codes: whether the mixture is fitted to draws of q(z|x); else, as of a plain auto-encoder, to means.

    Raises:
        UserError: Inception's weights cannot be read, or the mixture has more components than there are codes.
    """
    codes = code_training(model, data.train, binarize, stream_key(params.seed, Stream.TRAINING_CODES))
    metrics, mixture = _probe(codes, data, test_mu), None
    densities: dict[str, Prior] = {"": model.prior}
    if params.aggregate_components:
        mixture = _fit(model, codes, codes.z if noisy_codes else codes.mu, params)
        densities[AGGREGATE_PREFIX] = fixed_density(mixture)
    if not params.quality_images:
        return Assessment(metrics, {}, mixture)
    classifier = classifier_of(data, stream_key(params.seed, Stream.CLASSIFIER))
    if classifier and data.test.labels is not None:
        test = data.test.images, data.test.labels
        metrics["classifier_accuracy"] = classifier.accuracy(*(torch.from_numpy(array.copy()) for array in test))
    reference = Reference(data, choose_extractors(classifier, _inception_weights(params)), params.quality_images)
    metrics |= _prefixed(YARDSTICK_PREFIX, reference.yardstick)
    labels = None
    if codes.labels is not None and model.config.classes:
        labels = _drawn(codes.labels, len(reference.test), stream_key(params.seed, Stream.SAMPLE_LABELS))
    judged, pictures = _judge(model, densities, reference, classifier, labels, stream_key(params.seed, Stream.SAMPLES))
    return Assessment(metrics | judged, pictures, mixture)


def _inception_weights(params: EvaluateParams) -> str | None:
    weights = params.inception_weights
    return weights and str(Path(os.environ.get("DVC_ROOT", "."), weights))


def _fit(model: VAE, codes: Codes, fitted_to: Tensor, params: EvaluateParams) -> Mixture:
    """One mixture of the codes, [n, latent_dim], or where each class has a prior of its own, one of each class."""
    components, seed = params.aggregate_components, stream_key(params.seed, Stream.MIXTURE)
    if model.config.prior == "per_class" and codes.labels is not None:
        return fit_mixture_per_class(fitted_to, codes.labels, model.config.classes, components, seed)
    return fit_mixture(fitted_to, components, seed)


def _judge(
    model: VAE,
    densities: Mapping[str, Prior],
    reference: Reference,
    classifier: Classifier | None,
    labels: Tensor | None,
    seed: int,
) -> tuple[dict[str, float], dict[str, Figure]]:
    """Metrics and figures of samples from each density, which stand under its prefix; of a conditional model of these
    classes."""
    metrics, pictures = {"memorisation_test_copies": reference.neighbours.copy_share}, {}
    for prefix, density in densities.items():
        samples = draw_images(model, density, len(reference.test), seed, labels)
        neighbours = reference.nearest(samples)
        metrics |= _prefixed(prefix, reference.distances(samples) | reference.copying(neighbours))
        if labels is not None and classifier:
            metrics[f"{prefix}sample_label_accuracy"] = classifier.accuracy(samples, labels)
        pairs = reference.closest(samples, neighbours), reference.closest(reference.test, reference.neighbours)
        pictures[f"{prefix}nearest_training"] = figures.nearest_training(*pairs)
        if prefix == AGGREGATE_PREFIX:
            shown = to_unit(samples[:_SHOWN]).numpy()
            pictures[f"{prefix}samples"] = figures.image_grid(shown, 10, "Samples: z from the aggregate density")
    return metrics, pictures


def _probe(codes: Codes, data: PreparedData, test_mu: Tensor) -> dict[str, float]:
    if codes.labels is None or data.test.labels is None or bool((codes.labels == codes.labels[0]).all()):
        return {}
    accuracy = probe_accuracy(codes.mu, codes.labels, test_mu, torch.from_numpy(data.test.labels.copy()))
    return {"probe_accuracy": accuracy}


def _drawn(labels: Tensor, count: int, seed: int) -> Tensor:
    """So many of them, as often as they occur."""
    return labels[torch.randint(len(labels), (count,), generator=Generator().manual_seed(seed))]


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}
