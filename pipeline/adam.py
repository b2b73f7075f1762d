"""Adam (Kingma and Ba, arXiv 1412.6980) on one flat buffer."""

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class FlatAdam:
    """torch's fused Adam without the bookkeeping of `torch.optim`, which costs as much as a small layer.

    Args:
        weights: float32 [n]; moved in place.
        gradients: float32 [n], read at each step.
    """

    def __init__(self, weights: Tensor, gradients: Tensor) -> None:
        self._weights, self._gradients = weights, gradients
        step = torch.zeros((), dtype=torch.float32, device=weights.device)
        self._state = {"step": step, "exp_avg": torch.zeros_like(weights), "exp_avg_sq": torch.zeros_like(weights)}

    @torch.no_grad()
    def step(self, learning_rate: float, refused: Tensor | None = None) -> None:
        """Move the weights once; not where `refused`, a float32 [] on the device, is 1."""
        adam(
            [self._weights],
            [self._gradients],
            [self._state["exp_avg"]],
            [self._state["exp_avg_sq"]],
            [],
            [self._state["step"]],
            fused=True,
            found_inf=refused,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Its state, under names that `load` takes back."""
        return {f"adam.{name}": value for name, value in self._state.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from here."""
        for name, value in self._state.items():
            value.copy_(tensors[f"adam.{name}"])
