"""A normal prior over the weights of p(z) and p(x|z), under which training is for the maximum a posteriori."""

import torch

from pipeline.training.flat import FlatParameters
from pipeline.vae.model import VAE


class WeightPrior:
    """-log p(theta) of theta ~ N(0, I / precision), which the images share alike (arXiv 1312.6114, section 5).

    Args:
        model: whose weights `flat` holds; theta are its generative parameters, those of p(z) and p(x|z).
        precision: 0 is no prior.
        images: in the whole training split, all ranks together.
    """

    def __init__(self, model: VAE, flat: FlatParameters, precision: float, images: int) -> None:
        self._flat, self._pull = flat, None
        if precision > 0:
            generative = {id(parameter) for parameter in model.generative_parameters()}
            ours = [float(id(parameter) in generative) for parameter in model.parameters()]
            sizes = torch.tensor(flat.sizes)
            pull = torch.repeat_interleave(torch.tensor(ours) * (precision / images), sizes)
            self._pull = pull.to(flat.weights.device)

    def add_gradient(self) -> None:
        """Add its gradient to that of a loss that is a mean over images."""
        if self._pull is not None:
            self._flat.gradients.addcmul_(self._flat.weights, self._pull)
