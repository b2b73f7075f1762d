"""A conditional model in its exported files: the class goes in as `label`, int64 [n]."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from conditional import DECODER
from onnx import parser
from sklearn.datasets import load_digits

from pipeline.graphs import parity
from pipeline.graphs.build import build_files
from pipeline.graphs.detection import measure_auroc, measure_detection
from pipeline.graphs.labels import labels_entry
from pipeline.graphs.manifest import build_manifest
from pipeline.graphs.onnx_export import finish
from pipeline.graphs.parity import check_parity, measure_parity
from pipeline.graphs.prior import graph_of
from pipeline.graphs.sampler import sampler_model
from pipeline.graphs.triton import model_config
from pipeline.graphs.variants.bound import DecoderBound
from pipeline.graphs.variants.choice import finish_pair, latents
from pipeline.graphs.variants.half import to_half
from pipeline.graphs.variants.layers import ranges
from pipeline.graphs.variants.quality import Yardstick
from pipeline.graphs.variants.quantise import quantise, ranged_tensors
from pipeline.runtime import Sampler, open_session
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.noise import standard_normal
from pipeline.runtime.session import read_metadata
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.priors.class_mixtures import MixturePerClass
from pipeline.vae.priors.mixtures import Mixture
from pipeline.vae.priors.normal import PerClass

NAMES = ("ant", "bee", "cat")
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
LABELS = np.arange(60) % 3
DIGITS = load_digits(n_class=3)
CONFIG = VAEConfig(
    (1, 8, 8), "mlp", (16, 12), "silu", 3, "bernoulli", "learned", condition="label", classes=NAMES, latent_groups=3
)
KINDS = {
    "mlp, a VampPrior": replace(CONFIG, prior="vamp", prior_components=5),
    "conv, a prior for each class": replace(CONFIG, network="conv", hidden=(6, 4), prior="per_class"),
    "ladder": replace(CONFIG, network="ladder"),
    "ladder of convolutions": replace(
        CONFIG, network="ladder", group_network="conv", hidden=(6, 4), latent_dim=20, latent_groups=2
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request):
    torch.manual_seed(0)
    config = KINDS[request.param]
    vae = VAE(config).eval()
    factor = 1 if config.network == "ladder" else 2  # doubled, three groups in a row give logits of 350
    spread = 0.1 if config.group_network == "conv" else 0.3  # at 0.3 nine weights a plane give logits of 9,500
    with torch.no_grad():
        for parameter in (*vae.decoder.parameters(), *vae.prior.parameters(), vae.encoder.class_bias.weight):
            parameter.mul_(factor).add_(spread * torch.randn_like(parameter))
    made_of = (config.latent_dim, config.image_shape, config.likelihood, config.prior)
    metadata = Metadata("", *made_of, "elbo", "da7a" * 16, "9a3a" * 16, "0fb6cfb", "8f14e45f")
    return vae, build_files(vae, metadata, 2, IMAGES, labels=LABELS)


@pytest.fixture
def folder(made, tmp_path):
    for name, content in made[1].items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "manifest.json").write_text(json.dumps(build_manifest(made[1])))
    return tmp_path


def test_every_file_computes_what_torch_does_of_every_class(made, monkeypatch):
    vae, files = made
    images = np.moveaxis(IMAGES, 1, -1)
    check_parity(measure_parity(files, vae, images), 1e-4)
    digits = (DIGITS.images[:60, ..., None] * 255 / 16).round().astype(np.uint8)
    check_parity(measure_parity(files, vae, digits), 1e-4)
    for network, name in ((vae.decoder, "decoder_max_abs_error"), (vae.encoder, "encoder_max_abs_error")):
        with torch.no_grad(), monkeypatch.context() as patch:
            network.class_bias.weight[2] += 1  # a fault that one class alone has is seen
            try:
                assert measure_parity(files, vae, images)[name] > 1e-2
                patch.setattr(parity, "in_turn", lambda classes, count: np.zeros(count, np.int64))
                assert measure_parity(files, vae, images)[name] < 1e-4
            finally:
                network.class_bias.weight[2] -= 1


def test_the_sampler_draws_the_class_it_is_asked_for_by_name(made, folder):
    vae, _ = made
    sampler = Sampler(folder, "cpu")
    assert sampler.labels == NAMES
    z = sampler.latents(20, seed=3, label="cat")
    with torch.no_grad():
        means = vae.mean(torch.from_numpy(z), torch.full((20,), 2)).numpy()
    found = sampler.sample(20, seed=3, label="cat").astype(int)
    assert np.abs(found[..., 0] - np.rint(means[:, 0] * 255)).max() <= 1
    assert np.abs(found - sampler.sample(20, seed=3, label="ant")).max() > 5


def test_the_sampler_draws_each_class_from_a_mixture_that_was_fitted_to_its_codes(made):
    vae, files = made
    shape = (3, 4, vae.config.latent_dim)
    generator = torch.Generator().manual_seed(0)
    logits, mu, logvar = torch.randn(shape[:2], generator=generator), *torch.randn(2, *shape, generator=generator)
    density = MixturePerClass(Mixture(logits.log_softmax(1), 5 * mu, logvar - 4))
    decoder = onnx.load_model_from_string(files["decoder.onnx"])
    metadata = read_metadata(open_session(files["sampler.onnx"], "cpu"), "sampler.onnx")
    sampler = finish(sampler_model(decoder, shape[2], graph_of(density)), metadata, labels_entry(NAMES))
    images = np.moveaxis(IMAGES, 1, -1)
    errors = [measure_parity(files | {"sampler.onnx": sampler}, vae, images, of) for of in (density, None)]
    assert errors[0]["sampler_z_max_abs_error"] < 1e-5 < 1 < errors[1]["sampler_z_max_abs_error"]
    assert errors[0]["sampler_split_max_grey_levels"] <= 1
    rows = {"seed": np.zeros(9000, np.int64), "index": np.arange(9000), "temperature": np.ones(9000, np.float32)}
    (z,) = open_session(sampler, "cpu").run(["z"], rows | {"label": rows["index"] % 3})
    for place in range(3):
        nearest = torch.cdist(torch.from_numpy(z[place::3]), density.mu[place]).argmin(1)
        shares = torch.bincount(nearest, minlength=4) / 3000
        torch.testing.assert_close(shares, density.log_weights[place].exp(), atol=0.04, rtol=0)


def density_of_classes(components):
    """A Gaussian for each of three classes, or a mixture; of two dimensions."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 3, components, 2, generator=generator)
    if components > 1:
        return MixturePerClass(Mixture(torch.zeros(3, components).log_softmax(1), mu, logvar)), mu, logvar
    gaussians = PerClass(2, 3)
    gaussians.load_state_dict({"mu": mu[:, 0], "logvar": logvar[:, 0]})
    return gaussians, mu, logvar


@pytest.mark.parametrize("components", [1, 4])
def test_temperature_scales_the_distance_from_the_centre_that_a_row_of_a_class_has(components):
    density, mu, logvar = density_of_classes(components)
    metadata = Metadata("sampler", 2, (1, 2, 2), "bernoulli", "per_class", "elbo", "", "", "", "")
    sampler = finish(sampler_model(parser.parse_model(DECODER % 2), 2, graph_of(density)), metadata)
    session = open_session(sampler, "cpu")
    rows = {"seed": np.full(60, 3), "index": np.arange(60), "label": LABELS}

    def z(temperature):
        return torch.from_numpy(session.run(["z"], rows | {"temperature": np.full(60, temperature, np.float32)})[0])

    places = LABELS, (z(0.0)[:, None] - mu[LABELS]).norm(dim=2).argmin(1)
    assert len(set(zip(LABELS, places[1].tolist(), strict=True))) == 3 * components
    torch.testing.assert_close(z(0.0), mu[places])
    eps = torch.from_numpy(standard_normal(rows["seed"], rows["index"], 2))
    torch.testing.assert_close(z(0.7), mu[places] + 0.7 * torch.exp(0.5 * logvar[places]) * eps)


def test_the_scale_of_scores_is_that_of_images_of_their_own_classes(made, folder):
    _, files = made
    session = open_session(files["scorer.onnx"], "cpu", name="scorer.onnx")
    levels = json.loads(session.get_modelmeta().custom_metadata_map["score_quantiles"])
    asked = {"images": np.moveaxis(IMAGES, 1, -1), "label": LABELS}
    assert max(levels["scores"]) <= session.run(["score"], asked)[0].max() + 1e-3
    score, _ = Sampler(folder, "cpu").score(asked["images"][:1], label="bee")
    assert score[0] == pytest.approx(session.run(["score"], {"images": asked["images"][:1], "label": [1]})[0][0])


def test_the_manifest_names_the_classes_and_triton_knows_the_input(made):
    _, files = made
    manifest = build_manifest(files)
    assert manifest["labels"] == list(NAMES)
    assert "labels" not in manifest["metadata"]
    for name, content in files.items():
        assert '{ name: "label", data_type: TYPE_INT64, dims: [ 1 ]' in model_config(name, content)


def test_smaller_arithmetic_knows_the_classes_too(made):
    vae, files = made
    decoder = onnx.load_model_from_string(files["decoder.onnx"])
    z = latents(files, np.moveaxis(IMAGES, 1, -1), LABELS)
    made_of = ranges(decoder, ranged_tensors(decoder.graph), z, np.tile(LABELS, 2))
    x, label = torch.from_numpy(IMAGES / 255).float(), torch.from_numpy(LABELS)
    yardstick = Yardstick(files, DecoderBound(vae, "elbo", x, label), np.moveaxis(IMAGES, 1, -1))
    for variant, smaller in (("int8", quantise(decoder, made_of)), ("fp16", to_half(decoder))):
        pair = finish_pair(smaller, files, variant)
        assert json.loads(open_session(pair["sampler.onnx"], "cpu").get_modelmeta().custom_metadata_map["labels"])
        found = yardstick.measure(pair, "cpu")
        assert found.psnr > 25
        assert abs(found.loss.value) < 1


def test_strange_images_are_told_by_the_class_that_finds_them_least_strange(made):
    _, files = made
    score = open_session(files["scorer.onnx"], "cpu", name="scorer.onnx").run
    strange = 255 - IMAGES[:30] // 2
    least = [
        np.min([score(["score"], {"images": some, "label": np.full(len(some), y)})[0] for y in range(3)], axis=0)
        for some in (np.moveaxis(IMAGES, 1, -1), np.moveaxis(strange, 1, -1))
    ]
    found = measure_detection(files["scorer.onnx"], IMAGES, strange, 500, LABELS)
    assert found.held_out.value == pytest.approx(measure_auroc(*least).value)


def test_without_classes_a_file_has_no_such_entry(mlp):
    for name, content in mlp.files.items():
        assert "labels" not in open_session(content, "cpu", name=name).get_modelmeta().custom_metadata_map
