"""Every likelihood reaches the exported files: the parity gate, pixel means, the score and its error map."""

import numpy as np
import pytest
import torch

from pipeline.graphs.build import build_files
from pipeline.graphs.modules import score_noise
from pipeline.graphs.parity import check_parity, measure_parity
from pipeline.runtime import open_session
from pipeline.runtime.metadata import Metadata
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig

CASES = {
    "continuous_bernoulli": ("continuous_bernoulli", 1, "learned"),
    "gaussian of optimal sigma": ("gaussian", 1, "optimal"),
    "gaussian of each pixel's sigma in colour": ("gaussian", 3, "per_pixel"),
    "discretized_logistic in colour": ("discretized_logistic", 3, "learned"),
    "logistic_mixture": ("logistic_mixture", 1, "learned"),
    "logistic_mixture in colour": ("logistic_mixture", 3, "learned"),
}


@pytest.fixture(scope="module", params=CASES)
def made(request):
    likelihood, channels, sigma = CASES[request.param]
    config = VAEConfig((channels, 4, 5), "mlp", (8,), "relu", 3, likelihood, sigma, likelihood_components=2)
    torch.manual_seed(0)
    vae = VAE(config).eval()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(2)  # so that pixels differ
    metadata = Metadata("", 3, config.image_shape, likelihood, "standard", "elbo", "", "", "", "")
    validation = np.random.default_rng(1).integers(0, 256, (10, channels, 4, 5), dtype=np.uint8)
    return vae, build_files(vae, metadata, 2, validation)


def images_for(vae, n=9):
    channels, height, width = vae.config.image_shape
    images = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    images[0], images[1] = 0, 255
    return images


def test_the_files_compute_what_torch_does(made):
    vae, files = made
    check_parity(measure_parity(files, vae, images_for(vae)), 1e-5)


def test_the_decoder_gives_pixel_means(made):
    vae, files = made
    z = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    (x,) = open_session(files["decoder.onnx"], "cpu").run(["x"], {"z": z})
    assert x.shape == (50, *vae.config.image_shape)
    with torch.no_grad():
        draws = vae.likelihood.sample(vae.decode(torch.from_numpy(z[:1])).expand(20_000, -1, -1, -1))
    np.testing.assert_allclose(x[0], draws.mean(0).clip(0, 1), atol=0.03)
    assert 0 <= x.min() < x.max() <= 1


def test_the_error_map_sums_to_minus_recon_and_the_score_is_minus_the_elbo(made):
    vae, files = made
    images = images_for(vae)
    score, error = open_session(files["scorer.onnx"], "cpu").run(["score", "error"], {"images": images})
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        bounds = [elbo(vae, x, eps.expand(len(x), -1)) for eps in score_noise(2, 3)]
    assert error.shape == images.shape[:3]
    np.testing.assert_allclose(score, -torch.stack([bound.elbo for bound in bounds]).mean(0), rtol=1e-5)
    recon = torch.stack([bound.recon for bound in bounds]).mean(0)
    np.testing.assert_allclose(error.sum((1, 2), dtype=np.float64), -recon, rtol=1e-5, atol=1e-4)
