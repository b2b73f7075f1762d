"""A hierarchical model between convolutions: 8x8 digits, two groups of 4x4 places and two of 2x2."""

import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.errors import UserError
from pipeline.vae.bounds import elbo
from pipeline.vae.densities import gaussian_kl_per_dimension
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.posteriors import Draw, repeat

CONFIG = VAEConfig((1, 8, 8), "ladder", (4, 6), "silu", 40, "bernoulli", 1.0, latent_groups=4, group_network="conv")
DIGITS = torch.from_numpy(load_digits().images[:, None] / 16)


@pytest.fixture(scope="module")
def vae():
    """Weights larger than at the start, so that q is neither the prior nor independent over its groups."""
    torch.manual_seed(0)
    vae = VAE(CONFIG).double().requires_grad_(requires_grad=False)
    for parameter in vae.parameters():
        parameter.mul_(1.1)
    return vae


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_groups_stand_at_several_resolutions_the_smallest_first(vae):
    assert vae.decoder.sizes == (4, 4, 16, 16)
    double = VAE(dataclasses.replace(CONFIG, latent_dim=80))
    assert double.decoder.sizes == (8, 8, 32, 32)
    assert [tuple(features.shape[1:]) for features in vae.encoder(DIGITS[:2])] == [
        (6, 2, 2),
        (6, 2, 2),
        (4, 4, 4),
        (4, 4, 4),
    ]


def test_a_group_depends_on_those_above_it_and_on_no_other(vae):
    q = vae.posterior(DIGITS[:1])
    eps = noise(1, 40)
    for place, start in enumerate((0, 4, 8, 24)):
        other = eps.clone()
        other[:, start] += 2
        moved = (q.draw(other).z - q.draw(eps).z).abs() > 1e-6
        assert not moved[:, :start].any()
        below = moved[:, start + vae.decoder.sizes[place] :]
        assert place == 3 or below.float().mean() > 0.5


def test_the_posterior_integrates_to_one(vae):
    """The mean of q(u|x) / p(u) over the prior's u is 1, seen of a q that is near the prior."""
    torch.manual_seed(0)
    near = VAE(CONFIG).double().requires_grad_(requires_grad=False)
    for head in near.encoder.heads:
        head[-1].weight.mul_(0.3)
    u = noise(2_000, 40)
    q = near.posterior(DIGITS[:1]).repeat(len(u))
    weights = (q.log_prob(Draw(u)) - near.prior.log_prob(u)).exp()
    assert weights.std() > 0.1
    assert (weights.mean() - 1).abs() < 4 * weights.std() / len(u) ** 0.5


def test_the_kl_of_the_draws_is_that_of_the_densities(vae):
    q = vae.posterior(DIGITS[:1]).repeat(2_000)
    draw = q.draw(noise(2_000, 40))
    given, plain = q.kl(draw, vae.prior), q.log_prob(draw) - vae.prior.log_prob(draw.z)
    difference = plain - given
    assert given.mean() > 0.5
    assert difference.mean().abs() < 4 * difference.std() / 2_000**0.5
    assert given.std() < plain.std()


def test_a_draw_brings_its_own_density_and_pixels(vae):
    q = vae.posterior(DIGITS[:4])
    draw = q.draw(noise(4, 40))
    torch.testing.assert_close(q.log_prob(draw), q.log_prob(Draw(draw.z)))
    torch.testing.assert_close(draw.parameters, vae.decode(draw.z))


def test_a_repeated_posterior_is_that_of_repeated_images(vae):
    found, expected = vae.posterior(DIGITS[:4]).repeat(3), vae.posterior(repeat(DIGITS[:4], 3))
    torch.testing.assert_close(found.draw(noise(12, 40)).z, expected.draw(noise(12, 40)).z)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_groups": 3}, "model.latent_groups is 3 while model.hidden has 2 stages; expected as many groups at"),
        (
            {"latent_dim": 64},
            r"model.latent_dim is 64; expected a multiple of 40, the places of all groups \(2 of 2x2, 2 of 4x4\)",
        ),
        ({"image_shape": (1, 7, 8)}, "images are 7x8; expected at least 8x8 for convolutions"),
        ({"group_network": "mlp"}, "model.group_network is 'mlp'; expected one of dense, conv"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        VAE(dataclasses.replace(CONFIG, **changes))


def test_all_groups_are_used_where_images_take_many_nats():
    """Binary digits take 3 to 5 nats, which one or two groups carry alone; with a sigma of 0.2 they take 9 to 11."""
    torch.manual_seed(0)
    vae = VAE(dataclasses.replace(CONFIG, hidden=(8, 8), likelihood="gaussian", sigma=0.2))
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    x = DIGITS[:500].float()
    for _ in range(200):
        optimizer.zero_grad()
        batch = x[torch.randint(len(x), (64,))]
        (-elbo(vae, batch, torch.randn(64, 40)).elbo.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        kl = gaussian_kl_per_dimension(*vae.encode(x)).mean(0)
    groups = torch.stack([part.sum() for part in kl.split(vae.decoder.sizes)])
    assert (groups > 0.1).all()
