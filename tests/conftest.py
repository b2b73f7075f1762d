import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before torch is imported: its threads wait by spinning, so two test processes beside each other would crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import torch
from mlflow.tracking import MlflowClient

from pipeline.export import build_files
from pipeline.files import write_json
from pipeline.graphs.manifest import build_manifest
from pipeline.runtime.metadata import Metadata
from pipeline.vae.model import VAE, VAEConfig

MLP = VAEConfig((1, 8, 8), "mlp", (16,), "relu", 3, "bernoulli", "learned")
CONV = VAEConfig((3, 10, 14), "conv", (6, 4), "silu", 3, "gaussian", 0.1)
SCORE_SAMPLES = 4


@dataclass(frozen=True)
class Exported:
    """A small random model and the export folder that was made from it."""

    folder: Path
    vae: VAE
    metadata: Metadata
    files: dict[str, bytes]


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """No test writes a row into the repository's MLflow store, even where DVC runs the tests."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow store without a row: to make one takes a second, to copy it nothing."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(own_store, empty_store, tmp_path):
    """A client of the test's own store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture(scope="session")
def mlp(tmp_path_factory):
    return export(MLP, tmp_path_factory.mktemp("mlp"))


@pytest.fixture(scope="session")
def conv(tmp_path_factory):
    return export(CONV, tmp_path_factory.mktemp("conv"))


@pytest.fixture(params=["mlp", "conv"])
def exported(request):
    return request.getfixturevalue(request.param)


def export(config, folder):
    vae = random_vae(config, seed=0)
    metadata = Metadata(
        graph="",
        latent_dim=config.latent_dim,
        image_shape=config.image_shape,
        likelihood=config.likelihood,
        prior="standard",
        objective="elbo",
        data_sha256="da7a" * 16,
        params_hash="9a3a" * 16,
        git_revision="0fb6cfb",
        mlflow_run="8f14e45f",
    )
    files = build_files(vae, metadata, SCORE_SAMPLES, validation_images(config))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / "manifest.json", build_manifest(files, metadata))
    return Exported(folder, vae, metadata, files)


def validation_images(config):
    """uint8 [n, C, H, W]; what the exported scorers are scaled on."""
    return np.random.default_rng(1).integers(0, 256, (40, *config.image_shape), dtype=np.uint8)


def random_vae(config, seed):
    """Weights large enough that pixels differ from one another and from image to image."""
    torch.manual_seed(seed)
    vae = VAE(config).eval()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(2)
    return vae
