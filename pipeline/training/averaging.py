"""An exponential moving average of the weights, which validates and samples better than the last step's."""

import torch
from torch import Tensor


class WeightAverage:
    """Keeps `weights`, a flat buffer that trails the trained one.

    The decay rises as (1 + t) / (10 + t) up to `decay`, so that the first steps do not weigh for ever. With decay 0,
    `weights` are the trained ones themselves.
    """

    def __init__(self, trained: Tensor, decay: float) -> None:
        self.decay = decay
        self.trained = trained
        self.weights = trained.clone() if decay > 0 else trained

    @torch.no_grad()
    def update(self, step: int, applied: Tensor | None = None) -> None:
        """Move the average towards the trained weights after step 1, 2, ... of the training.

        `applied` is a factor of 0 or 1 on the device: a step that was not taken leaves the average where it is.
        """
        if self.decay == 0:
            return
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        self.weights.lerp_(self.trained, share if applied is None else share * applied)
