import dataclasses

import pytest
import torch
from small_training import CONFIG

from pipeline.training.fit import Fit

MODELS = {
    "plain": {},
    "mixture and flow": {"prior": "mixture", "prior_components": 3, "posterior": "iaf", "flow_hidden": (8,)},
    "sigma": {"likelihood": "gaussian", "sigma": "learned"},
    "ladder": {"network": "ladder", "hidden": (16,), "latent_groups": 2},
}


def of_p(name):
    """Whether a parameter is one of p(z) and p(x|z)."""
    return name.split(".")[0] in ("prior", "decoder", "likelihood")


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_its_gradient_is_that_of_the_log_density_shared_among_the_images(make_trainer, changes):
    config = dataclasses.replace(CONFIG, **changes)
    binarize = "none" if config.likelihood == "gaussian" else "dynamic"
    trainer = make_trainer(config, weight_prior_precision=4.0, binarize=binarize)
    trainer.flat.gradients.fill_(0.25)
    trainer._weight_prior.add_gradient()
    normal = torch.distributions.Normal(0.0, 0.5)
    named = dict(trainer.model.named_parameters())
    loss = -sum(normal.log_prob(value).sum() for name, value in named.items() if of_p(name)) / 600
    expected = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    assert {name for name, value in zip(named, expected, strict=True) if value is not None} == set(filter(of_p, named))
    for found, wanted in zip(torch.split(trainer.flat.gradients, trainer.flat.sizes), expected, strict=True):
        wanted = torch.zeros_like(found) if wanted is None else wanted.flatten()
        torch.testing.assert_close(found - 0.25, wanted, rtol=1e-4, atol=1e-7)


def test_without_a_precision_the_gradient_stays(make_trainer):
    trainer = make_trainer()
    trainer.flat.gradients.fill_(0.25)
    trainer._weight_prior.add_gradient()
    assert (trainer.flat.gradients == 0.25).all()


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_a_strong_prior_pulls_the_weights_of_p_towards_0(make_trainer, optimizer):
    lengths = []
    for precision in (0.0, 1000.0):
        trainer = make_trainer(weight_prior_precision=precision, optimizer=optimizer, learning_rate=0.02)
        kept, _ = Fit(trainer).run()
        lengths.append(
            [sum(value.norm() for name, value in kept.items() if of_p(name) is ours) for ours in (True, False)]
        )
    (p, q), (pulled_p, pulled_q) = lengths
    assert pulled_p < 0.7 * p
    assert pulled_q > 0.8 * q
