import pytest
import torch

from pipeline.training.gradients import Gradients
from pipeline.vae.objectives import objective


@pytest.mark.parametrize("changes", [{"free_bits": 0.5}, {"sampled_kl": True}])
def test_what_shapes_the_objective_shapes_its_loss_and_its_gradient(make_trainer, changes):
    made = make_trainer(objective="elbo", **changes)
    batch, beta = next(made.feed.steps(1)), torch.tensor(0.7)
    gradients = Gradients(made.model, made.flat, made.params, "fp32", torch.device("cpu"))
    loss, _ = gradients(batch, beta)
    found = made.flat.gradients.clone()
    expected, plain = (objective("elbo", made.model, batch.x, batch.eps, beta, **given).loss for given in (changes, {}))
    assert loss.item() == expected.item() != plain.item()
    made.flat.differentiate(expected)
    assert torch.equal(found, made.flat.gradients)
