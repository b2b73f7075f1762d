"""Objectives on the linear-Gaussian model, whose posterior is known."""

import math

import pytest
import torch
from linear import LATENTS, PIXELS, SIGMA, give_exact_posterior, images, linear_vae, noise
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call

from pipeline.errors import UserError
from pipeline.vae.bounds import elbo, importance_samples, iw_bound
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.objectives import beta_vae_loss, noise_shape, objective, total_correlation


def gradient(vae, loss, part):
    """Of encoder or decoder, flat."""
    vae.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten().clone() for p in getattr(vae, part).parameters()])


def gradients(name, part, draws, k=5, beta=1.0, vae=None, together=1):
    """So many gradients, [draws, parameters], each the mean over so many draws of the noise of three images."""
    vae, x = vae or linear_vae(), images(3).repeat(together, 1, 1, 1)
    found = []
    for seed in range(draws):
        shape = (len(x), k, LATENTS) if name in ("iwae", "dreg") else (len(x), LATENTS)
        found.append(gradient(vae, objective(name, vae, x, noise(*shape, seed=seed), beta, 0.0).loss, part))
    return torch.stack(found)


def test_plain_elbo_is_the_loss_that_it_was():
    vae, x, eps = linear_vae(), images(5), noise(5, LATENTS)
    made = objective("elbo", vae, x, eps, 0.7, 0.0)
    assert made.loss.item() == beta_vae_loss(elbo(vae, x, eps), 0.7).item()


class Loss(nn.Module):
    """The loss of an objective as a function of the model's weights."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, name, x, eps, settings):
        return objective(name, self.vae, x, eps, 0.7, **settings).loss


@pytest.mark.parametrize(
    ("name", "settings"),
    [("elbo", {}), ("elbo", {"free_bits": 0.045}), ("elbo", {"sampled_kl": True}), ("iwae", {}), ("tc", {})],
    ids=["elbo", "free bits", "sampled kl", "iwae", "tc"],
)
def test_the_gradient_of_a_function_of_its_noise_is_that_of_finite_differences(name, settings):
    """By every weight. One of the two dimensions carries more than the free bits."""
    loss, x, eps = Loss(linear_vae("learned")), images(3), noise(3, *noise_shape(name, 4, LATENTS, 6))
    names, weights = zip(*loss.named_parameters(), strict=True)

    def moved(*weights):
        return functional_call(loss, dict(zip(names, weights, strict=True)), (name, x, eps, settings))

    assert gradcheck(moved, [value.detach().requires_grad_() for value in weights])


@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_the_loss_is_minus_the_importance_bound_of_exactly_k_samples(name):
    vae, x, eps = linear_vae(), images(4), noise(4, 6, LATENTS)
    made = objective(name, vae, x, eps, 1.0, 0.0)
    drawn = importance_samples(vae, x, vae.posterior(x), eps)
    torch.testing.assert_close(made.loss, -iw_bound(drawn.log_w).mean())
    torch.testing.assert_close(made.bound.elbo, drawn.log_w.mean(1))
    torch.testing.assert_close(made.bound.elbo, made.bound.recon - made.bound.kl)


def vamp_vae():
    """Its prior is made of the encoder too, whose gradient then comes by two ways."""
    torch.manual_seed(0)
    of_prior = {"prior": "vamp", "prior_components": 4}
    return VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", SIGMA, **of_prior)).double()


@pytest.mark.parametrize(
    ("make", "beta", "share"),
    [(linear_vae, 1.0, 0.7), (linear_vae, 0.5, 0.9), (vamp_vae, 1.0, 0.7)],
    ids=["plain", "half a beta", "vamp"],
)
def test_dreg_has_the_mean_of_iwaes_gradient_and_less_variance(make, beta, share):
    draws = 100
    plain, double = (gradients(name, "encoder", draws, 5, beta, make(), together=400) for name in ("iwae", "dreg"))
    stderr = ((plain.var(0) + double.var(0)) / draws).sqrt()
    assert ((plain.mean(0) - double.mean(0)).abs() < 5 * stderr + 1e-9).all()
    assert double.var(0).sum() < share * plain.var(0).sum()


def test_dreg_leaves_the_decoders_gradient_as_it_is():
    plain, double = (gradients(name, "decoder", 3) for name in ("iwae", "dreg"))
    torch.testing.assert_close(plain, double)


@pytest.mark.parametrize(
    ("make", "beta"), [(linear_vae, 1.0), (linear_vae, 0.5), (vamp_vae, 1.0)], ids=["plain", "half a beta", "vamp"]
)
def test_stl_has_the_mean_of_the_elbos_gradient(make, beta):
    """Both see the same noise, so that their difference has little of it."""
    draws = 100
    plain, stuck = (gradients(name, "encoder", draws, 1, beta, make(), together=1000) for name in ("elbo", "stl"))
    difference = plain - stuck
    assert (difference.mean(0).abs() < 5 * difference.std(0) / draws**0.5 + 1e-9).all()
    assert difference.std(0).max() < 0.03 * plain.mean(0).abs().max()


@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_at_the_exact_posterior_the_encoder_hears_no_noise(name):
    vae, x = linear_vae(), images(3)
    give_exact_posterior(vae)
    eps = noise(3, 5, LATENTS) if name == "dreg" else noise(3, LATENTS)
    quiet = gradient(vae, objective(name, vae, x, eps, 1.0, 0.0).loss, "encoder")
    other = gradient(vae, objective("elbo", vae, x, noise(3, LATENTS), 1.0, 0.0).loss, "encoder")
    assert quiet.abs().max() < 1e-9
    assert other.abs().max() > 1e-3


def test_a_sampled_kl_has_the_mean_of_the_closed_one_and_more_noise():
    vae, x = linear_vae(), images(3)
    losses = torch.tensor(
        [
            [objective("elbo", vae, x, eps, 0.7, sampled_kl=sampled).loss.item() for sampled in (False, True)]
            for eps in (noise(3, LATENTS, seed=seed) for seed in range(1000))
        ]
    )
    difference = losses[:, 1] - losses[:, 0]
    assert difference.mean().abs() < 4 * difference.std() / 1000**0.5
    assert difference.std() > 0.1


def test_total_correlation_is_that_of_the_mixture_of_the_posteriors():
    mu = torch.tensor([[-1.0, -1.2], [1.0, 0.8], [0.3, 0.9]], dtype=torch.float64)
    logvar = torch.tensor([[-1.0, -0.5], [-1.5, -1.0], [-2.0, -0.3]], dtype=torch.float64)
    axis = torch.linspace(-7, 7, 701, dtype=torch.float64)
    density = torch.exp(
        -0.5 * ((axis[:, None, None] - mu) ** 2 / logvar.exp() + logvar + math.log(2 * math.pi))
    )  # (grid, component, dimension)
    joint = torch.einsum("akx,bky->xyab", density, density)[0, 1] / 3
    marginals = density.mean(1)
    ratio = joint / (marginals[:, None, 0] * marginals[None, :, 1])
    exact = (joint * ratio.clamp_min(1e-300).log()).sum() * (axis[1] - axis[0]) ** 2
    means, variances = mu.repeat(700, 1), logvar.repeat(700, 1)
    found = total_correlation(means + (0.5 * variances).exp() * noise(2100, 2), means, variances)
    assert exact > 0.2
    assert (found.mean() - exact).abs() < 4 * found.std() / 2100**0.5


def test_with_beta_one_the_total_correlation_counts_as_in_the_elbo():
    vae, x, eps = linear_vae(), images(5), noise(5, LATENTS)
    one, four = (objective("tc", vae, x, eps, beta) for beta in (1.0, 4.0))
    torch.testing.assert_close(one.loss, objective("elbo", vae, x, eps, 1.0).loss)
    q = vae.posterior(x)
    correlation = total_correlation(q.draw(eps).z, q.mu, q.logvar).mean()
    torch.testing.assert_close(four.loss - one.loss, 3 * correlation)
    assert torch.equal(four.bound.elbo, one.bound.elbo)


def test_an_objective_that_does_not_exist_is_an_error():
    with pytest.raises(UserError, match="train.objective is 'elbow'; expected one of elbo, stl"):
        objective("elbow", linear_vae(), images(2), noise(2, LATENTS), 1.0)


def test_free_bits_let_a_dimension_carry_so_much_for_nothing():
    vae, x, eps = linear_vae(), images(5), noise(5, LATENTS)
    kl = vae.prior.kl_per_dimension(*vae.encode(x)).mean(0)
    recon = elbo(vae, x, eps).recon.mean()
    middle = kl.mean().item()  # between the two dimensions'
    made = objective("elbo", vae, x, eps, 1.0, middle)
    torch.testing.assert_close(made.loss, kl.max() + middle - recon)
    torch.testing.assert_close(made.bound.elbo, elbo(vae, x, eps).elbo)  # what is reported has no free bits
    torch.testing.assert_close(objective("elbo", vae, x, eps, 1.0, 1e-9).loss, kl.sum() - recon)


@pytest.mark.parametrize("name", ["elbo", "stl", "iwae", "dreg", "tc"])
@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_every_objective_teaches_every_part_under_every_prior(name, prior):
    torch.manual_seed(0)
    vae = VAE(VAEConfig((1, 4, 4), "mlp", (8,), "tanh", 2, "bernoulli", 1.0, prior=prior, prior_components=3))
    with torch.no_grad():  # the last layers of a flow start at zero, and nothing before them learns from the first step
        for parameter in vae.prior.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    eps = torch.randn(6, 3, 2) if name in ("iwae", "dreg") else torch.randn(6, 2)
    objective(name, vae, (torch.rand(6, 1, 4, 4) > 0.5).float(), eps, 1.0, 0.0).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in vae.prior.parameters())


def wake_sleep_noise(count, seed=1):
    return noise(count, *noise_shape("wake_sleep", 1, LATENTS, 6), seed=seed)


@pytest.mark.parametrize("part", ["decoder", "likelihood"])
def test_awake_the_decoder_learns_as_from_the_elbo(part):
    """With q as it is: the KL does not touch the decoder, and the waking z is that of the same noise."""
    vae, x, eps = linear_vae("learned"), images(5), wake_sleep_noise(5)
    awake = objective("wake_sleep", vae, x, eps, 1.0, 0.0)
    plain = objective("elbo", vae, x, eps[:, :LATENTS], 1.0, 0.0)
    torch.testing.assert_close(awake.bound.elbo, plain.bound.elbo)
    torch.testing.assert_close(gradient(vae, awake.loss, part), gradient(vae, plain.loss, part))


def test_asleep_the_encoder_rests_at_the_exact_posterior_and_nowhere_else():
    """There its gradient has mean 0: it is the score of p(z|x) over the model's own pairs."""

    def stderrs_from_zero(vae):
        losses = (objective("wake_sleep", vae, images(500), eps, 1.0, 0.0).loss for eps in noises)
        draws = torch.stack([gradient(vae, loss, "encoder") for loss in losses])
        return (draws.mean(0).abs() / (draws.std(0) / len(draws) ** 0.5)).max()

    noises = wake_sleep_noise(20 * 500).split(500)
    vae = linear_vae()
    assert stderrs_from_zero(vae) > 20
    give_exact_posterior(vae)
    assert stderrs_from_zero(vae) < 5


def test_the_encoder_sees_nothing_of_the_waking_images():
    vae, eps = linear_vae(), wake_sleep_noise(3)
    first, second = (
        gradient(vae, objective("wake_sleep", vae, images(3, seed), eps, 1.0, 0.0).loss, "encoder") for seed in (0, 1)
    )
    torch.testing.assert_close(first, second)
