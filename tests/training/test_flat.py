import torch

from pipeline.training.flat import FlatParameters, named_weights
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 8, 8), "conv", (4,), "relu", 3, "gaussian", "learned")


def test_the_model_computes_what_it_did_before():
    torch.manual_seed(0)
    model, x = VAE(CONFIG), torch.rand(5, 1, 8, 8)
    before = model.encode(x)
    FlatParameters(model)
    assert torch.equal(model.encode(x)[0], before[0])


def test_gradients_of_all_layers_stand_in_one_buffer():
    torch.manual_seed(0)
    model, x = VAE(CONFIG), torch.rand(5, 1, 8, 8)
    model.encode(x)[0].sum().backward()
    expected = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    flat = FlatParameters(model)
    model.encode(x)[0].sum().backward()
    assert torch.equal(flat.gradients, torch.cat([gradient.flatten() for gradient in expected]))


def test_a_change_of_the_buffer_is_a_change_of_the_model():
    model = VAE(CONFIG)
    flat = FlatParameters(model)
    flat.weights.data.fill_(0.5)
    assert all((value == 0.5).all() for value in model.parameters())


def test_named_weights_are_a_state_dict_of_its_own():
    model = VAE(CONFIG)
    flat = FlatParameters(model)
    state = named_weights(model, flat.weights)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    flat.weights.data.zero_()
    assert any(value.any() for value in state.values())
    VAE(CONFIG).load_state_dict(state)
