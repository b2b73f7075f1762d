import pytest
import torch
from linear import LATENTS, PIXELS
from sklearn.datasets import load_digits

from pipeline.dataset.batches import model_input
from pipeline.paper.marginal import log_marginal
from pipeline.paper.mcem import MonteCarloEM
from pipeline.paper.training import samples_seen
from pipeline.params import load_params
from pipeline.training.nonfinite import NonFiniteError
from pipeline.vae.model import VAE, VAEConfig

DIGITS = torch.from_numpy(load_digits().images[:200] * 255 / 16).round().to(torch.uint8)[:, None]


def params(**changes):
    settings = {"device": "cpu", "binarize": "dynamic", "global_batch_size": 50, "learning_rate": 0.01}
    return load_params("params.yaml").train.model_copy(update=settings | changes)


def vae():
    torch.manual_seed(0)
    return VAE(VAEConfig((1, 8, 8), "mlp", (16,), "tanh", 2, "bernoulli", 1.0))


def trained(samples, **changes):
    trainer = MonteCarloEM(vae(), DIGITS, params(**changes), torch.device("cpu"))
    for seen in samples_seen(trainer):
        if seen >= samples:
            return trainer
    raise AssertionError


def log_p(model):
    x = model_input(DIGITS[:50], torch.arange(50), "static", 0)
    return log_marginal(model, x, 20, 0).mean().item()


def test_it_raises_the_likelihood_of_digits_and_leaves_the_encoder_as_it_is():
    trainer, before = trained(20_000), vae()
    assert log_p(trainer.model) > log_p(before) + 15
    for now, then in zip(trainer.model.encoder.parameters(), before.encoder.parameters(), strict=True):
        assert torch.equal(now, then)


def test_the_weights_follow_from_the_seed():
    first, second, other = (trained(2000, seed=seed).flat.weights for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_each_proposal_is_followed_by_five_updates_and_its_chains_go_on_from_there(monkeypatch):
    trainer = MonteCarloEM(vae(), DIGITS[:70], params(), torch.device("cpu"))
    sample, drawn = trainer._sample, []

    def noted(examples, x):
        drawn.append((examples, sample(examples, x)))
        return drawn[-1][1]

    monkeypatch.setattr(trainer, "_sample", noted)
    assert list(trainer.steps()) == [50] * 5 + [20] * 5
    assert sorted(torch.cat([examples for examples, _ in drawn]).tolist()) == list(range(70))
    for examples, z in drawn:
        assert torch.equal(trainer._z[examples], z)


def test_the_acceptance_rate_reaches_90_percent():
    trainer, rates = MonteCarloEM(vae(), DIGITS[:40], params(learning_rate=1e-9), torch.device("cpu")), []
    trainer._step.fill_(3.0)  # far too large
    for seen in samples_seen(trainer):
        if seen % 200 == 0:  # the last update of a proposal
            rates.append(trainer.acceptance)
        if len(rates) == 150:
            break
    assert rates[0] < 0.2
    assert sum(rates[-75:]) / 75 == pytest.approx(0.9, abs=0.02)


def test_with_a_fixed_decoder_the_chains_have_the_exact_posterior():
    """x|z ~ N(Wz + b, sigma^2 I), grey images of one colour: the same posterior for every chain."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(PIXELS, "mlp", (), "relu", LATENTS, "gaussian", 0.4))
    with torch.no_grad():
        model.decoder[0].weight.normal_(0, 0.5)
    images = torch.full((4000, *PIXELS), 153, dtype=torch.uint8)
    how = params(binarize="none", learning_rate=1e-12, global_batch_size=1000)
    trainer = MonteCarloEM(model, images, how, torch.device("cpu"))
    for seen in samples_seen(trainer):
        if seen >= 40 * 5 * 4000:
            break
    weight, bias = (value.detach() for value in (model.decoder[0].weight, model.decoder[0].bias))
    covariance = torch.linalg.inv(torch.eye(LATENTS) + weight.T @ weight / 0.16)
    mean = (0.6 - bias) @ weight @ covariance / 0.16
    torch.testing.assert_close(trainer._z.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(trainer._z.T.cov(), covariance, rtol=0, atol=0.02)


def test_a_gradient_that_is_not_finite_is_refused():
    trainer = MonteCarloEM(vae(), DIGITS, params(), torch.device("cpu"))
    with torch.no_grad():
        trainer.flat.weights.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="epoch 1: the gradient of log p"):
        list(trainer.steps())
