import pytest
import torch
from quadrature import assert_drawn_from, grid
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pipeline.errors import UserError
from pipeline.vae.priors.class_mixtures import MixturePerClass, fixed_density
from pipeline.vae.priors.mixtures import FixedMixture, Mixture

CLASSES, COMPONENTS, LATENTS = 3, 4, 2


def made():
    """In float64, of components that differ."""
    generator = torch.Generator().manual_seed(0)
    logits, mu, logvar = (
        torch.randn(CLASSES, COMPONENTS, *size, generator=generator, dtype=torch.float64)
        for size in ((), (LATENTS,), (LATENTS,))
    )
    return Mixture(logits.log_softmax(1), 2 * mu, logvar - 1)


def test_the_density_of_each_class_agrees_with_torch_distributions():
    mixture, label = made(), torch.arange(30) % CLASSES
    z = 2 * torch.randn(30, LATENTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_weights, mu, logvar = (value[label] for value in mixture)
    expected = MixtureSameFamily(
        Categorical(logits=log_weights), Independent(Normal(mu, torch.exp(0.5 * logvar)), 1)
    ).log_prob(z)
    torch.testing.assert_close(MixturePerClass(mixture).given(label).log_prob(z), expected)


@pytest.mark.parametrize("label", range(CLASSES))
def test_it_integrates_to_one_and_is_drawn_from(label):
    density = MixturePerClass(made())
    points, area = grid(14.0, 300)
    of_points = density.given(torch.full((len(points),), label))
    assert (of_points.log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-4)
    of_draws = density.given(torch.full((20_000,), label))
    drawn = of_draws.sample(20_000, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32
    assert_drawn_from(drawn.double(), lambda z: density.given(torch.full((len(z),), label)).log_prob(z))


def test_without_a_class_there_is_no_density():
    with pytest.raises(UserError, match="label is missing; expected one of 3 classes"):
        MixturePerClass(made()).given(None)


def test_components_without_classes_are_one_mixture():
    assert isinstance(fixed_density(made()), MixturePerClass)
    assert isinstance(fixed_density(Mixture(*(value[0] for value in made()))), FixedMixture)
