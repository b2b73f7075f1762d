import itertools

import numpy as np
import pytest
import torch

from pipeline.metrics.figures import mosaic
from pipeline.paper import figures
from pipeline.vae.model import VAE, VAEConfig

ROWS = [
    {
        "model.latent_dim": dim,
        "prepare.train_images": dim * 100,
        "train.objective": objective,
        "samples": float(samples),
        "train_elbo": -100.0 - dim - 1000 / samples,
        "test_elbo": -101.0 - dim - 1000 / samples,
        "train_log_p": -98.0,
        "test_log_p": -99.0 - dim,
    }
    for dim, objective, samples in itertools.product((5, 3), ("wake_sleep", "elbo"), (10, 100, 1000))
]


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_figure_2_has_a_panel_for_each_number_of_latents_with_both_algorithms_on_both_splits():
    panels = figures.bound_curves(ROWS).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["$N_z$ = 3", "$N_z$ = 5"]
    lines = lines_of(panels[1])
    assert set(lines) == {"AEVB (test)", "AEVB (train)", "wake-sleep (test)", "wake-sleep (train)"}
    assert lines["AEVB (test)"].get_xdata().tolist() == [10, 100, 1000]
    assert lines["AEVB (test)"].get_ydata().tolist() == [-206.0, -116.0, -107.0]
    assert panels[0].get_xscale() == "log"
    assert panels[0].get_ylim() == panels[1].get_ylim()


def test_figure_3_shows_log_p_for_each_size_of_the_training_set_and_monte_carlo_em_where_it_ran():
    beside = [{**row, "train.objective": "mcem"} for row in ROWS[:3]]  # of dim 5 alone
    panels = figures.likelihood_curves([*ROWS, *beside]).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["N = 300", "N = 500"]
    assert lines_of(panels[0])["AEVB (test)"].get_ydata().tolist() == [-102.0] * 3
    assert lines_of(panels[0])["wake-sleep (train)"].get_ydata().tolist() == [-98.0] * 3
    assert "MCEM (test)" not in lines_of(panels[0])
    assert lines_of(panels[1])["MCEM (test)"].get_xdata().tolist() == [10, 100, 1000]


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {dim: VAE(VAEConfig((1, 4, 5), "mlp", (3,), "tanh", dim, "bernoulli", 1.0)).eval() for dim in (5, 2)}


def pictures(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_figure_4_is_the_decoder_over_the_quantiles_of_the_prior(models):
    [picture] = pictures(figures.manifold(models[2]))
    assert picture.shape == (18 * 5 - 1, 18 * 6 - 1)
    z = torch.tensor([[-1.91451, 1.91451]])  # the standard normal's quantiles of 1/36 and 35/36
    np.testing.assert_allclose(picture[:4, :5], models[2].mean(z)[0, 0].detach(), atol=1e-4)


def test_figure_5_has_the_same_samples_every_time_a_picture_for_each_model(models):
    first, second = (figures.samples(models) for _ in range(2))
    assert [text.get_text() for text in first.texts] == ["2-D", "5-D"]
    for one, other in zip(pictures(first), pictures(second), strict=True):
        np.testing.assert_array_equal(one, other)
    z = models[5].prior.sample(64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_array_equal(pictures(first)[1], mosaic(models[5].mean(z).numpy(), 8, 8))
