"""The same measurements on CUDA: `make gpu` runs these where there is a device."""

import copy
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from sklearn.datasets import load_digits

from pipeline.metrics import likelihood
from pipeline.metrics.likelihood import encode_split
from pipeline.metrics.report import density_metrics
from pipeline.params import load_params
from pipeline.vae.model import VAE, VAEConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate.model_copy(
    update={"importance_samples": 50, "amortisation_images": 4}
)
CONFIG = {"image_shape": (1, 8, 8), "activation": "relu", "latent_dim": 4, "likelihood": "bernoulli", "sigma": 1.0}
MODELS = {
    "plain": {"network": "mlp", "hidden": (16,)},
    "classes": {
        "network": "mlp",
        "hidden": (16,),
        "condition": "label",
        "classes": tuple("0123456789"),
        "prior": "per_class",
    },
    "flow": {"network": "mlp", "hidden": (16,), "posterior": "iaf", "flow_hidden": (8,), "prior": "flow"},
    "ladder": {"network": "ladder", "hidden": (16,), "latent_groups": 2},
}


def measured(model, device):
    model = copy.deepcopy(model).eval().to(device)
    pixels = torch.from_numpy((load_digits().images[:, None] * 255 / 16).round().astype("uint8"))
    labels = torch.from_numpy(load_digits().target.astype("int64")) if model.config.classes else None
    test, train = (
        encode_split(model, pixels[rows], "dynamic", 0, None if labels is None else labels[rows])
        for rows in (slice(100), slice(100, 500))
    )
    return density_metrics(model, test, train, PARAMS, Progress(disable=True))


@pytest.fixture
def noise_of_the_cpu(monkeypatch):
    own = likelihood._noise

    def noise(seed, index, samples, like):
        return own(seed, index, samples, like.cpu()).to(like.device)

    monkeypatch.setattr(likelihood, "_noise", noise)


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_measures_what_the_cpu_measures(noise_of_the_cpu, name):
    torch.manual_seed(0)
    model = VAE(VAEConfig(**CONFIG | MODELS[name]))
    expected, found = (measured(model, device) for device in ("cpu", "cuda"))
    assert found == pytest.approx(expected, abs=0.05)


def test_a_gpu_draws_noise_of_its_own_for_each_image():
    like = torch.empty(0, 4, device="cuda")
    noise, again, other = (likelihood._noise(0, index, 10_000, like) for index in (3, 3, 4))
    torch.testing.assert_close(noise, again, rtol=0, atol=0)
    assert (noise * other).mean().abs() < 0.02
    torch.testing.assert_close(
        torch.std_mean(noise, 0), (torch.ones_like(noise[0]), torch.zeros_like(noise[0])), atol=0.05, rtol=0
    )
