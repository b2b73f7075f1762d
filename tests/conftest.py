import dataclasses
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before torch is imported: its threads wait by spinning, so two test processes beside each other would crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import numpy as np
import torch
from digits import TINY, prepare_digits
from filelock import FileLock
from missing import skip_unless_ci
from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from pipeline import evaluate, train
from pipeline.files import write_files, write_json
from pipeline.graphs.build import build_files
from pipeline.graphs.manifest import build_manifest, list_files
from pipeline.graphs.triton import triton_repository
from pipeline.runtime.metadata import Metadata
from pipeline.vae.bounds import elbo
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


def pytest_collection_modifyitems(items):
    """Files with tests that take minutes come first, or one worker would be left with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_auto_num_workers():
    """One more than there are cores, for some tests wait; four at most, for each holds torch."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """No test writes a row into the repository's MLflow store, even where DVC runs the tests."""
    take_store(tmp_path / "mlflow.db", monkeypatch)


def take_store(file, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
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
def digits(tmp_path_factory):
    """Real digits, 8x8, as the prepare stage leaves them: 200 to train on, 60 and 50 to validate and test on."""
    return prepare_digits(tmp_path_factory.mktemp("digits"), {"train": 200, "val": 60, "test": 50})


class Workplace:
    """A working directory with prepared digits, in which the stages run as `main` does with tiny params."""

    prepared = "data/prepared"

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    def prepare(self, counts, size=8, **labels):
        """Other digits than the usual ones; `classes` and `held_out` as of `prepare_digits`."""
        self.prepared = "data/other"
        Path(self.prepared).mkdir()
        prepare_digits(Path(self.prepared), counts, size, **labels)

    def set_params(self, **changes):
        """The repository's params, made tiny, with changes such as train__beta=4.0."""
        content = YAML(typ="safe").load((Path(__file__).parents[1] / "params.yaml").read_text())
        for name, value in (TINY | {key.replace("__", "."): value for key, value in changes.items()}).items():
            section, field = name.split(".")
            content[section][field] = value
        with open("params.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe").dump(content, file)

    def forget(self):
        """As if no training had ended here: one with the same params is no longer found."""
        for kept in Path(".training").glob("*/finished.safetensors"):
            shutil.rmtree(kept.parent)

    def train(self, folder="models/checkpoint", **changes):
        """Run the train stage, and train even if that was done before; returns the checkpoint's folder."""
        self.forget()
        return self.train_or_find(folder, **changes)

    def train_or_find(self, folder="models/checkpoint", **changes):
        """As `train`, where what an earlier training came to is not forgotten."""
        self.set_params(**changes)
        self._monkeypatch.setattr(sys, "argv", ["train", self.prepared, folder, ".training"])
        train.main()
        return Path(folder)

    def evaluate(self, folder="reports/evaluate", **changes):
        """Run the evaluate stage on models/checkpoint; returns the report's folder."""
        self.set_params(**changes)
        self._monkeypatch.setattr(sys, "argv", ["evaluate", self.prepared, "models/checkpoint", folder])
        evaluate.main()
        return Path(folder)


def work_in(folder, digits, monkeypatch):
    monkeypatch.chdir(folder)
    Path("data").mkdir()
    Path("data/prepared").symlink_to(digits)
    return Workplace(monkeypatch)


@pytest.fixture
def workplace(digits, store, tmp_path, monkeypatch):
    return work_in(tmp_path, digits, monkeypatch)


@pytest.fixture(scope="module")
def shared_workplace(digits, empty_store, tmp_path_factory):
    """Opens one for a fixture of the module, with a store of its own, and gives a client of that besides."""

    @contextmanager
    def opened():
        folder = tmp_path_factory.mktemp("workplace")
        shutil.copy(empty_store, folder / "mlflow.db")
        with pytest.MonkeyPatch.context() as patch:
            take_store(folder / "mlflow.db", patch)
            yield work_in(folder, digits, patch), MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")

    return opened


@pytest.fixture(scope="session")
def quick_export():
    """torch lists its operators, and what ONNX has for them, anew at each export: half of a small model's time."""
    from torch.export import decomp_utils, exported_program
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # seconds of imports, for those who export

    kept_whole = functools.cache(exported_program._collect_all_valid_cia_ops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        for module in (decomp_utils, exported_program):  # neither changes the set
            patch.setattr(module, "_collect_all_valid_cia_ops", kept_whole)
        yield


@pytest.fixture(scope="session")
def mlp(tmp_path_factory, quick_export):
    return export(MLP, tmp_path_factory.mktemp("mlp"))


@pytest.fixture(scope="session")
def conv(tmp_path_factory, quick_export):
    return export(CONV, tmp_path_factory.mktemp("conv"))


@pytest.fixture(params=["mlp", "conv"])
def exported(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, quick_export):
    """A small model that was trained, if briefly, on the first 1,000 of scikit-learn's digits."""
    config = dataclasses.replace(MLP, hidden=(64,), latent_dim=8)
    return export(config, tmp_path_factory.mktemp("trained"), trained_vae(config, steps=200))


def export(config, folder, vae=None):
    vae = vae or random_vae(config, seed=0)
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
    repository = triton_repository(files)
    write_files(folder, files | repository)
    write_json(folder / "manifest.json", build_manifest(files) | {"other_files": list_files(repository)})
    return Exported(folder, vae, metadata, files)


@pytest.fixture(scope="session")
def triton_environment(request):
    return environment(request.config, "triton-environment.txt")


@pytest.fixture(scope="session")
def schemathesis_environment(request):
    return environment(request.config, "schemathesis-environment.txt")


def environment(config, name):
    """The Python of an environment with what a file beside this one names; made once and kept in pytest's cache.

    Run it with -I, so that the project's own modules stay out.
    """
    pins = Path(__file__).with_name(name)
    key = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = config.cache.mkdir(f"{pins.stem}-{key}")
    python, ready = folder / "bin" / "python", folder / ".ready"
    with FileLock(folder.with_suffix(".lock")):  # of several workers one makes it
        if not ready.exists():
            make_environment(folder, python, pins)
            ready.touch()
    return python


def make_environment(folder, python, pins):
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-compile", "--retries=1", "--timeout=30"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, "--requirement", pins]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        skip_unless_ci(f"{pins.name} cannot be installed: {ended.stderr.strip().splitlines()[-1]}")


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


def trained_vae(config, steps):
    torch.manual_seed(0)
    vae = VAE(config)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    x = torch.from_numpy(load_digits().images[:1000, None] / 16).float()
    for _ in range(steps):
        optimizer.zero_grad()
        (-elbo(vae, x, torch.randn(len(x), config.latent_dim)).elbo.mean()).backward()
        optimizer.step()
    return vae.eval()
