import pytest
import torch
from flows import CONTEXT, MAKERS, back, flow_with, stir
from linear import LATENTS, give_exact_posterior, images, linear_vae, marginal, noise
from quadrature import assert_drawn_from, grid
from torch.distributions import Independent, Normal

from pipeline.vae.bounds import elbo, importance_samples, iw_bound
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.posteriors import DiagonalGaussian, Draw, FlowPosterior, repeat


@pytest.fixture(params=MAKERS)
def flow(request):
    return flow_with(request.param, LATENTS)


def moved_gaussian(flow, count=5):
    base = DiagonalGaussian(noise(count, LATENTS, seed=2), noise(count, LATENTS, seed=3) - 1)
    return FlowPosterior(base, flow, noise(count, CONTEXT, seed=4))


def gaussian():
    return DiagonalGaussian(noise(5, LATENTS, seed=2), noise(5, LATENTS, seed=3))


def test_a_draw_has_the_density_that_torch_gives_it():
    q = gaussian()
    draw = q.draw(noise(5, LATENTS))
    expected = Independent(Normal(q.mu, (0.5 * q.logvar).exp()), 1).log_prob(draw.z)
    torch.testing.assert_close(q.log_prob(draw), expected)


def test_the_closed_kl_is_the_mean_of_that_of_many_draws():
    q, prior = gaussian().repeat(20_000), linear_vae().prior
    draw = q.draw(noise(len(q.mu), LATENTS))
    estimate = (q.log_prob(draw) - prior.log_prob(draw.z)).view(5, -1)
    stderr = estimate.std(1) / 20_000**0.5
    assert q.has_closed_kl(prior)
    assert ((estimate.mean(1) - q.kl(draw, prior).view(5, -1)[:, 0]).abs() < 4 * stderr).all()


def test_a_repeated_posterior_is_that_of_repeated_images():
    vae, x = linear_vae(), images(3)
    found, expected = vae.posterior(x).repeat(4), vae.posterior(repeat(x, 4))
    torch.testing.assert_close(found.mu, expected.mu)
    torch.testing.assert_close(found.logvar, expected.logvar)


def test_a_moved_gaussian_lies_so_many_of_its_standard_deviations_away():
    q, shift, stretch = gaussian(), noise(5, LATENTS, seed=6), noise(5, LATENTS, seed=7)
    moved = q.moved(shift, stretch)
    torch.testing.assert_close((moved.mu - q.mu) / (0.5 * q.logvar).exp(), shift)
    torch.testing.assert_close(moved.logvar - q.logvar, stretch)


def test_a_detached_posterior_moves_with_z_alone():
    q = DiagonalGaussian(*(value.requires_grad_() for value in (noise(5, LATENTS, seed=2), noise(5, LATENTS, seed=3))))
    draw = q.draw(noise(5, LATENTS))
    constant = draw._replace(z=draw.z.detach().requires_grad_())
    q.detached().log_prob(constant).sum().backward()
    assert q.mu.grad is None
    assert constant.z.grad is not None


def log_density(q):
    """log q(z|x) of any z [n, latent_dim] under a flow's q of one example, by the way back."""

    def log_prob(z):
        many = q.repeat(len(z))
        start = back(q.flow, z, many.context)
        return many.base.log_prob(Draw(start)) - q.flow(start, many.context).log_diagonal.sum(1)

    return log_prob


@torch.no_grad()
def test_the_density_of_a_flow_integrates_to_one_in_two_dimensions(flow):
    points, area = grid(12.0, 400)
    assert (log_density(moved_gaussian(flow, 1))(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_draws_of_a_flow_match_its_density_and_know_it(flow):
    q = moved_gaussian(flow, 1)
    many = q.repeat(20_000)
    draw = many.draw(noise(20_000, LATENTS))
    torch.testing.assert_close(many.log_prob(draw), log_density(q)(draw.z))
    assert_drawn_from(draw.z, log_density(q))


@torch.no_grad()
def test_the_gaussian_that_stands_for_a_flow_has_at_its_mean_the_density_of_q(flow):
    q = moved_gaussian(flow)
    centre = q.draw(torch.zeros(5, LATENTS, dtype=torch.float64))
    torch.testing.assert_close(q.mu, centre.z)
    torch.testing.assert_close(DiagonalGaussian(q.mu, q.logvar).log_prob(centre), q.log_prob(centre))


@torch.no_grad()
def test_a_repeated_flow_is_that_of_repeated_images(flow):
    q, eps = moved_gaussian(flow), noise(20, LATENTS)
    found, each = q.repeat(4).draw(eps), [q.draw(eps[k::4]) for k in range(4)]
    torch.testing.assert_close(found.z, torch.stack([draw.z for draw in each], dim=1).flatten(0, 1))
    torch.testing.assert_close(found.log_q, torch.stack([draw.log_q for draw in each], dim=1).flatten())
    torch.testing.assert_close(q.repeat(4).mu, repeat(q.mu, 4))


@torch.no_grad()
def test_a_moved_flow_is_the_same_flow_of_a_moved_gaussian(flow):
    q, shift, stretch = moved_gaussian(flow, 1), noise(1, LATENTS, seed=6), noise(1, LATENTS, seed=7)
    moved = q.moved(shift, stretch)
    eps = noise(20_000, LATENTS)
    where = shift + (0.5 * stretch).exp() * eps  # the noise with which q itself draws the same z
    torch.testing.assert_close(moved.repeat(20_000).draw(eps).z, q.repeat(20_000).draw(where).z)
    assert_drawn_from(moved.repeat(20_000).draw(eps).z, log_density(moved))


def test_a_flow_is_asked_of_its_own_draws_alone(flow):
    with pytest.raises(ValueError, match="knows log q"):
        moved_gaussian(flow).log_prob(Draw(noise(5, LATENTS)))


@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_bounds_of_a_flow_posterior_approach_the_exact_likelihood_from_below(name):
    """ELBO <= IW_K <= log p(x) of the linear-Gaussian model, K = 2,000, with a flow between encoder and z."""
    vae, x = linear_vae(), images(6)
    give_exact_posterior(vae)
    vae.flow = flow_with(name, LATENTS, layers=2, wildness=0.15)
    head = vae.encoder[-1]
    wider = torch.nn.Linear(head.in_features, head.out_features + CONTEXT).double()
    wider.weight[: head.out_features], wider.bias[: head.out_features] = head.weight, head.bias
    vae.encoder[-1] = wider
    log_w = importance_samples(vae, x, vae.posterior(x), noise(6, 2_000, LATENTS)).log_w
    exact = marginal(vae).log_prob(x.flatten(1))
    assert (log_w.mean(1) < exact).all()
    assert log_w.mean(1).mean() < exact.mean() - 0.02
    torch.testing.assert_close(iw_bound(log_w), exact, atol=0.05, rtol=0)
    bound = elbo(vae, repeat(x, 2_000), noise(6, 2_000, LATENTS).flatten(0, 1))
    torch.testing.assert_close(bound.elbo.view(6, 2_000), log_w)


@pytest.mark.parametrize("name", MAKERS)
def test_the_encoder_tells_the_flow_of_the_image(name):
    """At the start a Gaussian; every part of the flow and of the encoder learns from the second step on."""
    torch.manual_seed(0)
    config = VAEConfig(
        (1, 4, 4), "mlp", (8,), "tanh", 3, "bernoulli", 1.0, posterior=name, flow_layers=2, flow_hidden=(6,)
    )
    vae = VAE(config).double()
    x = images(5).repeat(1, 1, 2, 2)[:, :, :4, :4]
    assert isinstance(vae.posterior(x), FlowPosterior)
    stir(vae)
    (-elbo(vae, x, noise(5, 3)).elbo).sum().backward()
    assert all(weights.grad.abs().max() > 0 for weights in vae.flow.parameters())
    assert (vae.encoder[-1].weight.grad.abs().max(1).values > 0).all()  # mu, logvar and each number of the context
