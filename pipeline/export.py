"""Export a trained model as self-contained ONNX files, after proof that they compute what the model does.

Reads    the prepared images, the checkpoint, the report of evaluate; section `export` of params.yaml
Writes   decoder, encoder, sampler and scorer .onnx, sampler and decoder .int8.onnx and .fp16.onnx where these are good
         and fast enough, triton/ with the first four for a Triton server, manifest.json, card.md; metrics.json in a
         folder of its own
Joins    the MLflow run that train opened, with all of that and the explorer as a static folder; registers the model
         there, as champion or as challenger

    python -m pipeline.export data/prepared models/checkpoint reports/evaluate models/export reports/export
"""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.aggregate import AGGREGATE, load_aggregate
from pipeline.checkpoint import CONFIG, HISTORY, WEIGHTS, Checkpoint, load_checkpoint
from pipeline.dataset.batches import model_input
from pipeline.dataset.classes import labels_of
from pipeline.dataset.store import PreparedData, open_prepared
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, expect_own_folder, write_files, write_json
from pipeline.graphs.build import build_files
from pipeline.graphs.card import CARD, write_card
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
from pipeline.health import HEALTH, read_verdict, unhealthy
from pipeline.params import ExportParams, load_params
from pipeline.publish import publish
from pipeline.record import Record, read_record
from pipeline.runtime.explorer.folder import write_explorer
from pipeline.runtime.manifest import MANIFEST
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.sampler import SCORER
from pipeline.vae.model import VAE
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.mixtures import FixedMixture

METRICS = "metrics.json"
SEED = 0  # of the binarisation of test images


class Export(NamedTuple):
    """What is written: ONNX files and those of the Triton repository, by name, what is said of them, and metrics."""

    files: dict[str, bytes]
    repository: dict[str, bytes]
    manifest: dict[str, Any]
    card: str
    metrics: dict[str, float]


def describe_model(checkpoint: Checkpoint, training: Record) -> Metadata:
    """What the files are to say of themselves.

    Raises:
        UserError: the training's record lacks a tag.
    """
    config, tags = checkpoint.model.config, training.tags
    try:
        return Metadata(
            graph="",
            latent_dim=config.latent_dim,
            image_shape=config.image_shape,
            likelihood=config.likelihood,
            prior=config.prior,
            posterior=posterior_of(checkpoint),
            objective=checkpoint.objective,
            data_sha256=tags["data_sha256"],
            params_hash=tags["params_hash"],
            git_revision=tags["git_revision"] + ("-dirty" if tags["git_dirty"] == "true" else ""),
            mlflow_run=training.run_id,
        )
    except KeyError as error:
        raise UserError(f"the record of the training lacks the tag {error}; expected what train wrote") from None


def posterior_of(checkpoint: Checkpoint) -> str | None:
    """What q(z|x) is, as the files call it; a plain auto-encoder has none."""
    if checkpoint.objective == "autoencoder":
        return None
    config = checkpoint.model.config
    return "ladder" if config.network == "ladder" else config.posterior


def aggregate_of(evaluation: Path, vae: VAE) -> FixedMixture | MixturePerClass:
    """The density that evaluate fitted to the training codes.

    Raises:
        UserError: there is none, or its file is damaged.
    """
    classes = len(vae.config.classes) if vae.config.prior == "per_class" else 0
    density = load_aggregate(evaluation, vae.config.latent_dim, classes)
    if density is None:
        raise UserError(f"{evaluation / AGGREGATE}: holds no components; expected evaluate to have fitted some")
    return density


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
    validation = np.moveaxis(evenly(data.val.images, quality.SAMPLES), 1, -1)
    labels = classes_in(data, "val", checkpoint.model)
    labels = None if labels is None else evenly(labels, quality.SAMPLES)
    limits = Limits(params.min_speedup, params.max_quality_loss)
    return choose_variants(files, yardstick_of(files, checkpoint, data), validation, limits, labels)


def yardstick_of(files: dict[str, bytes], checkpoint: Checkpoint, data: PreparedData) -> Yardstick:
    """What variants of the files are measured by: test images, seen as the model was trained to see them."""
    seen = torch.from_numpy(evenly(data.test.images, bound.IMAGES))  # (n, C, H, W)
    x = model_input(seen, torch.arange(len(seen)), checkpoint.binarize, SEED)
    labels = classes_in(data, "test", checkpoint.model)
    label = None if labels is None else torch.from_numpy(evenly(labels, bound.IMAGES))
    test = np.moveaxis(evenly(data.test.images, quality.SAMPLES), 1, -1)
    return Yardstick(files, DecoderBound(checkpoint.model, checkpoint.objective, x, label), test)


def classes_in(data: PreparedData, split: str, vae: VAE) -> Labels | None:
    """The classes of a split's images as a conditional model numbers them, int64 [n]; None where it sees none."""
    labels = labels_of(data, split, vae.config.classes)
    return None if labels is None else labels.numpy()


def evenly(images: np.ndarray, most: int) -> np.ndarray:
    """At most so many images, from all over the split: a stored set may be in the order of its classes."""
    return np.array(images[np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)])


def refuse_unhealthy(health: Path, allowed: bool) -> None:
    """Raise where the verdict of evaluate is bad and that is not allowed.

    Raises:
        UserError: a check was missed; or the file is missing or damaged.
    """
    if (found := unhealthy(read_verdict(health))) and not allowed:
        raise UserError(f"{health}: {found}; export.allow_unhealthy: true exports the model all the same")


def build(
    checkpoint: Checkpoint,
    data: PreparedData,
    metadata: Metadata,
    density: Prior | None,
    params: ExportParams,
    evaluation: Mapping[str, float],
) -> Export:
    """Make all files, prove them, and measure them; `density` is what the sampler draws from where that is no prior.

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


def save(models: Path, reports: Path, export: Export) -> None:
    """Write the files, the manifest, the card and metrics.json into two existing folders."""
    write_files(models, export.files | export.repository)
    write_json(models / MANIFEST, export.manifest)
    (models / CARD).write_text(export.card, encoding="utf-8")
    write_json(reports / METRICS, export.metrics)


def main() -> None:
    """Export the checkpoint, prove it, and write both folders or neither."""
    paths = _arguments()
    for folder, marker in ((paths.models, MANIFEST), (paths.reports, METRICS)):
        expect_own_folder(folder, marker)
    params = load_params().export
    refuse_unhealthy(paths.evaluation / HEALTH, params.allow_unhealthy)
    before = [
        read_record(paths.checkpoint, HISTORY, (WEIGHTS, CONFIG, HISTORY)),
        read_record(paths.evaluation, artifacts=(METRICS, HEALTH, "latents.csv", "figures")),
    ]
    checkpoint = load_checkpoint(paths.checkpoint)
    metadata, density = describe_model(checkpoint, before[0]), None
    if params.sample_from == "aggregate":
        density = aggregate_of(paths.evaluation, checkpoint.model)
        metadata = dataclasses.replace(metadata, aggregate_components=density.mixture().mu.shape[-2])
    export = build(checkpoint, open_prepared(paths.data), metadata, density, params, before[1].metrics)
    with (
        atomic_directory(paths.reports, METRICS) as reports,
        atomic_directory(paths.models, MANIFEST) as models,
        TemporaryDirectory() as scratch,
    ):
        save(models, reports, export)
        explorer = Path(scratch) / "explorer"
        write_explorer(explorer, models, _installed(params.onnxruntime_web))
        registered = publish(before, params, export.metrics, models, [explorer])
    error = export.metrics["export/decoder_max_abs_error"]
    print(f"export: {', '.join(export.files)} -> {paths.models}; largest pixel error {error:.1e}{registered}")


def _installed(onnxruntime_web: str | None) -> Path | None:
    """Where onnxruntime-web lies, or None where nobody has installed it."""
    folder = Path(os.environ.get("DVC_ROOT", "."), onnxruntime_web) if onnxruntime_web else None
    return folder if folder and folder.is_dir() else None


def _arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pipeline.export", description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path, help="folder of the prepare stage")
    parser.add_argument("checkpoint", type=Path, help="folder of the train stage")
    parser.add_argument("evaluation", type=Path, help="folder of the evaluate stage")
    parser.add_argument("models", type=Path, help="folder to write: the ONNX files")
    parser.add_argument("reports", type=Path, help="folder to write: metrics.json")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
