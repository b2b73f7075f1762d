"""A learned prior inside the exported graphs."""

import dataclasses
import functools

import numpy as np
import onnx
import pytest
import torch
from flows import stir
from scipy.stats import ks_2samp

from pipeline.errors import UserError
from pipeline.graphs.build import build_files
from pipeline.graphs.parity import check_parity, measure_parity
from pipeline.graphs.prior import graph_of, prior_z
from pipeline.graphs.variants.choice import finish_pair, latents
from pipeline.runtime import Sampler, open_session
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.noise import standard_normal
from pipeline.runtime.session import read_metadata
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.base import Prior
from pipeline.vae.priors.mixtures import FixedMixture, Mixture

LATENTS, COMPONENTS = 3, 4


@functools.cache
def make(prior, posterior="diagonal"):
    given = {"prior": prior, "prior_components": COMPONENTS, "posterior": posterior}
    flow = {"flow_layers": 3, "flow_hidden": (7, 6)}
    torch.manual_seed(0)
    vae = VAE(VAEConfig((1, 4, 5), "mlp", (8,), "relu", LATENTS, "bernoulli", "learned", **given, **flow)).eval()
    with torch.no_grad():
        vae.encoder[-1].weight.mul_(6)
        for part in (vae.flow, vae.prior if prior == "flow" else None):
            if part is not None:
                stir(part)
        if prior == "mixture":
            vae.prior.logits.copy_(torch.tensor([0.0, 1.0, 2.0, -3.0]))
            vae.prior.logvar.copy_(torch.randn(COMPONENTS, LATENTS) - 2)
    metadata = Metadata("", LATENTS, vae.config.image_shape, "bernoulli", prior, "elbo", "", "", "", "")
    validation = np.random.default_rng(1).integers(0, 256, (10, 1, 4, 5), dtype=np.uint8)
    return vae, build_files(vae, metadata, 2, validation)


@pytest.fixture(scope="module", params=["mixture", "vamp", "flow"])
def made(request):
    return make(request.param)


@pytest.fixture(scope="module", params=["mixture", "vamp"])
def mixture(request):
    return make(request.param)


@pytest.fixture(scope="module")
def flow():
    return make("flow")


def draw(files, n, seed=0, first=0, temperature=1.0):
    rows = {
        "seed": np.full(n, seed),
        "index": np.arange(first, first + n),
        "temperature": np.full(n, temperature, np.float32),
    }
    return open_session(files["sampler.onnx"], "cpu").run(["z"], rows)[0]


def test_the_files_compute_what_torch_does(made):
    vae, files = made
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 1), dtype=np.uint8)
    check_parity(measure_parity(files, vae, images), 1e-5)


@pytest.mark.parametrize(("prior", "posterior"), [("flow", "iaf"), ("mixture", "coupling")])
def test_so_they_do_with_a_flow_as_posterior(prior, posterior):
    vae, files = make(prior, posterior)
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 1), dtype=np.uint8)
    check_parity(measure_parity(files, vae, images), 1e-5)


@torch.no_grad()
def test_z_is_drawn_from_a_mixture(mixture):
    """Mean and covariance of many rows against those of the density, and each component by its weight."""
    vae, files = mixture
    log_weights, mu, logvar = (value.double() for value in vae.prior.mixture())
    weights, z = log_weights.exp(), torch.from_numpy(draw(files, 40_000)).double()
    mean = weights @ mu
    covariance = torch.diag(weights @ logvar.exp()) + (weights * (mu - mean).T) @ (mu - mean)
    torch.testing.assert_close(z.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(z.T.cov(), covariance, atol=0.08, rtol=0.05)
    nearest = torch.cdist(torch.from_numpy(draw(files, 40_000, temperature=0.0)).double(), mu).argmin(1)
    shares = torch.bincount(nearest, minlength=COMPONENTS) / 40_000
    torch.testing.assert_close(shares.double(), weights, atol=0.012, rtol=0)


@torch.no_grad()
def test_z_is_drawn_from_a_flow(flow):
    """Two sets of draws, the file's and the model's, compared along many directions (Kolmogorov and Smirnov)."""
    vae, files = flow
    expected = vae.prior.sample(20_000, torch.Generator().manual_seed(1)).numpy()
    found = draw(files, 20_000)
    directions = np.random.default_rng(0).normal(size=(LATENTS, 10))
    pairs = zip((found @ directions).T, (expected @ directions).T, strict=True)
    assert min(ks_2samp(*pair).pvalue for pair in pairs) > 1e-4


@torch.no_grad()
def test_temperature_scales_the_noise_of_a_flow(flow):
    vae, files = flow
    eps = torch.from_numpy(standard_normal(np.zeros(30, np.int64), np.arange(30), LATENTS))
    for temperature in (0.0, 0.7):
        expected = vae.prior.from_noise(temperature * eps).numpy()
        np.testing.assert_allclose(draw(files, 30, temperature=temperature), expected, atol=1e-5)


def test_z_is_a_function_of_the_rows_own_words(made):
    vae, files = made
    whole = draw(files, 64, seed=5)
    parts = [draw(files, 1, seed=5, first=first)[0] for first in range(0, 64, 9)]
    np.testing.assert_allclose(parts, whole[::9], atol=1e-6)
    expected = prior_z(vae.prior, np.full(64, 5), np.arange(64))
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@torch.no_grad()
def test_at_temperature_zero_every_row_is_the_centre_of_a_component(mixture):
    vae, files = mixture
    distance = torch.cdist(torch.from_numpy(draw(files, 50, temperature=0.0)), vae.prior.mixture().mu).min(1).values
    assert distance.max() < 1e-3  # of which most is the distance's own rounding


def test_the_runtime_draws_from_it_and_the_files_name_it(made, tmp_path):
    vae, files = made
    (tmp_path / "sampler.onnx").write_bytes(files["sampler.onnx"])
    sampler = Sampler(tmp_path / "sampler.onnx", "cpu")
    assert sampler.metadata.prior == vae.config.prior
    images = sampler.sample(20, seed=1)
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20


def test_the_graphs_hold_the_posteriors_of_pseudo_inputs_not_these(mixture):
    vae, files = mixture
    for name in ("sampler.onnx", "scorer.onnx"):
        stored = onnx.load_from_string(files[name]).graph.initializer
        assert any(sorted(tensor.dims) == [LATENTS, COMPONENTS] for tensor in stored)
        assert not any(tuple(tensor.dims) == (COMPONENTS, *vae.config.image_shape) for tensor in stored)


def test_a_sampler_around_another_decoder_keeps_the_prior(made):
    _, files = made
    decoder = onnx.load_from_string(files["decoder.onnx"])
    again = finish_pair(decoder, files, "int8")
    np.testing.assert_array_equal(draw(again, 30), draw(files, 30))


def test_the_ranges_of_int8_are_those_of_posterior_and_prior_however_far_from_0_they_lie(made):
    _, files = made
    images = np.random.default_rng(2).integers(0, 256, (400, 4, 5, 1), dtype=np.uint8)
    mu, logvar = open_session(files["encoder.onnx"], "cpu").run(["mu", "logvar"], {"images": images})
    of_posterior, of_prior = np.split(latents(files, images), 2)
    eps = (of_posterior - mu) / np.exp(logvar / 2)
    assert np.abs(eps.mean(0)).max() < 4 / np.sqrt(len(images))
    assert np.abs(eps.std(0) - 1).max() < 0.15
    np.testing.assert_array_equal(of_prior, draw(files, len(images), seed=1))


def test_a_sampler_of_the_aggregate_density_draws_from_it_and_leaves_the_rest_alone():
    vae, files = make("vamp")
    mixture = Mixture(
        torch.tensor([0.3, 0.7]).log(), torch.tensor([[4.0, 0.0, 0.0], [0.0, -4.0, 1.0]]), -torch.ones(2, LATENTS)
    )
    density = FixedMixture(mixture)
    metadata = Metadata("", LATENTS, vae.config.image_shape, "bernoulli", vae.config.prior, "elbo", "", "", "", "")
    metadata = dataclasses.replace(metadata, aggregate_components=2)
    validation = np.random.default_rng(1).integers(0, 256, (10, 1, 4, 5), dtype=np.uint8)
    other = build_files(vae, metadata, 2, validation, density)
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 1), dtype=np.uint8)
    check_parity(measure_parity(other, vae, images, density), 1e-5)
    with pytest.raises(UserError, match="sampler_z_max_abs_error"):
        check_parity(measure_parity(other, vae, images), 1e-5)
    z = torch.from_numpy(draw(other, 20_000))
    torch.testing.assert_close(z.mean(0), mixture.log_weights.exp() @ mixture.mu, atol=0.06, rtol=0)
    assert (z[:, 0] > 2).float().mean().item() == pytest.approx(0.3, abs=0.02)
    read = read_metadata(open_session(other["sampler.onnx"], "cpu"), "sampler.onnx")
    assert (read.aggregate_components, read.prior) == (2, vae.config.prior)
    assert finish_pair(onnx.load_from_string(other["decoder.onnx"]), other, "int8")
    run = [open_session(made["scorer.onnx"], "cpu").run(["score"], {"images": images})[0] for made in (files, other)]
    np.testing.assert_array_equal(*run)


def test_a_prior_without_a_graph_is_no_standard_normal():
    with pytest.raises(TypeError, match="Prior has no graph"):
        graph_of(Prior(LATENTS))
