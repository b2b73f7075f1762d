"""Flows on a few dimensions, in float64: their Jacobians, their ways back, and what sees what."""

import pytest
import torch
from flows import CONTEXT, MAKERS, back, flow_with, noise
from torch.autograd import gradcheck
from torch.func import functional_call

from pipeline.errors import UserError
from pipeline.vae.flows import FlowSize, posterior_flow


def jacobian(flow, z, context):
    """[latent_dim, latent_dim] at z [1, latent_dim]."""
    return torch.autograd.functional.jacobian(lambda z: flow(z, context).z, z)[0, :, 0]


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


@pytest.mark.parametrize("latent_dim", [2, 3, 6])
def test_the_log_determinant_is_that_of_the_jacobian(name, latent_dim):
    flow, z, context = flow_with(name, latent_dim), noise(1, latent_dim), noise(1, CONTEXT, seed=1)
    expected = jacobian(flow, z, context).det().log()
    torch.testing.assert_close(flow(z, context).log_diagonal.sum(), expected)
    assert expected.abs() > 0.05


def test_gradients_are_those_of_finite_differences(name):
    """By z, by the context and by every weight, of z and of the log diagonal."""
    flow, z, context = flow_with(name, 3, layers=2, hidden=(4,)), noise(2, 3), noise(2, CONTEXT, seed=1)
    names, weights = zip(*flow.named_parameters(), strict=True)

    def moved(z, context, *weights):
        return tuple(functional_call(flow, dict(zip(names, weights, strict=True)), (z, context)))

    given = [value.detach().requires_grad_() for value in (z, context, *weights)]
    assert gradcheck(moved, given)


def test_gradients_of_the_way_back_are_those_of_finite_differences():
    flow = flow_with("coupling", 3, layers=2, hidden=(4,))
    given = noise(2, 3).requires_grad_(), noise(2, CONTEXT, seed=1).requires_grad_()
    assert gradcheck(lambda z, context: tuple(flow.inverse(z, context)), given)


@torch.no_grad()
def test_a_flow_can_be_inverted(name):
    flow, z, context = flow_with(name), noise(4, 5), noise(4, CONTEXT, seed=1)
    torch.testing.assert_close(back(flow, flow(z, context).z, context), z)


@torch.no_grad()
def test_a_coupling_flow_goes_back_at_once():
    flow, z, context = flow_with("coupling"), noise(4, 5), noise(4, CONTEXT, seed=1)
    there = flow(z, context)
    again = flow.inverse(there.z, context)
    torch.testing.assert_close(again.z, z)
    torch.testing.assert_close(again.log_diagonal.sum(1), -there.log_diagonal.sum(1))


def test_an_autoregressive_layer_moves_a_dimension_by_those_before_it():
    """Its Jacobian is triangular, in the order of the layer, and full below the diagonal."""
    flow, z, context = flow_with("iaf", 5, layers=2, hidden=(12,)), noise(1, 5), noise(1, CONTEXT)
    first, second = (jacobian(layer, z, context) for layer in flow.layers)
    below = torch.ones(5, 5).tril() > 0
    assert (first[~below] == 0).all()
    assert (first[below] != 0).all()
    assert (second[~below.T] == 0).all()
    assert (second[below.T] != 0).all()


@pytest.mark.parametrize("latent_dim", [2, 3, 7])
def test_of_two_coupling_layers_each_moves_what_the_other_keeps(latent_dim):
    flow, z, context = flow_with("coupling", latent_dim, layers=4), noise(1, latent_dim), noise(1, CONTEXT)
    for first, second in (flow.layers[:2], flow.layers[2:]):
        moved = [(layer(z, context).z != z)[0] for layer in (first, second)]
        assert (moved[0] ^ moved[1]).all()
        assert 0 < moved[0].sum() < latent_dim


def test_coupling_layers_split_by_halves_and_by_even_and_odd_places_in_turn():
    moved = torch.stack([layer.moves for layer in flow_with("coupling", 6, layers=8).layers])
    halves, places = [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]
    expected = torch.tensor([halves, [1 - side for side in halves], places, [1 - side for side in places]])
    assert torch.equal(moved, expected.repeat(2, 1).float())


def test_every_dimension_comes_to_depend_on_every_other(name):
    flow = flow_with(name, 6, layers=4)
    assert (jacobian(flow, noise(1, 6), noise(1, CONTEXT, seed=1)) != 0).all()


@pytest.mark.parametrize("hidden", [(2,), (9, 7)])  # fewer units than dimensions, and more
def test_the_context_reaches_every_dimension(name, hidden):
    flow, z = flow_with(name, hidden=hidden), noise(1, 5)
    of_context = torch.autograd.functional.jacobian(lambda context: flow(z, context).z, noise(1, CONTEXT))[0, :, 0]
    assert (of_context.abs().max(1).values > 0).all()


@torch.no_grad()
def test_at_the_start_z_is_scaled_alone(name):
    """So a posterior starts as a Gaussian with independent dimensions, and a prior as N(0, I)."""
    flow = MAKERS[name](4, FlowSize(3, (8,)), CONTEXT).double()
    z = noise(6, 4)
    moved, log_diagonal = flow(z, noise(6, CONTEXT, seed=1))
    torch.testing.assert_close(moved, z * log_diagonal[:1].exp())
    assert log_diagonal.exp().min() > 0.65


@torch.no_grad()
def test_no_weights_blow_z_up(name):
    flow = flow_with(name, layers=4, wildness=1e3)
    moved, log_diagonal = flow(noise(8, 5), noise(8, CONTEXT))
    assert moved.isfinite().all()
    assert log_diagonal.isfinite().all()


def test_a_posterior_by_another_name_is_refused():
    size = FlowSize(2, (8,))
    with pytest.raises(UserError, match="model.posterior is 'planar'; expected one of diagonal, iaf, coupling"):
        posterior_flow("planar", 2, size)
    assert posterior_flow("diagonal", 2, size) is None
    assert posterior_flow("iaf", 2, size).context_dim == 8
