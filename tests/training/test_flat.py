import pytest
import torch

from pipeline.training.flat import FlatParameters, named_weights
from pipeline.vae.model import VAE, VAEConfig

CONFIG = VAEConfig((1, 8, 8), "conv", (4,), "relu", 3, "gaussian", "learned")


def test_the_model_computes_what_it_did_before():
    torch.manual_seed(0)
    model, x = VAE(CONFIG), torch.rand(5, 1, 8, 8)
    before = model.encode(x)
    FlatParameters(model)
    torch.testing.assert_close(model.encode(x)[0], before[0])


def test_gradients_of_all_layers_stand_in_one_buffer_and_those_that_are_missing_are_zero():
    torch.manual_seed(0)
    model, x = VAE(CONFIG), torch.rand(5, 1, 8, 8)
    model.encode(x)[0].sum().backward()
    expected = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    flat = FlatParameters(model)
    flat.gradients.fill_(7)
    flat.differentiate(model.encode(x)[0].sum())
    torch.testing.assert_close(named_weights(model, flat.gradients), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_change_of_the_buffer_is_a_change_of_the_model():
    model = VAE(CONFIG)
    flat = FlatParameters(model)
    flat.weights.fill_(0.5)
    assert all((value == 0.5).all() for value in model.parameters())


def test_in_bf16_layers_see_the_weights_once_they_are_published_and_the_rest_stays_exact():
    model = VAE(CONFIG)
    model.learned_prior = torch.nn.Parameter(torch.zeros(2, 3))
    flat = FlatParameters(model, torch.bfloat16)
    flat.weights.fill_(1 / 3)
    flat.publish()
    for name, parameter in model.named_parameters():
        in_layer = name.startswith(("encoder.", "decoder."))
        expected = torch.tensor(1 / 3).to(torch.bfloat16 if in_layer else torch.float32)
        assert parameter.dtype == expected.dtype
        assert (parameter == expected).all()


def test_in_bf16_gradients_are_collected_in_float32():
    torch.manual_seed(0)
    model, x = VAE(CONFIG), torch.rand(5, 1, 8, 8)
    flat = FlatParameters(model, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.encode(x)[0].sum()
    flat.differentiate(loss)
    assert flat.gradients.dtype == torch.float32
    assert flat.gradients.count_nonzero() > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_feature_maps_lie_channels_last(dtype):
    model = VAE(CONFIG)
    FlatParameters(model, dtype)
    maps = model.encoder[1](torch.rand(5, 1, 8, 8, dtype=dtype))
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_named_weights_are_a_contiguous_state_dict_of_its_own():
    model = VAE(CONFIG)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flat = FlatParameters(model, torch.bfloat16)
    state = named_weights(model, flat.weights)
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert all(value.is_contiguous() and value.dtype == torch.float32 for value in state.values())
    flat.weights.zero_()
    assert any(value.any() for value in state.values())
    VAE(CONFIG).load_state_dict(state)
