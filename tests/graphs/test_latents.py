import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from pipeline.files import read_json
from pipeline.graphs import latents
from pipeline.graphs.build import build_files
from pipeline.runtime import Sampler
from pipeline.vae.bounds import elbo


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


def test_a_plain_auto_encoder_has_no_posterior_to_measure(mlp):
    metadata = dataclasses.replace(mlp.metadata, objective="autoencoder")
    files = build_files(mlp.vae, metadata, 4, validation(mlp))
    properties = {entry.key for entry in onnx.load_from_string(files["decoder.onnx"]).metadata_props}
    assert "objective" in properties
    assert "latent_kl" not in properties
