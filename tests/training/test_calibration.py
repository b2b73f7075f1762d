"""The optimal sigma, from the first step to the weights that are kept."""

import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.params import load_params
from pipeline.training import calibration
from pipeline.training.calibration import mean_squared_error
from pipeline.training.feed import Feed
from pipeline.training.fit import Fit
from pipeline.training.ranks import Ranks
from pipeline.training.trainer import Trainer
from pipeline.vae.model import VAE, VAEConfig
from pipeline.vae.posteriors import reparameterize

DIGITS = torch.from_numpy((load_digits().images * 255 / 16).astype("uint8"))[:, None]


def trainer(sigma="optimal", epochs=3, ema_decay=0.99, likelihood="gaussian"):
    changes = {"epochs": epochs, "global_batch_size": 64, "warmup_epochs": 0, "device": "cpu", "precision": "fp32"}
    params = load_params().train.model_copy(update=changes | {"binarize": "none", "ema_decay": ema_decay})
    torch.manual_seed(0)
    vae = VAE(VAEConfig((1, 8, 8), "mlp", (32,), "relu", 4, likelihood, sigma))
    return Trainer(vae, DIGITS[:600], DIGITS[600:800], params, torch.device("cpu"))


def epoch(run):
    for _ in run.steps():
        pass
    return run.end_epoch()


@pytest.mark.parametrize("ema_decay", [0.0, 0.99])
def test_the_sigma_kept_is_that_of_the_training_images_under_the_weights_kept(ema_decay):
    run = trainer(ema_decay=ema_decay)
    weights, history = Fit(run).run()
    assert history.best_epoch == 3
    vae = VAE(run.model.config).eval()
    vae.load_state_dict(weights)
    x = DIGITS[:600] / 255
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0))
        spread = (x - vae.decode(reparameterize(mu, logvar, eps))).square().mean().sqrt().item()
    assert torch.exp(0.5 * vae.likelihood.logvar).item() == pytest.approx(spread, rel=0.02)


def test_validation_sees_the_kept_sigma_and_training_goes_on_in_training_mode():
    run = trainer()
    epoch(run)
    assert run.model.training
    first = run.validate()
    run.model.likelihood.calibrate(1.0)  # the trained weights' own, not the average's
    assert run.validate() == first
    run.average.weights[-1] = 0.0  # sigma = 1: the last of the weights
    assert run.validate()["val/elbo"] != first["val/elbo"]


def test_no_step_moves_the_sigma():
    run = trainer()
    before = run.model.likelihood.logvar.item()
    for _ in run.steps():
        pass
    assert run.model.likelihood.logvar.item() == before


def test_the_optimal_sigma_reaches_a_better_bound_than_a_bad_fixed_one_in_as_many_steps():
    optimal, fixed = epoch(trainer()), epoch(trainer(sigma=1.0))
    assert optimal["val/elbo"] > fixed["val/elbo"] + 5


def test_a_learned_sigma_is_left_to_its_gradient():
    run = trainer(sigma="learned", likelihood="gaussian")
    run.model.likelihood.calibrate = lambda _: pytest.fail("calibrated")
    before = run.model.likelihood.logvar.item()
    epoch(run)
    assert run.model.likelihood.logvar.item() != before


@pytest.mark.parametrize("batch", [32, 33])
def test_ranks_ask_as_many_images_for_their_sigma_as_one_process_would(monkeypatch, batch):
    monkeypatch.setattr(calibration, "CALIBRATION_IMAGES", 95)
    params = load_params().train.model_copy(update={"global_batch_size": batch, "binarize": "none"})
    vae = trainer().model.eval()

    def asked(ranks):
        pixels = []
        for rank in ranks:
            monkeypatch.setattr(Ranks, "add_up", lambda _, sums: pixels.append(sums[1].item()) or sums)
            feed = Feed(DIGITS[:600], DIGITS[600:800], params, 4, torch.device("cpu"), rank)
            mean_squared_error(vae, feed.steps(1), batch, rank)
        return sum(pixels) / 64

    assert asked([Ranks(rank, 3) for rank in range(3)]) == asked([Ranks()]) == 3 * batch
