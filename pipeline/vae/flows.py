"""Invertible maps of z with a known Jacobian: affine coupling, and inverse autoregressive layers.

A layer says for each dimension by how much it stretches, the logarithm of the diagonal of its Jacobian, [batch,
latent_dim]: the Jacobian is triangular once the dimensions are put in the layer's order, so these sum to its log
determinant.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

FLOWS = ("iaf", "coupling")
_LARGEST_LOG_SCALE = 2.0  # of a coupling layer: no dimension is stretched or shrunk more than 7.4 times at once
_OPEN_GATE = 2.0  # of an autoregressive layer at the start: it keeps 88 % of z


class FlowSize(NamedTuple):
    """How many layers a flow has, and the units of each hidden layer of a layer's network."""

    layers: int
    hidden: tuple[int, ...]


class Moved(NamedTuple):
    """Where a map leads, and the logarithm of its Jacobian's diagonal on the way, each [batch, latent_dim]."""

    z: Tensor
    log_diagonal: Tensor


class MaskedLinear(nn.Linear):
    """A dense layer whose outputs see only the inputs that a mask, bool [outputs, inputs], shows them."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs] -> [batch, outputs]."""
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class Conditioner(nn.Module):
    """Two numbers for each dimension of z, made of the dimensions of a lower degree (MADE, arXiv 1502.03509).

    Args:
        degrees: of the dimensions, whole numbers from 0; those of degree 0 get constants.
        hidden: units of each hidden layer.
        context_dim: of what is told besides, and may be seen by all dimensions but those of degree 0; 0 for nothing.
    """

    def __init__(self, degrees: Tensor, hidden: Sequence[int], context_dim: int) -> None:
        super().__init__()
        highest = int(degrees.max())
        units = [degrees, *(torch.arange(width) * highest // width for width in hidden)]  # spread over 0..highest - 1
        layers = [MaskedLinear(above[:, None] >= below) for below, above in pairwise(units)]
        last = MaskedLinear((degrees[:, None] > units[-1]).repeat(2, 1))
        nn.init.zeros_(last.weight)  # every dimension starts with the same two constants
        nn.init.zeros_(last.bias)
        self.layers = nn.ModuleList([*layers, last])
        self.context = nn.Linear(context_dim, hidden[0], bias=False) if context_dim else None

    def forward(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """z [batch, latent_dim] and context [batch, context_dim] -> [batch, latent_dim] twice, zeros at the start."""
        hidden = self.layers[0](z)
        if self.context is not None:
            hidden = hidden + self.context(context)
        for layer in self.layers[1:]:
            hidden = layer(nn.functional.silu(hidden))
        # Under autocast the network gives bfloat16; densities want the precision of their input.
        first, second = hidden.to(z.dtype).chunk(2, dim=1)
        return first, second


class Coupling(nn.Module):
    """Some dimensions stretch and shift the others (RealNVP, Dinh et al., arXiv 1605.08803, equations 4 to 8).

    `moves`, bool [latent_dim], says which are moved. Logarithms of scales stay within 2 by a tanh.
    """

    moves: Tensor

    def __init__(self, moves: Tensor, hidden: Sequence[int], context_dim: int) -> None:
        super().__init__()
        self.register_buffer("moves", moves.float(), persistent=False)
        self.conditioner = Conditioner(moves.long(), hidden, context_dim)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Moved:
        """z -> z * scale + shift."""
        shift, log_scale = self._shift_and_log_scale(z, context)
        return Moved(z * log_scale.exp() + shift, log_scale)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Moved:
        """z -> (z - shift) / scale: what is not moved still says by how much."""
        shift, log_scale = self._shift_and_log_scale(z, context)
        return Moved((z - shift) * (-log_scale).exp(), -log_scale)

    def _shift_and_log_scale(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.conditioner(z, context)
        log_scale = _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)
        return shift * self.moves, log_scale * self.moves


class InverseAutoregressive(nn.Module):
    """Each dimension is moved by those of a lower degree: z -> gate * z + (1 - gate) * m.

    Kingma et al. 2016, arXiv 1606.04934, equations 13 and 14, with a MADE for the autoregressive network. A gate lies
    between 0 and 1, so that no number of layers blows z up. `degrees` are 1 to latent_dim in some order.
    """

    def __init__(self, degrees: Tensor, hidden: Sequence[int], context_dim: int) -> None:
        super().__init__()
        self.conditioner = Conditioner(degrees, hidden, context_dim)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Moved:
        """All dimensions at once; the way back would take one pass for each of them."""
        m, openness = self.conditioner(z, context)
        openness = openness + _OPEN_GATE
        gate = torch.sigmoid(openness)
        return Moved(gate * z + (1 - gate) * m, nn.functional.logsigmoid(openness))


class Flow(nn.Module):
    """Layers one behind the other; logarithms of diagonals add up, dimension by dimension."""

    def __init__(self, layers: Sequence[nn.Module], context_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.context_dim = context_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> Moved:
        """z [batch, latent_dim] in the light of a context [batch, context_dim] or None."""
        log_diagonal = torch.zeros_like(z)
        for layer in self.layers:
            z, stretched = layer(z, context)
            log_diagonal = log_diagonal + stretched
        return Moved(z, log_diagonal)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Moved:
        """The way back, through layers that have one; the Jacobian is that of the way back."""
        log_diagonal = torch.zeros_like(z)
        for layer in reversed(self.layers):
            z, stretched = cast("Coupling", layer).inverse(z, context)
            log_diagonal = log_diagonal + stretched
        return Moved(z, log_diagonal)


def coupling_flow(latent_dim: int, size: FlowSize, context_dim: int = 0) -> Flow:
    """Coupling layers; of each two, one moves the dimensions that the other keeps. Invertible at the same price.

    The first two halve z in the middle, the next two by even and odd places, and so on in turn, so that every dimension
    hears directly of all but those at every second place of its own half, which the dimensions between tell it of. An
    odd latent_dim is split one dimension more to the one side.
    """
    place = torch.arange(latent_dim)
    splits = (2 * place >= latent_dim, place % 2 == 1)
    moved = [splits[layer // 2 % 2] ^ bool(layer % 2) for layer in range(size.layers)]
    return Flow([Coupling(moves, size.hidden, context_dim) for moves in moved], context_dim)


def inverse_autoregressive_flow(latent_dim: int, size: FlowSize, context_dim: int) -> Flow:
    """Autoregressive layers, each in the reverse order of the one before (arXiv 1606.04934, section 4)."""
    order = torch.arange(latent_dim) + 1
    orders = [order if layer % 2 == 0 else order.flip(0) for layer in range(size.layers)]
    return Flow([InverseAutoregressive(degrees, size.hidden, context_dim) for degrees in orders], context_dim)


def posterior_flow(name: str, latent_dim: int, size: FlowSize) -> Flow | None:
    """What moves the Gaussian of q(z|x), by its name in params.yaml; None for `diagonal`, which stays one.

    Raises:
        UserError: there is no such posterior.
    """
    if name == "diagonal":
        return None
    if name not in FLOWS:
        raise UserError(f"model.posterior is {name!r}; expected one of diagonal, {', '.join(FLOWS)}")
    make = inverse_autoregressive_flow if name == "iaf" else coupling_flow
    return make(latent_dim, size, context_dim=size.hidden[0])
