"""Bounds against the exact likelihood of a linear-Gaussian model, which is probabilistic PCA (Tipping and Bishop)."""

import math

import numpy as np
import pytest
import torch
from linear import LATENTS, PIXELS, give_exact_posterior, images, linear_vae, marginal, noise

from pipeline.vae.bounds import elbo, importance_samples, iw_bound, iw_bound_of_groups
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.objectives import autoencoder_loss, beta_vae_loss


def draw(vae, x, samples, seed=1):
    with torch.no_grad():
        return importance_samples(vae, x, vae.posterior(x), noise(len(x), samples, LATENTS, seed=seed))


def test_every_importance_weight_of_the_exact_posterior_is_the_likelihood():
    vae, x = linear_vae(), images(5)
    give_exact_posterior(vae)
    expected = marginal(vae).log_prob(x.flatten(1))
    torch.testing.assert_close(draw(vae, x, 4).log_w, expected[:, None].expand(-1, 4))


def test_elbo_of_the_exact_posterior_equals_the_likelihood():
    vae, x = linear_vae(), images(5)
    give_exact_posterior(vae)
    with torch.no_grad():
        # The KL is analytic; recon is an expectation, taken here over many antithetic draws.
        eps = noise(200_000, LATENTS)
        bounds = [elbo(vae, x[:1].expand(len(eps), *PIXELS), sign * eps).elbo for sign in (1, -1)]
    expected = marginal(vae).log_prob(x[:1].flatten(1)).item()
    assert torch.stack(bounds).mean().item() == pytest.approx(expected, abs=0.01)


def test_elbo_is_recon_minus_kl():
    vae, x = linear_vae(), images(5)
    bound = elbo(vae, x, noise(5, LATENTS))
    assert bound.elbo.shape == (5,)
    torch.testing.assert_close(bound.elbo, bound.recon - bound.kl)


def test_importance_bound_rises_to_the_likelihood_from_below():
    vae, x = linear_vae(), images(40)
    exact = marginal(vae).log_prob(x.flatten(1)).mean().item()
    means = [iw_bound(draw(vae, x, samples).log_w).mean().item() for samples in (1, 10, 100, 5000)]
    assert means == sorted(means)
    assert means[0] < exact - 1
    assert means[-1] == pytest.approx(exact, abs=0.02)
    assert means[-2] < exact


def test_the_bound_of_fewer_samples_is_the_mean_over_disjoint_groups_of_the_same_weights():
    log_w = noise(3, 7)
    torch.testing.assert_close(iw_bound_of_groups(log_w, 7), iw_bound(log_w))
    torch.testing.assert_close(iw_bound_of_groups(log_w, 1), log_w.mean(1))
    by_hand = (iw_bound(log_w[:, :3]) + iw_bound(log_w[:, 3:6])) / 2  # the seventh is left over
    torch.testing.assert_close(iw_bound_of_groups(log_w, 3), by_hand)


def test_importance_bound_with_one_sample_averages_to_the_elbo():
    vae, x = linear_vae(), images(1)
    many = x.expand(100_000, *PIXELS)
    with torch.no_grad():
        bound = elbo(vae, many, noise(100_000, LATENTS, seed=2)).elbo
    single = iw_bound(draw(vae, many, 1).log_w)
    stderr = (single.var() / len(single) + bound.var() / len(bound)).sqrt().item()
    assert abs(single.mean().item() - bound.mean().item()) < 4 * stderr


def test_exactly_k_samples_are_used():
    vae, x = linear_vae(), images(3)
    assert draw(vae, x, 7).log_w.shape == (3, 7)
    log_w = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    expected = math.log((math.e + math.e**2 + math.e**4) / 3)
    assert iw_bound(log_w).item() == pytest.approx(expected, abs=1e-12)


def test_samples_of_different_images_do_not_mix():
    vae, x = linear_vae(), images(4)
    eps = noise(4, 6, LATENTS)
    with torch.no_grad():
        together = importance_samples(vae, x, vae.posterior(x), eps).log_w
        alone = importance_samples(vae, x[2:3], vae.posterior(x[2:3]), eps[2:3]).log_w
    torch.testing.assert_close(together[2:3], alone)


def test_training_approaches_the_closed_form_optimum():
    """Maximum likelihood of PPCA: the discarded eigenvalues' mean is the noise, log p(x) follows from the spectrum."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(LATENTS, 6, generator=generator, dtype=torch.float64) * 0.3
    x = torch.randn(400, LATENTS, generator=generator, dtype=torch.float64) @ mixing
    x = (x + 0.1 * torch.randn(400, 6, generator=generator, dtype=torch.float64) + 0.5).view(-1, *PIXELS)
    spectrum = np.linalg.eigvalsh(np.cov(x.flatten(1).numpy().T, bias=True))[::-1]
    noise_variance = spectrum[LATENTS:].mean()
    optimum = -0.5 * (6 * math.log(2 * math.pi) + np.log(spectrum[:LATENTS]).sum() + 4 * math.log(noise_variance) + 6)

    vae = linear_vae("learned")
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2500)
    for step in range(2500):
        optimizer.zero_grad()
        beta_vae_loss(elbo(vae, x, noise(len(x), LATENTS, seed=step)), beta=1.0).backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        reached = torch.stack([elbo(vae, x, noise(len(x), LATENTS, seed=-step)).elbo.mean() for step in range(1, 50)])
    assert reached.mean().item() == pytest.approx(optimum, abs=0.03)
    assert marginal(vae).log_prob(x.flatten(1)).mean().item() <= optimum + 1e-9
    assert torch.exp(vae.likelihood.logvar).item() == pytest.approx(noise_variance, rel=0.03)


def test_loss_equals_the_keras_loss_that_this_project_began_with():
    """mean(binary_crossentropy * original_dim - 0.5 * sum(1 + z_log_var - z_mean^2 - exp(z_log_var))), in numpy."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig((1, 4, 5), "mlp", (8,), "tanh", 3, "bernoulli", "learned")).double()
    x = torch.randint(0, 2, (6, 1, 4, 5), generator=torch.Generator().manual_seed(0)).double()
    eps = noise(6, 3)
    loss = beta_vae_loss(elbo(vae, x, eps), beta=1.0).item()

    with torch.no_grad():
        z_mean, z_log_var = (value.numpy() for value in vae.encode(x))
        z = z_mean + np.exp(z_log_var / 2) * eps.numpy()
        y = torch.sigmoid(vae.decode(torch.from_numpy(z))).flatten(1).numpy()
    target, original_dim = x.flatten(1).numpy(), 20
    binary_crossentropy = -(target * np.log(y) + (1 - target) * np.log(1 - y)).mean(1)
    keras = binary_crossentropy * original_dim - 0.5 * (1 + z_log_var - z_mean**2 - np.exp(z_log_var)).sum(1)
    assert loss == pytest.approx(keras.mean(), abs=1e-5)


def test_beta_weighs_the_kl_in_the_loss_alone():
    vae, x, eps = linear_vae(), images(5), noise(5, LATENTS)
    bound = elbo(vae, x, eps)
    difference = beta_vae_loss(bound, 3.0) - beta_vae_loss(bound, 1.0)
    torch.testing.assert_close(difference, 2 * bound.kl.mean())
    torch.testing.assert_close(beta_vae_loss(bound, 1.0), -bound.elbo.mean())


def test_autoencoder_loss_has_no_noise_and_no_kl():
    vae, x = linear_vae(), images(5)
    bound = elbo(vae, x, torch.zeros(5, LATENTS, dtype=torch.float64))
    expected = vae.likelihood.log_prob(x, vae.decode(vae.encode(x)[0])).mean()
    torch.testing.assert_close(autoencoder_loss(bound), -expected)
