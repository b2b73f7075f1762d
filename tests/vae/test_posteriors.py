import torch
from linear import LATENTS, images, linear_vae, noise
from torch.distributions import Independent, Normal

from pipeline.vae.posteriors import DiagonalGaussian, repeat


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


def test_a_detached_posterior_moves_with_z_alone():
    q = DiagonalGaussian(*(value.requires_grad_() for value in (noise(5, LATENTS, seed=2), noise(5, LATENTS, seed=3))))
    draw = q.draw(noise(5, LATENTS))
    constant = draw._replace(z=draw.z.detach().requires_grad_())
    q.detached().log_prob(constant).sum().backward()
    assert q.mu.grad is None
    assert constant.z.grad is not None
