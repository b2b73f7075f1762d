import dataclasses
import json

import pytest
import torch

from pipeline.errors import UserError
from pipeline.vae.bounds import elbo
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.posteriors import reparameterize

CONFIG = VAEConfig((1, 28, 28), "mlp", (32, 16), "relu", 5, "bernoulli", "learned")


def vary(**changes):
    return dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        vary(hidden=()),
        vary(image_shape=(3, 5, 9), likelihood="gaussian", activation="tanh"),
        vary(network="conv", hidden=(4, 8), activation="silu"),
        vary(network="conv", hidden=(4,), image_shape=(3, 8, 8)),
        vary(network="conv", hidden=(4, 6, 8), image_shape=(3, 33, 50), likelihood="gaussian", sigma=0.1),
        vary(network="conv", hidden=(2, 2, 2, 2), image_shape=(1, 20, 28)),
    ],
    ids=str,
)
def test_shapes_for_every_network_size_and_channel_count(config):
    vae, x = VAE(config), torch.rand(3, *config.image_shape)
    mu, logvar = vae.encode(x)
    assert mu.shape == logvar.shape == (3, 5)
    assert vae.decode(mu).shape == x.shape
    assert all(term.shape == (3,) for term in elbo(vae, x, torch.zeros(3, 5)))


def test_pixel_means_lie_between_zero_and_one():
    vae = VAE(vary(likelihood="gaussian"))
    with torch.no_grad():
        means = vae.mean(1000 * torch.randn(4, 5))
    assert means.min() == 0
    assert means.max() == 1


def test_config_survives_json():
    assert VAEConfig.from_json(json.loads(json.dumps(dataclasses.asdict(CONFIG)))) == CONFIG


def test_a_config_without_the_scale_of_its_pixels_is_of_a_model_that_saw_2x_minus_1():
    content = dataclasses.asdict(CONFIG)
    del content["pixel_mean"], content["pixel_standard_deviation"]
    torch.manual_seed(0)
    vae, x = VAE(VAEConfig.from_json(content)), torch.rand(3, 1, 28, 28)
    expected = vae.encoder[2:]((2 * x - 1).flatten(1))[:, :5]
    torch.testing.assert_close(vae.encode(x)[0], expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pixel_mean", float("nan")),
        ("pixel_mean", "0.5"),
        ("pixel_standard_deviation", 0.0),
        ("pixel_standard_deviation", True),
    ],
)
def test_a_scale_of_pixels_that_is_none_is_refused(field, value):
    with pytest.raises(UserError, match=f"model.{field} is {value!r}; expected a number"):
        vary(**{field: value})


def test_config_with_an_unknown_field_is_refused():
    with pytest.raises(UserError, match="not a model's config: .*layers"):
        VAEConfig.from_json(dataclasses.asdict(CONFIG) | {"layers": 3})


@pytest.mark.parametrize(("field", "value"), [("network", "unet"), ("activation", "gelu")])
def test_unknown_parts_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"model.{field} is '{value}'; expected one of"):
        vary(**{field: value})


def test_conv_refuses_images_below_eight_pixels_and_names_the_way_out():
    with pytest.raises(UserError, match=r"images are 7x28; expected at least 8x8 .*prepare.image_size resizes"):
        VAE(vary(network="conv", hidden=(4,), image_shape=(1, 7, 28)))


@pytest.mark.parametrize(("height", "width", "most"), [(28, 28, 4), (8, 28, 3), (28, 9, 3)])
def test_conv_refuses_more_stages_than_the_shorter_side_can_be_halved(height, width, most):
    expected = f"model.hidden has {most + 1} stages; expected 1 to {most} for {height}x{width} images"
    with pytest.raises(UserError, match=expected):
        VAE(vary(network="conv", hidden=(4,) * (most + 1), image_shape=(1, height, width)))


def test_logvar_is_the_log_of_the_variance():
    z = reparameterize(torch.zeros(1), torch.full((1,), 4.0).log(), torch.ones(1))
    assert z.item() == pytest.approx(2)  # one standard deviation of a variance of 4


def test_densities_keep_full_precision_under_autocast():
    vae, x = VAE(CONFIG), torch.rand(2, 1, 28, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bound = elbo(vae, x, torch.zeros(2, 5))
    assert {term.dtype for term in bound} == {torch.float32}


LADDER = vary(network="ladder", latent_dim=4, latent_groups=2)
PLANES = vary(network="ladder", group_network="conv", hidden=(4,), latent_dim=196)
LABEL = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize("shift", [-1e12, -200.0, 200.0, 1e12])
@pytest.mark.parametrize(
    ("config", "name", "first"),
    [
        (CONFIG, "encoder.6.bias", 5),
        (vary(likelihood="gaussian"), "encoder.6.bias", 5),
        (vary(likelihood="gaussian", sigma="per_pixel"), "decoder.4.bias", 784),
        (LADDER, "encoder.heads.1.1.bias", 2),
        (LADDER, "decoder.priors.1.bias", 2),
        (PLANES, "encoder.heads.0.1.bias", 1),
        (PLANES, "decoder.priors.0.bias", 1),
        (vary(prior="mixture", prior_components=2), "prior.logvar", 0),
        (vary(prior="per_class", condition="label", classes=("ant", "bee")), "prior.logvar", 0),
    ],
    ids=["bernoulli", "gaussian", "per_pixel", "ladder_q", "ladder_p", "planes_q", "planes_p", "mixture", "per_class"],
)
def test_a_log_variance_out_of_hand_has_a_finite_bound_and_a_finite_gradient(shift, config, name, first):
    torch.manual_seed(0)
    vae = VAE(config)
    weights = vae.get_parameter(name)
    with torch.no_grad():
        weights[first:] = shift
    bound = elbo(vae, torch.rand(4, 1, 28, 28), torch.randn(4, config.latent_dim), LABEL if config.classes else None)
    assert all(term.isfinite().all() for term in bound)
    bound.elbo.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
    assert (weights.grad[first:] != 0).all()  # the way back is open
