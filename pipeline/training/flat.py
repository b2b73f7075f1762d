"""All weights of a model in one buffer, and all gradients in another.

The optimizer, the weight average, the norm of the gradient, the reduction over ranks and the checkpoint are then one
operation each, however many layers there are.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_LAYERS = (nn.Linear, nn.Conv2d)  # those whose weights autocast would cast


class FlatParameters:
    """Makes every parameter of `model` a view of one buffer, in the order of `model.parameters()`.

    Kernels of convolutions lie channels last, so that feature maps do, too: resizing them is many times faster then.

    Args:
        model: whose parameters become views.
        dtype: in which dense and convolutional layers compute. Other than float32, they see a copy of the weights in
            that type, made by `publish` once a step in place of one cast for each layer; what else there is to learn
            (a sigma, a prior) stays float32.

    Attributes:
        weights: the buffer, float32 [number of weights], that an optimizer moves.
        gradients: of the last step, float32 [number of weights].
        sizes: how many weights each parameter has.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        self._parameters = list(model.parameters())
        self.weights = torch.cat([_last_channels(parameter.detach()).flatten() for parameter in self._parameters])
        self.gradients = torch.zeros_like(self.weights)
        self._seen = self.weights if dtype == torch.float32 else self.weights.to(dtype)
        self.sizes = [parameter.numel() for parameter in self._parameters]
        self._slots = list(_views(self.gradients, self._parameters))
        seen, exact = (list(_views(buffer, self._parameters)) for buffer in (self._seen, self.weights))
        layers = (module for module in model.modules() if isinstance(module, _LAYERS))
        multiplied = {id(parameter) for layer in layers for parameter in layer.parameters()}
        for parameter, low, high in zip(self._parameters, seen, exact, strict=True):
            parameter.data = low if id(parameter) in multiplied else high

    def publish(self) -> None:
        """Let the model see the weights as they are now."""
        if self._seen is not self.weights:
            self._seen.copy_(self.weights)

    def differentiate(self, loss: Tensor) -> None:
        """Fill `gradients` with those of a loss, []; zero where it depends on no such weight.

        Not by `backward`, which would leave them at the parameters first: torch.compile joins this with the loss.
        """
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        pairs = list(zip(self._slots, found, strict=True))
        for slot in (slot for slot, gradient in pairs if gradient is None):
            slot.zero_()
        given = [(slot, gradient) for slot, gradient in pairs if gradient is not None]
        torch._foreach_copy_([slot for slot, _ in given], [gradient for _, gradient in given])


def named_weights(model: nn.Module, weights: Tensor) -> dict[str, Tensor]:
    """A state dict of `model` with the values of a flat buffer; copies, float32, contiguous, on the CPU."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    named = list(model.named_parameters())
    views = _views(weights.detach().cpu(), [parameter for _, parameter in named])
    for (name, _), view in zip(named, views, strict=True):
        state[name] = view.clone(memory_format=torch.contiguous_format)
    return state


def _views(buffer: Tensor, parameters: list[nn.Parameter]) -> Iterator[Tensor]:
    """The part of the buffer that belongs to each parameter, in its shape."""
    start = 0
    for parameter in parameters:
        part = buffer[start : start + parameter.numel()]
        start += parameter.numel()
        if parameter.dim() == 4:  # (out, in, height, width)
            shape = _last_channels(parameter).shape
            yield part.view(shape).permute(0, 3, 1, 2)
        else:
            yield part.view(parameter.shape)


def _last_channels(parameter: Tensor) -> Tensor:
    """(out, in, height, width) -> (out, height, width, in); other shapes stay."""
    return parameter.permute(0, 2, 3, 1) if parameter.dim() == 4 else parameter
