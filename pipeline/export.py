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
from pathlib import Path
from tempfile import TemporaryDirectory

import pipeline.threads  # noqa: F401  # before torch

from pipeline.aggregate import AGGREGATE, load_aggregate
from pipeline.assembly import Export, assemble
from pipeline.checkpoint import CONFIG, HISTORY, WEIGHTS, Checkpoint, load_checkpoint
from pipeline.dataset.store import open_prepared
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, expect_own_folder, write_files, write_json
from pipeline.graphs.card import CARD
from pipeline.health import HEALTH, read_verdict, unhealthy
from pipeline.params import load_params
from pipeline.publish import publish
from pipeline.record import Record, read_record
from pipeline.runtime.explorer.folder import write_explorer
from pipeline.runtime.manifest import MANIFEST
from pipeline.runtime.metadata import Metadata
from pipeline.vae.model import VAE
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.mixtures import FixedMixture

METRICS = "metrics.json"


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


def refuse_unhealthy(health: Path, allowed: bool) -> None:
    """Raise where the verdict of evaluate is bad and that is not allowed.

    Raises:
        UserError: a check was missed; or the file is missing or damaged.
    """
    if (found := unhealthy(read_verdict(health))) and not allowed:
        raise UserError(f"{health}: {found}; export.allow_unhealthy: true exports the model all the same")


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
    export = assemble(checkpoint, open_prepared(paths.data), metadata, density, params, before[1].metrics)
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
