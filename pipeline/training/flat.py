"""All weights of a model in one buffer, and all gradients in another.

The optimizer, the weight average, the norm of the gradient, the reduction over ranks and the checkpoint are then one
operation each, however many layers there are.
"""

import torch
from torch import Tensor, nn


class FlatParameters:
    """Makes every parameter of `model` a view of one buffer, in the order of `model.parameters()`.

    Attributes:
        weights: the buffer, float32 [number of weights], as the one parameter that an optimizer sees.
        gradients: where backward adds up, float32 [number of weights].
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        self.weights = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self.gradients = torch.zeros_like(self.weights)
        self.weights.grad = self.gradients
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.data = self.weights.data[start:stop].view_as(parameter)
            parameter.grad = self.gradients[start:stop].view_as(parameter)
            start = stop


def named_weights(model: nn.Module, weights: Tensor) -> dict[str, Tensor]:
    """A state dict of `model` with the values of a flat buffer; copies, on the CPU."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    start = 0
    for name, parameter in model.named_parameters():
        stop = start + parameter.numel()
        state[name] = weights[start:stop].detach().cpu().clone().view_as(parameter)
        start = stop
    return state
