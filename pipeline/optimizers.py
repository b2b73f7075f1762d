"""torch's optimizers on one flat buffer, without `torch.optim`'s bookkeeping, which costs as much as a small layer."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_ADAGRAD_EPSILON = 1e-10


class FlatOptimizer(ABC):
    """Moves weights by their gradients.

    Args:
        weights: float32 [n]; moved in place.
        gradients: float32 [n], read at each step.
    """

    name: str
    moments: tuple[str, ...]
    """What it keeps of earlier gradients, each float32 [n] that starts at 0."""

    def __init__(self, weights: Tensor, gradients: Tensor) -> None:
        self._weights, self._gradients = weights, gradients
        step = torch.zeros((), dtype=torch.float32, device=weights.device)
        self._state = {"step": step} | {moment: torch.zeros_like(weights) for moment in self.moments}

    @abstractmethod
    def step(self, learning_rate: float, refused: Tensor | None = None) -> None:
        """Move the weights once; not where `refused`, a float32 [] on the device, is 1."""

    def tensors(self) -> dict[str, Tensor]:
        """Its state, under names that `load` takes back."""
        return {f"{self.name}.{part}": value for part, value in self._state.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from here."""
        for part, value in self._state.items():
            value.copy_(tensors[f"{self.name}.{part}"])


class FlatAdam(FlatOptimizer):
    """Adam (Kingma and Ba, arXiv 1412.6980)."""

    name, moments = "adam", ("exp_avg", "exp_avg_sq")

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


class FlatAdagrad(FlatOptimizer):
    """Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011), whose steps shrink with all that a weight has moved."""

    name, moments = "adagrad", ("sum",)

    @torch.no_grad()
    def step(self, learning_rate: float, refused: Tensor | None = None) -> None:
        """Move the weights once; not where `refused`, a float32 [] on the device, is 1."""
        adagrad(
            [self._weights],
            [self._gradients],
            [self._state["sum"]],
            [self._state["step"]],
            fused=True,
            found_inf=refused,
            lr=learning_rate,
            weight_decay=0.0,
            lr_decay=0.0,
            eps=_ADAGRAD_EPSILON,
            maximize=False,
        )


OPTIMIZERS: dict[str, type[FlatOptimizer]] = {kind.name: kind for kind in (FlatAdam, FlatAdagrad)}
