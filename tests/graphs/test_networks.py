"""Every network reaches the exported files, and their int8 and fp16 copies."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.graphs.build import build_files
from pipeline.graphs.parity import check_parity, measure_parity
from pipeline.graphs.variants.half import to_half
from pipeline.graphs.variants.layers import ranges
from pipeline.graphs.variants.quantise import quantise, ranged_tensors
from pipeline.runtime import open_session
from pipeline.runtime.metadata import Metadata
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 8, 8), "mlp", (24, 16), "gated", 3, "bernoulli", "learned")
NETWORKS = {
    "gated and normalised": dataclasses.replace(CONFIG, normalization="layer"),
    "residual convolutions, normalised": dataclasses.replace(
        CONFIG, network="conv", hidden=(4, 6), activation="silu", normalization="layer", residual_blocks=1
    ),
}
NETWORKS["ladder"] = dataclasses.replace(
    CONFIG, network="ladder", activation="silu", normalization="layer", latent_dim=4, latent_groups=2
)
NETWORKS["ladder of convolutions"] = dataclasses.replace(
    NETWORKS["ladder"], hidden=(4, 6), latent_dim=40, latent_groups=4, group_network="conv"
)
DIGITS = (load_digits().images[:20] * 255 / 16).round().astype(np.uint8)


@pytest.fixture(scope="module", params=NETWORKS)
def made(request):
    torch.manual_seed(0)
    vae = VAE(NETWORKS[request.param]).eval()
    metadata = Metadata("", vae.config.latent_dim, (1, 8, 8), "bernoulli", "standard", "elbo", "", "", "", "")
    return vae, build_files(vae, metadata, 2, DIGITS[:, None])


def test_the_files_compute_what_torch_does(made):
    vae, files = made
    check_parity(measure_parity(files, vae, DIGITS[..., None]), 1e-5)


@pytest.mark.parametrize("variant", ["int8", "fp16"])
def test_the_decoder_has_copies_that_are_near_it(made, variant):
    vae, files = made
    decoder = onnx.load_from_string(files["decoder.onnx"])
    z = np.random.default_rng(0).standard_normal((64, vae.config.latent_dim), dtype=np.float32)
    if variant == "int8":
        copy = quantise(decoder, ranges(decoder, ranged_tensors(decoder.graph), z))
    else:
        copy = to_half(decoder)
    (x,), (expected,) = (
        open_session(content, "cpu").run(["x"], {"z": z})
        for content in (copy.SerializeToString(), files["decoder.onnx"])
    )
    np.testing.assert_allclose(x, expected, atol=0.03 if variant == "int8" else 0.002)
