"""An exponential moving average of the weights, which validates and samples better than the last step's."""

import copy

import torch
from torch import Tensor

from pipeline.vae.model import VAE


class WeightAverage:
    """Keeps `model`, a copy whose weights trail those of the trained one.

    The decay rises as (1 + t) / (10 + t) up to `decay`, so that the first steps do not weigh for ever.
    With decay 0, `model` is the trained model itself.
    """

    def __init__(self, trained: VAE, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.trained = trained
        self.model = copy.deepcopy(trained).requires_grad_(False) if decay > 0 else trained

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the trained weights; called after each step."""
        if self.decay == 0:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged: list[Tensor] = list(self.model.parameters())
        trained: list[Tensor] = list(self.trained.parameters())
        torch._foreach_lerp_(averaged, trained, 1 - decay)
