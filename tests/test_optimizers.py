import pytest
import torch

from pipeline.optimizers import OPTIMIZERS, FlatAdagrad, FlatAdam

KINDS = pytest.mark.parametrize("kind", OPTIMIZERS.values(), ids=OPTIMIZERS)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(FlatAdam, torch.optim.Adam), (FlatAdagrad, torch.optim.Adagrad)], ids=OPTIMIZERS
)
def test_its_steps_are_those_of_torch_optim(ours, theirs):
    torch.manual_seed(0)
    weights = torch.randn(1000)
    reference = torch.nn.Parameter(weights.clone())
    gradients = torch.zeros(1000)
    theirs, ours = theirs([reference], fused=True), ours(weights, gradients)
    for rate in (1e-3, 1e-2, 1e-3, 5e-4):
        gradients.normal_()
        reference.grad = gradients.clone()
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
        ours.step(rate)
    assert torch.equal(weights, reference.detach())


def test_a_step_of_adagrad_is_divided_by_the_root_of_all_squares_so_far():
    weights, gradients = torch.zeros(1), torch.zeros(1)
    adagrad = FlatAdagrad(weights, gradients)
    for gradient, moved in ((3.0, -0.1), (4.0, -0.1 - 0.1 * 4 / 5)):
        gradients.fill_(gradient)
        adagrad.step(0.1)
        assert weights.item() == pytest.approx(moved, rel=1e-6)


@KINDS
def test_a_refused_step_leaves_weights_and_state_as_they_are(kind):
    weights, gradients = torch.zeros(10), torch.ones(10)
    optimizer = kind(weights, gradients)
    optimizer.step(1e-3)
    before, state = weights.clone(), {name: value.clone() for name, value in optimizer.tensors().items()}
    gradients.fill_(torch.nan)
    optimizer.step(1e-3, refused=torch.ones(()))
    assert torch.equal(weights, before)
    assert all(torch.equal(state[name], value) for name, value in optimizer.tensors().items())
    gradients.fill_(1)
    optimizer.step(1e-3, refused=torch.zeros(()))
    assert not torch.equal(weights, before)


@KINDS
def test_it_goes_on_from_its_tensors(kind):
    torch.manual_seed(0)
    noise = torch.randn(4, 10)
    whole, gradients = torch.zeros(10), torch.zeros(10)
    optimizer = kind(whole, gradients)
    for step, value in enumerate(noise):
        if step == 2:
            kept = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
            weights, its_gradients = whole.clone(), torch.zeros(10)
        gradients.copy_(value)
        optimizer.step(1e-3)
    resumed = kind(weights, its_gradients)
    resumed.load(kept)
    for value in noise[2:]:
        its_gradients.copy_(value)
        resumed.step(1e-3)
    assert torch.equal(weights, whole)
