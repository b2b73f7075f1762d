"""The hierarchical model against brute force: two binary pixels, two groups of one latent."""

import copy

import pytest
import torch
from linear import split
from sklearn.datasets import load_digits

from pipeline.errors import UserError
from pipeline.metrics.amortisation import amortisation_gap
from pipeline.vae.bounds import elbo, importance_samples, iw_bound
from pipeline.vae.densities import gaussian_kl_per_dimension
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.objectives import objective
from pipeline.vae.posteriors import Draw, repeat
from pipeline.vae.priors.normal import StandardNormal

CONFIG = VAEConfig((1, 1, 2), "ladder", (8,), "tanh", 2, "bernoulli", 1.0, latent_groups=2)
IMAGES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64).view(4, 1, 1, 2)
SIDE, STEP = torch.arange(-9, 9, 0.1, dtype=torch.float64), 0.1
GRID = torch.cartesian_prod(SIDE, SIDE)  # (points, 2)


@pytest.fixture(scope="module")
def vae():
    """Weights larger than at the start, so that q is neither the prior nor independent over its groups."""
    torch.manual_seed(0)
    vae = VAE(CONFIG).double().requires_grad_(requires_grad=False)
    for parameter in vae.parameters():
        parameter.mul_(1.3)
    return vae


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def integrate(log_density):
    """Over u: [points, ...] -> [...]."""
    return log_density.exp().sum(0) * STEP**2


def log_q(vae, x):
    """log q(u|x) of one image over the grid, [points]."""
    return vae.posterior(x).repeat(len(GRID)).log_prob(Draw(GRID))


def log_likelihoods(vae):
    """log p(x) of the four images, by quadrature over u."""
    parameters, log_prior = vae.decode(GRID), vae.prior.log_prob(GRID)
    log_p = [vae.likelihood.log_prob(x.expand(len(GRID), -1, -1, -1), parameters) for x in IMAGES[:, None]]
    return integrate(torch.stack(log_p, dim=1) + log_prior[:, None]).log()


def test_the_probabilities_of_all_images_sum_to_one(vae):
    assert log_likelihoods(vae).exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("place", range(4))
def test_the_posterior_integrates_to_one(vae, place):
    assert integrate(log_q(vae, IMAGES[place : place + 1])).item() == pytest.approx(1, abs=1e-4)


def test_the_second_group_depends_on_the_first(vae):
    q = vae.posterior(IMAGES[:1]).repeat(2)
    first = torch.tensor([[-2.0, 0], [2, 0]], dtype=torch.float64)
    assert (q.draw(first).z[0, 1] - q.draw(first).z[1, 1]).abs() > 0.05


def test_importance_weights_have_the_likelihood_as_their_mean(vae):
    log_w = importance_samples(vae, IMAGES, vae.posterior(IMAGES), noise(4, 20_000, 2)).log_w
    weights = log_w.exp()
    stderr = weights.std(1) / weights.shape[1] ** 0.5
    assert ((weights.mean(1) - log_likelihoods(vae).exp()).abs() < 4 * stderr).all()


def test_bounds_rise_with_samples_to_the_likelihood(vae):
    log_w = importance_samples(vae, IMAGES, vae.posterior(IMAGES), noise(4, 20_000, 2)).log_w
    one, ten, thousand = (iw_bound(log_w.view(-1, k)).view(4, -1).mean(1) for k in (1, 10, 1000))
    exact = log_likelihoods(vae)
    assert (one < ten).all()
    assert (ten < exact).all()
    torch.testing.assert_close(thousand, exact, atol=0.03, rtol=0)


def test_the_kl_of_the_draws_is_that_of_the_densities(vae):
    x, many = IMAGES[:1], 20_000
    density = log_q(vae, x)
    exact = (density.exp() * (density - vae.prior.log_prob(GRID))).sum() * STEP**2
    q = vae.posterior(x).repeat(many)
    draw = q.draw(noise(many, 2))
    given, plain = q.kl(draw, vae.prior), q.log_prob(draw) - vae.prior.log_prob(draw.z)
    for estimate in (given, plain):
        assert (estimate.mean() - exact).abs() < 4 * estimate.std() / many**0.5
    assert given.std() < plain.std()


def test_a_draw_brings_its_own_density_and_pixels(vae):
    q = vae.posterior(IMAGES)
    draw = q.draw(noise(4, 2))
    torch.testing.assert_close(q.log_prob(draw), q.log_prob(Draw(draw.z)))
    torch.testing.assert_close(draw.parameters, vae.decode(draw.z))
    bound = elbo(vae, IMAGES, noise(4, 2))
    torch.testing.assert_close(bound.recon, vae.likelihood.log_prob(IMAGES, vae.decode(draw.z)))
    torch.testing.assert_close(bound.kl, draw.kl_per_dimension.sum(1))


def test_the_mean_path_is_a_draw_without_noise(vae):
    q = vae.posterior(IMAGES)
    torch.testing.assert_close(q.draw(torch.zeros(4, 2, dtype=torch.float64)).z, q.mu)
    mu, logvar = vae.encode(IMAGES)
    torch.testing.assert_close((mu, logvar), (q.mu, q.logvar))


def test_a_repeated_posterior_is_that_of_repeated_images(vae):
    found, expected = vae.posterior(IMAGES).repeat(3), vae.posterior(repeat(IMAGES, 3))
    eps = noise(12, 2)
    torch.testing.assert_close(found.draw(eps).z, expected.draw(eps).z)


def test_gradients_of_the_posterior_agree_with_finite_differences(vae):
    vae = copy.deepcopy(vae).requires_grad_()
    u = noise(4, 2).requires_grad_()
    weights = tuple(vae.encoder.parameters())
    assert torch.autograd.gradcheck(lambda u, *_: vae.posterior(IMAGES).log_prob(Draw(u)), (u, *weights))


def test_a_moved_posterior_moves_each_group_wherever_those_above_it_are(vae):
    q, shift, stretch = vae.posterior(IMAGES[:1]), noise(1, 2), 0.5 * noise(2, 2)[1:]
    moved = q.moved(shift, stretch)
    assert integrate(moved.repeat(len(GRID)).log_prob(Draw(GRID))).item() == pytest.approx(1, abs=1e-4)
    eps = noise(50, 2)
    where = shift + (0.5 * stretch).exp() * eps  # the noise with which q itself draws the same u
    torch.testing.assert_close(moved.repeat(50).draw(eps).z, q.repeat(50).draw(where).z)


def test_a_posterior_that_is_moved_twice_has_gone_both_ways(vae):
    q, first, second = vae.posterior(IMAGES), (noise(4, 2), noise(8, 2)[4:]), (noise(12, 2)[8:], noise(16, 2)[12:])
    shift, stretch = (first[0] + (0.5 * first[1]).exp() * second[0], first[1] + second[1])
    once, twice = q.moved(shift, stretch), q.moved(*first).moved(*second)
    torch.testing.assert_close(twice.draw(noise(4, 2)), once.draw(noise(4, 2)))


def test_the_best_posterior_of_an_image_comes_closer_to_its_likelihood_and_not_beyond(vae):
    given = split(vae, IMAGES)
    gap = amortisation_gap(vae, given, torch.arange(4), 0)
    amortised = importance_samples(vae, IMAGES, vae.posterior(IMAGES), noise(4, 20_000, 2)).log_w.mean(1)
    above = log_likelihoods(vae) - amortised
    assert (gap > 0.5 * above).all()
    assert (gap < above + 0.01).all()


def test_the_prior_is_standard_in_whitened_latents(vae):
    assert isinstance(vae.prior, StandardNormal)
    assert vae.prior.latent_dim == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 3}, "model.latent_dim is 3; expected a multiple of model.latent_groups: 2"),
        ({"hidden": ()}, r"model.hidden is \[\]; expected at least one layer"),
        ({"prior": "mixture"}, "model.prior is 'mixture' while model.network is 'ladder'; expected standard"),
        ({"posterior": "iaf"}, "model.posterior is 'iaf' while model.network is 'ladder'; expected diagonal"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        VAEConfig(**{**vars(CONFIG), **changes})


def test_a_label_is_refused(vae):
    with pytest.raises(UserError, match="label is given; expected none"):
        vae.posterior(IMAGES, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("group_network", ["dense", "conv"])
def test_of_a_conditional_ladder_prior_and_posterior_know_the_class(group_network):
    torch.manual_seed(0)
    shape, sizes = ((1, 8, 8), {"latent_dim": 16, "latent_groups": 1}) if group_network == "conv" else ((1, 1, 2), {})
    changes = {
        "image_shape": shape,
        "group_network": group_network,
        "condition": "label",
        "classes": ("a", "b"),
    } | sizes
    vae = VAE(VAEConfig(**{**vars(CONFIG), **changes}))
    x, eps = torch.rand(2, *shape), torch.randn(2, vae.config.latent_dim)
    a, b = torch.tensor([0, 0]), torch.tensor([0, 1])
    of_a, of_b = vae.posterior(x, a).draw(eps), vae.posterior(x, b).draw(eps)
    torch.testing.assert_close(of_a.z[0], of_b.z[0])
    assert (of_a.z[1] - of_b.z[1]).abs().max() > 0.01
    torch.testing.assert_close(vae.decode(of_b.z, b), of_b.parameters)
    assert (vae.decode(of_b.z, a) - of_b.parameters).abs().max() > 0.01
    torch.testing.assert_close(vae.posterior(x, b).repeat(2).draw(repeat(eps, 2)).z, repeat(of_b.z, 2))
    with pytest.raises(UserError, match="label is missing; expected one of 2 classes"):
        vae.posterior(x)


def test_all_groups_are_used_after_a_few_steps():
    """A group that the KL closes at the start stays closed."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig((1, 8, 8), "ladder", (32,), "silu", 8, "bernoulli", 1.0, latent_groups=2))
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.003)
    x = torch.from_numpy(load_digits().images[:500, None] / 16).float()
    for _ in range(150):
        optimizer.zero_grad()
        (-elbo(vae, x, torch.randn(500, 8)).elbo.mean()).backward()
        optimizer.step()
    with torch.no_grad():
        mu, logvar = vae.encode(x)
    groups = gaussian_kl_per_dimension(mu, logvar).mean(0).view(2, 4).sum(1)
    assert (groups > 0.3).all()


def test_free_bits_floor_each_dimension_under_the_draw_of_the_groups_above(vae):
    eps = noise(4, 2)
    q = vae.posterior(IMAGES)
    kl = q.kl_per_dimension(q.draw(eps), vae.prior).mean(0)
    plain = elbo(vae, IMAGES, eps)
    torch.testing.assert_close(kl.sum(), plain.kl.mean())
    middle = kl.mean().item()  # between the two dimensions'
    made = objective("elbo", vae, IMAGES, eps, 2.0, middle)
    assert kl.min() < middle - 1e-3
    torch.testing.assert_close(made.loss, 2 * (kl.max() + middle) - plain.recon.mean())
    torch.testing.assert_close(made.bound, plain)  # what is reported has no free bits
