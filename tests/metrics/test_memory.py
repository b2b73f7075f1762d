"""However few images go through a network at once, what is measured of all of them is the same."""

from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from sklearn.datasets import load_digits

from pipeline.metrics.codes import code_training
from pipeline.metrics.likelihood import encode_split, recon_at_mean
from pipeline.metrics.report import density_metrics
from pipeline.metrics.samples import draw_images, pixel_means
from pipeline.params import load_params
from pipeline.vae.model import VAE, VAEConfig

PIXELS = torch.from_numpy((load_digits().images[:60, None] * 255 / 16).round().astype("uint8"))
CONFIG = VAEConfig((1, 8, 8), "mlp", (16,), "relu", 3, "bernoulli", 1.0)
PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate.model_copy(
    update={"importance_samples": 20, "amortisation_images": 6, "ais_images": 4, "ais_steps": 5, "ais_chains": 2}
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE(CONFIG).eval()


@pytest.fixture
def below(monkeypatch):
    """Calls images of more than so many values large; hears how many went through the networks in each call."""

    def limit(values, model):
        monkeypatch.setattr("pipeline.dataset.batches._SMALL", values)
        sizes = []
        model.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        model.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        return sizes

    return limit


def test_metrics_of_a_density_are_the_same(model, below):
    def measured():
        test, train = (encode_split(model, part, "dynamic", 0) for part in (PIXELS[:20], PIXELS[20:]))
        recon = recon_at_mean(model, test).mean().item()
        return density_metrics(model, test, train, PARAMS, Progress(disable=True)) | {"recon": recon}

    expected = measured()
    sizes = below(2, model)
    assert measured() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert max(sizes) == 48  # of 2,000 * 2 / 64 whole rows of 16 samples; of 1,000 log-weights 31


def test_samples_means_and_codes_are_the_same(model, below):
    class Stored:
        images, labels = PIXELS.numpy(), None

    def made():
        draws = draw_images(model, model.prior, 30, 0)
        return [draws.float(), pixel_means(model, torch.ones(30, 3)), *code_training(model, Stored, "none", 0)[:2]]

    expected = made()
    sizes = below(1, model)
    for found, whole in zip(made(), expected, strict=True):
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    assert max(sizes) == 15  # of 1,000 / 64
