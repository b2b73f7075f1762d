import dataclasses

import pytest
import torch

from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.networks import LayerNorm2d, Layout, PixelScale, ResidualBlock, Standardize, mlp_encoder

CONFIG = VAEConfig((1, 8, 9), "mlp", (16, 12), "gated", 3, "bernoulli", "learned")
NETWORKS = {
    "gated": CONFIG,
    "normalised": dataclasses.replace(CONFIG, activation="silu", normalization="layer"),
    "gated and normalised": dataclasses.replace(CONFIG, normalization="layer"),
    "ladder": dataclasses.replace(CONFIG, network="ladder", latent_dim=4, latent_groups=2),
    "ladder of convolutions": dataclasses.replace(
        CONFIG, network="ladder", hidden=(4, 6), latent_dim=52, latent_groups=4, group_network="conv"
    ),
    "residual": dataclasses.replace(
        CONFIG, network="conv", hidden=(4, 6), activation="silu", normalization="layer", residual_blocks=2
    ),
    "convolutions, gated": dataclasses.replace(CONFIG, network="conv", hidden=(4, 6)),
    "convolutions, normalised": dataclasses.replace(CONFIG, network="conv", hidden=(4, 6), normalization="layer"),
}


@pytest.fixture(params=NETWORKS)
def vae(request):
    torch.manual_seed(0)
    vae = VAE(NETWORKS[request.param])
    if vae.config.network == "ladder":
        torch.nn.init.normal_(vae.decoder.start)  # it starts at zero, and weights that multiply it learn a step later
    return vae


def test_a_gated_layer_is_a_product_with_its_own_sigmoid():
    torch.manual_seed(0)
    network = mlp_encoder((1, 2, 2), Layout([3], "gated"), outputs=1)
    x = torch.rand(5, 1, 2, 2)
    a, b = network[2](2 * x.flatten(1) - 1).chunk(2, dim=1)
    torch.testing.assert_close(network[:4](x), a * torch.sigmoid(b))


def test_units_are_normalised_before_the_activation():
    torch.manual_seed(0)
    network = mlp_encoder((1, 2, 2), Layout([64], "silu", "layer"), outputs=1)
    units = network[:4](1000 * torch.rand(5, 1, 2, 2))
    torch.testing.assert_close(units.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(units.var(1, correction=0), torch.ones(5))


def test_a_norm_along_the_last_axis_is_that_of_one_group():
    torch.manual_seed(0)
    norm = LayerNorm2d(3).double()
    norm.weight.data, norm.bias.data = torch.rand(2, 3, dtype=torch.float64)
    x = torch.rand(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    leaves, weights = (x, norm.weight, norm.bias), torch.rand_like(x)
    ways = [way(x) for way in (norm.along_last, torch.nn.GroupNorm.forward.__get__(norm))]
    torch.testing.assert_close(*ways)
    for found, expected in zip(*(torch.autograd.grad((way * weights).sum(), leaves) for way in ways), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_norm_along_the_last_axis_keeps_the_precision_and_the_order_of_its_input():
    x = torch.rand(4, 3, 5, 2, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normal = LayerNorm2d(3).along_last(x)
    assert normal.dtype == torch.bfloat16
    assert normal.is_contiguous(memory_format=torch.channels_last)


def test_standardised_pixels_have_mean_zero_and_variance_one():
    x = torch.rand(1000, dtype=torch.float64) * 0.3 + 0.1
    deviation, mean = torch.std_mean(x, correction=0)
    seen = Standardize(PixelScale(mean.item(), deviation.item()))(x)
    torch.testing.assert_close(torch.std_mean(seen, correction=0), (torch.ones_like(mean), torch.zeros_like(mean)))


def test_every_network_sees_pixels_by_the_scale_of_its_config(vae):
    """x under mean m and deviation s is what s x + m is under 0 and 1."""
    other = VAE(dataclasses.replace(vae.config, pixel_mean=0.25, pixel_standard_deviation=0.125))
    plain = VAE(dataclasses.replace(vae.config, pixel_mean=0.0, pixel_standard_deviation=1.0))
    for model in (other, plain):
        model.load_state_dict(vae.state_dict())
    x = torch.rand(4, *vae.config.image_shape)
    torch.testing.assert_close(other.encode(0.125 * x + 0.25), plain.encode(x))


def test_an_image_is_encoded_alone(vae):
    """No layer may look at the batch: a row of an exported file stands alone."""
    x = torch.rand(4, *vae.config.image_shape)
    torch.testing.assert_close(vae.encode(x)[0][:1], vae.encode(x[:1])[0])
    z = torch.randn(4, vae.config.latent_dim)
    torch.testing.assert_close(vae.decode(z)[:1], vae.decode(z[:1]))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_every_weight_learns(vae, bf16):
    x, eps = torch.rand(4, *vae.config.image_shape), torch.randn(4, vae.config.latent_dim)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        bound = elbo(vae, x, eps)
    bound.elbo.mean().backward()
    assert bound.elbo.dtype == torch.float32
    assert not [name for name, weight in vae.named_parameters() if not weight.grad.abs().sum() > 0]


def test_a_residual_block_adds_to_what_it_is_given():
    torch.manual_seed(0)
    block = ResidualBlock(3, Layout([3], "silu", "layer", 1))
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(block(x) - x, block.layers(x))
    torch.nn.init.zeros_(block.layers[-1].weight)
    torch.nn.init.zeros_(block.layers[-1].bias)
    torch.testing.assert_close(block(x), x)
