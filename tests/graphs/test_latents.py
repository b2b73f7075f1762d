import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from pipeline.files import read_json
from pipeline.graphs import latents
from pipeline.graphs.build import build_files
from pipeline.graphs.manifest import build_manifest
from pipeline.runtime import Sampler
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.session import open_session
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig


def validation(exported, n=40):
    """Those that the fixture's files were scaled on."""
    return np.random.default_rng(1).integers(0, 256, (n, *exported.metadata.image_shape), dtype=np.uint8)


def test_the_kl_of_the_dimensions_sums_to_that_of_the_bound(exported):
    x = torch.from_numpy(validation(exported)) / 255
    with torch.no_grad():
        expected = elbo(exported.vae, x, torch.zeros(len(x), 3)).kl.mean().item()
    assert sum(Sampler(exported.folder, "cpu").metadata.latent_kl) == pytest.approx(expected, rel=1e-3)


def test_every_file_and_the_manifest_carry_the_kl_of_each_dimension(mlp):
    expected = read_json(mlp.folder / "manifest.json")["latent_kl"]
    assert len(expected) == 3
    assert min(expected) > 0
    for content in mlp.files.values():
        properties = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
        assert json.loads(properties["latent_kl"]) == expected


def test_the_kl_is_the_same_whatever_the_batches(mlp, monkeypatch):
    measured = latents.measure_latent_kl(mlp.files["encoder.onnx"], mlp.vae.prior, validation(mlp))
    monkeypatch.setattr(latents, "IMAGES_TOGETHER", 7)
    in_parts = latents.measure_latent_kl(mlp.files["encoder.onnx"], mlp.vae.prior, validation(mlp))
    assert in_parts == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("kind", ["vamp", "per_class"])
def test_the_scale_of_a_learned_z_is_that_of_the_sampler_s_draws(kind, tmp_path):
    torch.manual_seed(0)
    classes = ("cat", "dog") if kind == "per_class" else ()
    of_prior = {"prior": kind, "prior_components": 4, "condition": "label" if classes else "none", "classes": classes}
    vae = VAE(VAEConfig((1, 4, 4), "mlp", (8,), "relu", 3, "bernoulli", 1.0, **of_prior)).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(torch.randn_like(parameter))
    labels = np.arange(40) % 2 if classes else None
    metadata = Metadata("", 3, (1, 4, 4), "bernoulli", kind, "elbo", "d", "p", "g", "m")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8).transpose(0, 3, 1, 2)
    files = build_files(vae, metadata, 4, pixels, labels=labels)
    told = Metadata.from_strings(properties_of(files["sampler.onnx"]), "sampler.onnx")
    n = 20_000
    rows = {"seed": np.zeros(n, np.int64), "index": np.arange(n), "temperature": np.ones(n, np.float32)}
    rows |= {"label": np.arange(n) % 2} if classes else {}
    (z,) = open_session(files["sampler.onnx"], "cpu", name="sampler.onnx").run(["z"], rows)
    assert z.mean(0) == pytest.approx(np.array(told.latent_mean), abs=0.03 * max(told.latent_deviation))
    assert z.std(0) == pytest.approx(np.array(told.latent_deviation), rel=0.03)
    assert json.loads(json.dumps(build_manifest(files)))["latent_deviation"] == list(told.latent_deviation)


def test_of_a_standard_normal_z_no_scale_is_told(mlp):
    assert not {"latent_mean", "latent_deviation"} & properties_of(mlp.files["decoder.onnx"]).keys()
    assert read_json(mlp.folder / "manifest.json")["latent_mean"] is None


def properties_of(content):
    return {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}


def test_a_plain_auto_encoder_has_no_posterior_to_measure(mlp):
    metadata = dataclasses.replace(mlp.metadata, objective="autoencoder")
    files = build_files(mlp.vae, metadata, 4, validation(mlp))
    properties = {entry.key for entry in onnx.load_from_string(files["decoder.onnx"]).metadata_props}
    assert "objective" in properties
    assert "latent_kl" not in properties
