import torch

from pipeline.adam import FlatAdam


def test_its_steps_are_those_of_torch_optim():
    torch.manual_seed(0)
    weights = torch.randn(1000)
    reference = torch.nn.Parameter(weights.clone())
    gradients = torch.zeros(1000)
    theirs, ours = torch.optim.Adam([reference], fused=True), FlatAdam(weights, gradients)
    for rate in (1e-3, 1e-2, 1e-3, 5e-4):
        gradients.normal_()
        reference.grad = gradients.clone()
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
        ours.step(rate)
    assert torch.equal(weights, reference.detach())


def test_a_refused_step_leaves_weights_and_state_as_they_are():
    weights, gradients = torch.zeros(10), torch.ones(10)
    adam = FlatAdam(weights, gradients)
    adam.step(1e-3)
    before, state = weights.clone(), {name: value.clone() for name, value in adam.tensors().items()}
    adam.step(1e-3, refused=torch.ones(()))
    assert torch.equal(weights, before)
    assert all(torch.equal(state[name], value) for name, value in adam.tensors().items())
    adam.step(1e-3, refused=torch.zeros(()))
    assert not torch.equal(weights, before)


def test_it_goes_on_from_its_tensors():
    torch.manual_seed(0)
    noise = torch.randn(4, 10)
    whole, gradients = torch.zeros(10), torch.zeros(10)
    adam = FlatAdam(whole, gradients)
    for step, value in enumerate(noise):
        if step == 2:
            kept = {name: tensor.clone() for name, tensor in adam.tensors().items()}
            weights, its_gradients = whole.clone(), torch.zeros(10)
        gradients.copy_(value)
        adam.step(1e-3)
    resumed = FlatAdam(weights, its_gradients)
    resumed.load(kept)
    for value in noise[2:]:
        its_gradients.copy_(value)
        resumed.step(1e-3)
    assert torch.equal(weights, whole)
