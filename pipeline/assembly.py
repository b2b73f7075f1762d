"""An export before it is written: a model's files made, proven, measured and described. No folder is known here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.checkpoint import Checkpoint
from pipeline.dataset.batches import evenly, model_input
from pipeline.dataset.classes import labels_of
from pipeline.dataset.store import PreparedData
from pipeline.graphs.build import build_files
from pipeline.graphs.card import write_card
from pipeline.graphs.detection import measure_detection
from pipeline.graphs.detection_section import TITLE, detection_section
from pipeline.graphs.labels import Labels
from pipeline.graphs.manifest import build_manifest, list_files
from pipeline.graphs.parity import BATCH_SIZES, check_parity, measure_parity
from pipeline.graphs.triton import triton_repository
from pipeline.graphs.variants import bound, quality
from pipeline.graphs.variants.bound import DecoderBound
from pipeline.graphs.variants.choice import Limits, Outcome, choose_variants
from pipeline.graphs.variants.quality import Yardstick
from pipeline.graphs.variants.section import TITLE as VARIANTS
from pipeline.graphs.variants.section import variants_section
from pipeline.params import ExportParams
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.sampler import SCORER
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior

SEED = 0  # of the binarisation of test images


class Export(NamedTuple):
    """What is written: ONNX files and those of the Triton repository, by name, what is said of them, and metrics."""

    files: dict[str, bytes]
    repository: dict[str, bytes]
    manifest: dict[str, Any]
    card: str
    metrics: dict[str, float]


def assemble(
    checkpoint: Checkpoint,
    data: PreparedData,
    metadata: Metadata,
    density: Prior | None,
    params: ExportParams,
    evaluation: Mapping[str, float],
) -> Export:
    """Make all files, prove them, and measure them.

    `density` is what the sampler draws from where that is not the model's prior; `evaluation` are the metrics of
    evaluate, which the card tells.

    Raises:
        UserError: they do not compute what the model does.
    """
    of_val, of_test = (classes_in(data, split, checkpoint.model) for split in ("val", "test"))
    proven = build_files(checkpoint.model, metadata, params.score_samples, data.val.images, density, of_val)
    images = np.moveaxis(data.test.images[: max(BATCH_SIZES)], 1, -1)  # (n, H, W, C)
    parity = measure_parity(proven, checkpoint.model, images, density)
    check_parity(parity, params.max_parity_error)
    repository = triton_repository(proven)
    variants = make_variants(proven, checkpoint, data, params)
    files = proven | {name: content for variant in variants for name, content in variant.files.items()}
    manifest = build_manifest(files) | {"other_files": list_files(repository)}
    manifest["variants"] = {variant.variant: variant.summary for variant in variants}
    detection, sections = measure_as_detector(files[SCORER], data, params.detection_images, of_test)
    sections |= {VARIANTS: variants_section(variants, checkpoint.objective)}
    card = write_card(metadata, manifest, parity, evaluation, sections)
    measured = [parity, detection, *(variant.metrics for variant in variants)]
    metrics = {f"export/{name}": value for part in measured for name, value in part.items()}
    return Export(files, repository, manifest, card, metrics)


def measure_as_detector(
    scorer: bytes, data: PreparedData, count: int, labels: Labels | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """How well a scorer finds strange images: its metrics, and what the card says of them; empty where none can be."""
    held_out = None if data.held_out is None else data.held_out.images
    detection = measure_detection(scorer, data.test.images, held_out, count, labels)
    if detection is None:
        return {}, {}
    return detection.metrics, {TITLE: detection_section(detection, data.held_out_labels, labels is not None)}


def make_variants(
    files: dict[str, bytes], checkpoint: Checkpoint, data: PreparedData, params: ExportParams
) -> list[Outcome]:
    """int8 and fp16 of the sampler and the decoder, measured; none where `min_speedup` is null."""
    if params.min_speedup is None:
        return []
    validation = np.moveaxis(some_evenly(data.val.images, quality.SAMPLES), 1, -1)
    labels = classes_in(data, "val", checkpoint.model)
    labels = None if labels is None else some_evenly(labels, quality.SAMPLES)
    limits = Limits(params.min_speedup, params.max_quality_loss)
    return choose_variants(files, yardstick_of(files, checkpoint, data), validation, limits, labels)


def yardstick_of(files: dict[str, bytes], checkpoint: Checkpoint, data: PreparedData) -> Yardstick:
    """What variants of the files are measured by: test images, seen as the model was trained to see them."""
    seen = torch.from_numpy(some_evenly(data.test.images, bound.IMAGES))  # (n, C, H, W)
    x = model_input(seen, torch.arange(len(seen)), checkpoint.binarize, SEED)
    labels = classes_in(data, "test", checkpoint.model)
    label = None if labels is None else torch.from_numpy(some_evenly(labels, bound.IMAGES))
    test = np.moveaxis(some_evenly(data.test.images, quality.SAMPLES), 1, -1)
    return Yardstick(files, DecoderBound(checkpoint.model, checkpoint.objective, x, label), test)


def classes_in(data: PreparedData, split: str, vae: VAE) -> Labels | None:
    """The classes of a split's images as a conditional model numbers them, int64 [n]; None where it sees none."""
    labels = labels_of(data, split, vae.config.classes)
    return None if labels is None else labels.numpy()


def some_evenly(images: np.ndarray, most: int) -> np.ndarray:
    """At most so many images, or labels, from all over the split."""
    return np.array(images[evenly(len(images), most).numpy()])
