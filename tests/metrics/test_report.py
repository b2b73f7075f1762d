"""What is told of a model as a density, against what can be reckoned by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from linear import LATENTS, SIGMA, conditional_linear_vae, images, linear_vae, split
from rich.progress import Progress
from scipy.stats import norm

from pipeline.dataset.noise import stream_key
from pipeline.metrics.aggregate import draw_codes, fitted_marginal_kl
from pipeline.metrics.ais import Annealing, estimate_ais
from pipeline.metrics.likelihood import Estimates, estimate
from pipeline.metrics.report import ais_metrics, information_metrics, likelihood_metrics, train_test_gap
from pipeline.metrics.streams import Stream
from pipeline.params import load_params

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate


def test_the_prior_of_all_classes_is_held_against_the_codes_of_each():
    """Posteriors of three classes that lie apart: KL(q(z|y) || p(z)) is KL(q(z) || p(z)) + log 3, on average."""
    vae = conditional_linear_vae()
    with torch.no_grad():
        vae.encoder.class_bias.weight[:, :LATENTS] = 40.0 * torch.arange(3)[:, None]
    test, train = (split(vae, images(count, seed), torch.arange(count) % 3) for count, seed in ((900, 1), (900, 2)))
    found = information_metrics(vae, test, train, 1.0, 0)
    together = fitted_marginal_kl(draw_codes(vae, train, 5), draw_codes(vae, test, 0), 0).mean().item()
    assert found["test/marginal_kl_fitted"] - together == pytest.approx(math.log(3), abs=0.1)


def test_the_fit_of_training_codes_is_measured_on_test_codes():
    vae = linear_vae()
    test, train = split(vae, images(300, 1)), split(vae, images(300, 2))
    found = information_metrics(vae, test, train, 1.0, 0)
    codes = draw_codes(vae, train, stream_key(0, Stream.TRAIN)), draw_codes(vae, test, 0)
    assert found["test/marginal_kl_fitted"] == pytest.approx(fitted_marginal_kl(*codes, 0).mean().item())


def test_the_bound_and_its_terms_are_means_over_images_and_the_standard_error_is_the_bounds():
    elbo, recon, bound = (torch.tensor(nats) for nats in ([-10.0, -8.0, -3.0], [-7.0, -6.0, -2.0], [-6.0, -5.0, -1.0]))
    discrete, curve = bound - 2 * math.log(2), torch.stack([elbo, bound - 0.5, bound], dim=1)
    found = likelihood_metrics(Estimates(elbo, recon, recon - elbo, bound, discrete, curve), 4, 6)
    assert found == pytest.approx(
        {
            "test/elbo": -7.0,
            "test/recon": -5.0,
            "test/kl": 2.0,
            "test/nll_iw1": 7.0,
            "test/nll_iw2": 4.5,
            "test/nll_iw4": 4.0,
            "test/nll_iw4_stderr": math.sqrt(7 / 3),
            "test/bits_per_dim": (4 + 2 * math.log(2)) / (6 * math.log(2)),
        }
    )


def test_the_gap_is_that_of_two_elbos_with_the_standard_error_of_their_difference():
    """Ten z for each training image, and the closed form of the KL, as scipy and numpy reckon it."""
    vae, decoded = linear_vae(), []
    vae.decoder.register_forward_pre_hook(lambda _, given: decoded.append(given[0]))
    train = split(vae, images(4))
    of_test = torch.tensor([-3.0, -4.5, -2.0], dtype=torch.float64)
    nothing = torch.zeros(3)
    test = Estimates(of_test, nothing, nothing, nothing, nothing, nothing[:, None])
    found = train_test_gap(vae, test, train, PARAMS)

    z = torch.cat(decoded).view(4, 10, LATENTS).numpy()
    weight, bias = (value.detach().numpy() for value in (vae.decoder[0].weight, vae.decoder[0].bias))
    recon = norm.logpdf(train.pixels.flatten(1).numpy()[:, None], z @ weight.T + bias, SIGMA).sum(2).mean(1)
    mu, logvar = train.mu.numpy(), train.logvar.numpy()
    elbo = recon - 0.5 * (mu**2 + np.exp(logvar) - logvar - 1).sum(1)
    assert found["test/train_test_gap"] == pytest.approx(elbo.mean() - (-9.5 / 3))
    of_train = elbo.var(ddof=1) / 4
    assert found["test/train_test_gap_stderr"] == pytest.approx(math.sqrt(of_train + 19 / 12 / 3))


def test_the_noise_of_training_images_is_not_that_of_test_images():
    vae, decoded = linear_vae(), []
    vae.decoder.register_forward_pre_hook(lambda _, given: decoded.append(given[0]))
    given = split(vae, images(4))
    test = estimate(vae, given, 10, PARAMS.seed, PARAMS.batch_log_weights)
    train_test_gap(vae, test, given, PARAMS)
    assert (decoded[0] - decoded[1]).abs().min() > 1e-6


def test_annealing_is_told_as_minus_its_log_likelihood_and_by_how_much_that_is_above_the_importance_bound():
    vae, some = linear_vae(), torch.tensor([0, 2, 5])
    asked = {"ais_images": 3, "ais_steps": 5, "ais_chains": 2, "ais_schedule": "linear", "importance_samples": 2}
    params, test = PARAMS.model_copy(update=asked), split(vae, images(6))
    bound = estimate(vae, test, 2, params.seed, params.batch_log_weights)
    found = ais_metrics(vae, test, bound, params, Progress(disable=True))

    annealed = estimate_ais(vae, test, some, Annealing(5, 2, "linear", params.seed), params.batch_log_weights)
    above = (annealed - bound.iw_bound[some]).detach().numpy()
    assert found == pytest.approx(
        {
            "test/nll_ais5": -annealed.mean().item(),
            "test/nll_ais5_stderr": annealed.std().item() / 3**0.5,
            "test/nll_iw2_above_ais5": above.mean(),
            "test/nll_iw2_above_ais5_stderr": above.std(ddof=1) / 3**0.5,
        }
    )
