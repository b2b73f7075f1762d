import onnx
import pytest
import torch

from pipeline.graphs.variants.bound import SAMPLES, DecoderBound
from pipeline.graphs.variants.layers import PARAMETERS, expose
from pipeline.vae.bounds import elbo, importance_samples, iw_bound


def exposed(exported):
    return expose(onnx.load_from_string(exported.files["decoder.onnx"]), [PARAMETERS])


@pytest.fixture
def x(exported):
    return torch.rand(150, *exported.vae.config.image_shape, generator=torch.Generator().manual_seed(0)).round()


def test_the_bound_of_the_float32_decoder_is_that_of_the_model(exported, x):
    vae = exported.vae
    with torch.no_grad():
        eps = torch.randn(len(x), SAMPLES, vae.config.latent_dim, generator=torch.Generator().manual_seed(0))
        expected = iw_bound(importance_samples(vae, x, vae.posterior(x), eps).log_w)
    found = DecoderBound(vae, "elbo", x).of(exposed(exported), "cpu")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_of_a_plain_auto_encoder_it_is_recon_at_the_mean(exported, x):
    with torch.no_grad():
        expected = elbo(exported.vae, x, torch.zeros(len(x), exported.vae.config.latent_dim)).recon
    found = DecoderBound(exported.vae, "autoencoder", x).of(exposed(exported), "cpu")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
