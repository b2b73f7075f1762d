"""Export a trained model as self-contained ONNX files, after proof that they compute what the model does.

Reads data/prepared, models/checkpoint and reports/evaluate; writes models/export (decoder, encoder and
sampler .onnx, manifest.json, card.md) and reports/export (metrics.json). Ruled by `export` in params.yaml.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint import RUN, Checkpoint, load_checkpoint
from pipeline.dataset.store import open_prepared
from pipeline.errors import UserError, run_stage
from pipeline.files import atomic_directory, read_json, write_json
from pipeline.graphs.card import write_card
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.modules import Decoder, Encoder
from pipeline.graphs.onnx_export import finish, to_onnx
from pipeline.graphs.parity import BATCH_SIZES, check_parity, measure_parity
from pipeline.graphs.sampler import sampler_model
from pipeline.params import load_params
from pipeline.runtime.manifest import MANIFEST
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.sampler import DECODER, ENCODER, SAMPLER
from pipeline.vae.model import VAE


def build_files(vae: VAE, metadata: Metadata) -> dict[str, bytes]:
    """The three ONNX files of a model, by name; `metadata` is written into each with its own `graph`."""
    channels, height, width = vae.config.image_shape
    decoder = to_onnx(Decoder(vae), [torch.zeros(2, vae.config.latent_dim)], ["z"], ["x"])
    images = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    models = {
        SAMPLER: sampler_model(decoder, vae.config.latent_dim),
        DECODER: decoder,
        ENCODER: to_onnx(Encoder(vae), [images], ["images"], ["mu", "logvar"]),
    }
    return {
        name: finish(model, dataclasses.replace(metadata, graph=name.removesuffix(".onnx")))
        for name, model in models.items()
    }


def describe_model(checkpoint: Checkpoint, run: Mapping[str, Any], source: Path) -> Metadata:
    """What the files are to say of themselves; `run` is the training's record, read from `source`.

    Raises:
        UserError: an entry of `run` is missing.
    """
    config = checkpoint.model.config
    try:
        tags = run["tags"]
        return Metadata(
            graph="",
            latent_dim=config.latent_dim,
            image_shape=config.image_shape,
            likelihood=config.likelihood,
            prior="standard",
            objective=checkpoint.objective,
            data_sha256=str(tags["data_sha256"]),
            params_hash=str(tags["params_hash"]),
            git_revision=str(tags["git_revision"]) + ("-dirty" if tags["git_dirty"] == "true" else ""),
            mlflow_run=str(run["run_id"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{source}: lacks {error}; expected a file that train wrote") from None


def main() -> None:
    """Export the checkpoint, prove it, and write both folders or neither."""
    paths = _arguments()
    params = load_params().export
    checkpoint = load_checkpoint(paths.checkpoint)
    metadata = describe_model(checkpoint, read_json(paths.checkpoint / RUN), paths.checkpoint / RUN)
    images = np.moveaxis(open_prepared(paths.data).test.images[: max(BATCH_SIZES)], 1, -1)  # (n, H, W, C)
    files = build_files(checkpoint.model, metadata)
    parity = measure_parity(files, checkpoint.model, images)
    check_parity(parity, params.max_parity_error)
    manifest = build_manifest(files, metadata)
    card = write_card(metadata, manifest, parity, _test_metrics(paths.evaluation / "metrics.json"))
    with atomic_directory(paths.reports) as reports, atomic_directory(paths.models) as models:
        for name, content in files.items():
            (models / name).write_bytes(content)
        write_json(models / MANIFEST, manifest)
        (models / "card.md").write_text(card, encoding="utf-8")
        write_json(reports / "metrics.json", {f"export/{name}": value for name, value in parity.items()})
    print(f"export: {', '.join(files)} -> {paths.models}; largest pixel error {parity['decoder_max_abs_error']:.1e}")


def _test_metrics(path: Path) -> dict[str, float]:
    metrics = read_json(path) if path.exists() else {}
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.export", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the prepare stage")
    parser.add_argument("checkpoint", type=Path, help="folder of the train stage")
    parser.add_argument("evaluation", type=Path, help="folder of the evaluate stage")
    parser.add_argument("models", type=Path, help="folder to write: the ONNX files")
    parser.add_argument("reports", type=Path, help="folder to write: metrics.json")
    return parser.parse_args()


if __name__ == "__main__":
    run_stage(main)
