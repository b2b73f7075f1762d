"""On probabilistic PCA with its exact posterior, I(x; z) is known and the aggregate posterior is the prior."""

import math

import pytest
import torch
from linear import LATENTS, give_exact_posterior, linear_vae, marginal, noise, split

from pipeline.metrics.aggregate import (
    PosteriorDraws,
    draw_codes,
    fitted_marginal_kl,
    fitted_marginal_kl_of_classes,
    mutual_information,
)
from pipeline.quality.mean import mean_and_stderr
from pipeline.vae.densities import gaussian_log_prob
from pipeline.vae.priors.normal import StandardNormal


@pytest.fixture(scope="module")
def exact():
    """The model, images that it drew itself, and one z for each."""
    vae = linear_vae()
    give_exact_posterior(vae)
    torch.manual_seed(0)
    given = split(vae, marginal(vae).sample((2000,)).view(-1, *vae.config.image_shape))
    return vae, given, draw_codes(vae, given, 0)


def of_normals(z, mean, variance):
    """Codes drawn from N(mean, variance) under a standard-normal prior; what q(z|x) was does not matter."""
    like = torch.zeros_like(z)
    return PosteriorDraws(mean + variance**0.5 * z, like[:, 0], gaussian_log_prob(mean + variance**0.5 * z, like, like))


def test_mutual_information_is_the_exact_one(exact):
    vae, given, codes = exact
    variance = torch.exp(vae.likelihood.logvar)
    gain = (vae.decoder[0].weight.T @ vae.decoder[0].weight).diagonal() / variance
    expected = 0.5 * torch.log1p(gain).sum().item()
    found, stderr = mean_and_stderr(mutual_information(codes, given.mu, given.logvar))
    assert expected > 1
    assert found == pytest.approx(expected, abs=4 * stderr)


def test_where_the_aggregate_posterior_is_the_prior_the_whole_kl_is_information(exact):
    vae, given, codes = exact
    kl = vae.prior.kl(given.mu, given.logvar, codes.z)
    left, stderr = mean_and_stderr(kl - mutual_information(codes, given.mu, given.logvar))
    assert left == pytest.approx(0, abs=4 * stderr)
    fitted, stderr = mean_and_stderr(fitted_marginal_kl(half(codes, 0), half(codes, 1), 0))
    assert -0.05 < fitted < 3 * stderr


def half(codes, which):
    return PosteriorDraws(*(value[which::2] for value in codes))


def test_mutual_information_never_exceeds_the_logarithm_of_the_number_of_images():
    mu, logvar = 100.0 * torch.arange(50.0)[:, None], torch.zeros(50, 1)
    codes = PosteriorDraws(mu, gaussian_log_prob(mu, mu, logvar), torch.zeros(50))
    assert mutual_information(codes, mu, logvar).mean().item() == pytest.approx(math.log(50))


@pytest.mark.parametrize("count", range(50, 60))
def test_not_by_rounding_either(count):
    mu, logvar = 10 * noise(count, 12).float(), noise(count, 12, seed=2).float() - 6
    z = mu + torch.exp(0.5 * logvar) * noise(count, 12, seed=3).float()
    found = mutual_information(PosteriorDraws(z, gaussian_log_prob(z, mu, logvar), z[:, 0]), mu, logvar)
    assert (found <= math.log(count)).all()
    assert found.mean().item() == pytest.approx(math.log(count), abs=1e-5)


def test_a_posterior_that_ignores_the_image_carries_no_information():
    mu, logvar = torch.zeros(50, 2), torch.zeros(50, 2)
    z = noise(50, 2).float()
    found = mutual_information(PosteriorDraws(z, gaussian_log_prob(z, mu, logvar), z[:, 0]), mu, logvar)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-5)


def test_the_fit_finds_how_far_a_normal_is_from_the_prior():
    mean, variance = 1.0, 0.5
    expected = LATENTS * 0.5 * (mean**2 + variance - math.log(variance) - 1)
    fitted_to, measured_on = (of_normals(noise(3000, LATENTS, seed=seed), mean, variance) for seed in (1, 2))
    found, stderr = mean_and_stderr(fitted_marginal_kl(fitted_to, measured_on, 0))
    assert found == pytest.approx(expected, abs=4 * stderr)


def test_a_prior_for_each_class_is_held_against_the_codes_of_that_class():
    """Class 1 is where its prior is, class 0 is not, and class 2 has too few codes to say."""
    labels = torch.tensor([0, 1] * 1500 + [2])
    mean = 3.0 * (labels == 1)[:, None].double()
    at = torch.where(labels == 0, 1.0, 3.0)[:, None].double()

    def codes(seed):
        z = at + noise(3001, LATENTS, seed=seed)
        return PosteriorDraws(z, z[:, 0], gaussian_log_prob(z, mean.expand_as(z), torch.zeros_like(z)))

    found = fitted_marginal_kl_of_classes(codes(1), labels, codes(2), labels, 0)
    assert len(found) == 3000
    of_class, stderr = found.view(2, 1500).mean(1), found.view(2, 1500).std(1) / 1500**0.5
    assert of_class[0].item() == pytest.approx(LATENTS * 0.5, abs=4 * stderr[0].item())
    assert of_class[1].item() == pytest.approx(0, abs=0.05)
    together = fitted_marginal_kl(codes(1), codes(2), 0).mean()
    assert together < found.mean() - 0.3  # the fit of all codes is that of no class


def test_few_codes_of_many_dimensions_still_tell_how_far_they_are_from_the_prior():
    """A full covariance of 50 dimensions, fitted to 900 codes, is further from their q(z) than the prior is."""
    mean, variance = 0.5, 0.6
    expected = 50 * 0.5 * (mean**2 + variance - math.log(variance) - 1)
    fitted_to, measured_on = (of_normals(noise(900, 50, seed=seed), mean, variance) for seed in (1, 2))
    found, stderr = mean_and_stderr(fitted_marginal_kl(fitted_to, measured_on, 0))
    assert 0.95 * expected < found < expected + 4 * stderr


def test_a_hole_in_the_middle_of_the_prior_is_seen():
    def ring(count, seed):
        z = noise(count, 2, seed=seed)
        z = 3 * z / z.norm(dim=1, keepdim=True) + 0.1 * noise(count, 2, seed=seed + 10)
        return PosteriorDraws(z, z[:, 0], StandardNormal(2).log_prob(z))

    assert fitted_marginal_kl(ring(1000, 1), ring(1000, 2), 0).mean() > 2


def test_few_codes_are_fitted_with_fewer_components():
    few = of_normals(noise(7, 3), 0.0, 1.0)
    assert fitted_marginal_kl(few, few, 0).isfinite().all()


def test_one_gaussian_is_fitted_to_two_thirds_of_the_codes():
    """Code i lies on axis i, along which the fit has spread if it saw that code; another is all but impossible."""
    z = torch.eye(30, dtype=torch.float64)
    codes = PosteriorDraws(z, z[:, 0], torch.zeros(30))
    assert (fitted_marginal_kl(codes, codes, 0) > 0).sum() == 20


def test_a_mixture_is_fitted_to_two_thirds_of_the_codes():
    """Of 24 codes of two dimensions 16 allow four components, one for each of four points, and 8 allow two."""
    points = torch.tensor([[-9.0, -9.0], [-9.0, 9.0], [9.0, -9.0], [9.0, 9.0]], dtype=torch.float64)
    z = points.repeat(6, 1)
    codes = PosteriorDraws(z, z[:, 0], torch.zeros(24))
    assert fitted_marginal_kl(codes, codes, 0).min() > 0


def test_the_noise_of_a_code_belongs_to_its_image(exact):
    vae, given, codes = exact
    first = draw_codes(vae, given._replace(mu=given.mu[:10]), 0)
    torch.testing.assert_close(first.z, codes.z[:10])
    assert not torch.equal(draw_codes(vae, given, 1).z, codes.z)
