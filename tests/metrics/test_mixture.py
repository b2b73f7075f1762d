import math

import pytest
import torch

from pipeline.errors import UserError
from pipeline.metrics.mixture import fit_mixture, fit_mixture_per_class
from pipeline.vae.priors.mixtures import FixedMixture

CENTRES = torch.tensor([[-3.0, 0.0], [0.0, 4.0], [3.0, -1.0]])


def codes(seed, n=6000):
    generator = torch.Generator().manual_seed(seed)
    part = torch.multinomial(torch.tensor([0.2, 0.3, 0.5]), n, replacement=True, generator=generator)
    return CENTRES[part] + torch.tensor([0.5, 0.2]) * torch.randn(n, 2, generator=generator)


@pytest.fixture(scope="module")
def fitted():
    return FixedMixture(fit_mixture(codes(0), 3, seed=0))


def test_the_components_of_the_codes_are_found(fitted):
    log_weights, mu, logvar = fitted.mixture()
    order = mu[:, 0].argsort()
    torch.testing.assert_close(mu[order], CENTRES, atol=0.05, rtol=0)
    torch.testing.assert_close(log_weights.exp()[order], torch.tensor([0.2, 0.3, 0.5]), atol=0.02, rtol=0)
    torch.testing.assert_close((logvar / 2).exp(), torch.tensor([[0.5, 0.2]]).expand(3, 2), atol=0.03, rtol=0)


def test_the_density_integrates_to_one(fitted):
    axis = torch.linspace(-8, 8, 801)
    grid = torch.cartesian_prod(axis, axis)
    assert fitted.log_prob(grid).double().exp().sum().item() * (16 / 800) ** 2 == pytest.approx(1, abs=1e-4)


def test_its_samples_are_like_the_codes(fitted):
    """The energy distance of two samples, against those of two halves of the codes."""

    def energy(x, y):
        return (2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()).item()

    made = fitted.sample(2000, torch.Generator().manual_seed(0))
    same = [energy(codes(seed, 2000), codes(seed + 10, 2000)) for seed in range(1, 7)]
    assert energy(made, codes(9, 2000)) < 3 * max(same)
    assert energy(made + 0.3, codes(9, 2000)) > 3 * max(same)


def test_it_is_nearer_to_the_codes_than_the_standard_normal(fitted):
    held_out = codes(1)
    standard = -0.5 * held_out.square().sum(1) - math.log(2 * math.pi)
    assert fitted.log_prob(held_out).mean() > standard.mean() + 1


def test_the_same_seed_fits_the_same_mixture():
    one, again = (fit_mixture(codes(0, 500), 4, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


def test_more_components_than_codes_are_refused():
    expected = r"evaluate.aggregate_components is 20 with 10 training images; expected no more than those"
    with pytest.raises(UserError, match=expected):
        fit_mixture(codes(0, 10), 20, seed=0)


def test_each_class_has_the_mixture_of_its_own_codes():
    labels = torch.arange(3000) % 2
    mixture = fit_mixture_per_class(codes(0, 3000) + 9 * labels[:, None], labels, ("cat", "dog"), 3, seed=0)
    assert [tuple(value.shape) for value in mixture] == [(2, 3), (2, 3, 2), (2, 3, 2)]
    for place in range(2):
        order = mixture.mu[place, :, 0].argsort()
        torch.testing.assert_close(mixture.mu[place, order], CENTRES + 9 * place, atol=0.1, rtol=0)
        torch.testing.assert_close(
            mixture.log_weights[place, order].exp(), torch.tensor([0.2, 0.3, 0.5]), atol=0.05, rtol=0
        )


def test_a_class_of_too_few_images_is_named():
    labels = torch.tensor([0] * 9 + [1] * 3)
    expected = r"aggregate_components is 4 with 3 training images of the class 'dog'; expected no more than those"
    with pytest.raises(UserError, match=expected):
        fit_mixture_per_class(codes(0, 12), labels, ("cat", "dog"), 4, seed=0)
