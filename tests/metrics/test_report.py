"""What is told of a conditional model: its z is drawn beside a class."""

import math

import pytest
import torch
from linear import LATENTS, conditional_linear_vae, images, split

from pipeline.metrics.aggregate import draw_codes, fitted_marginal_kl
from pipeline.metrics.report import information_metrics


def test_the_prior_of_all_classes_is_held_against_the_codes_of_each():
    """Posteriors of three classes that lie apart: KL(q(z|y) || p(z)) is KL(q(z) || p(z)) + log 3, on average."""
    vae = conditional_linear_vae()
    with torch.no_grad():
        vae.encoder.class_bias.weight[:, :LATENTS] = 40.0 * torch.arange(3)[:, None]
    test, train = (split(vae, images(count, seed), torch.arange(count) % 3) for count, seed in ((900, 1), (900, 2)))
    found = information_metrics(vae, test, train, 1.0, 0)
    together = fitted_marginal_kl(draw_codes(vae, train, 5), draw_codes(vae, test, 0), 0).mean().item()
    assert found["test/marginal_kl_fitted"] - together == pytest.approx(math.log(3), abs=0.1)
