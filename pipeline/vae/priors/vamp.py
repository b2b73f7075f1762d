"""The VampPrior: a mixture of the encoder's own posteriors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.vae.condition import check_label
from pipeline.vae.priors.mixtures import Mixture, MixturePrior

Encode = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""mu and logvar, each [n, latent_dim], of images [n, C, H, W] in [0, 1] and their classes, int64 [n], or None."""

_DARKEST = 0.02  # of a pseudo-input at the start, and 1 minus the brightest: beyond, its gradient is too small to learn


class VampPrior(MixturePrior):
    """The mean of q(z|u) over K learned pseudo-inputs u (Tomczak and Welling 2018, arXiv 1705.07120, equation 9).

    `encode` gives mu and logvar of images [K, C, H, W] in [0, 1]. Pseudo-inputs are the sigmoid of weights, which
    `start_from` sets to images. Where the encoder sees one of `classes`, each pseudo-input keeps the class of the image
    that it started from, and p(z), the same for all classes, is the mean of q(z|u, y_u).
    """

    label: Tensor | None

    def __init__(
        self, latent_dim: int, components: int, image_shape: tuple[int, int, int], encode: Encode, classes: int = 0
    ) -> None:
        super().__init__(latent_dim)
        self.logits = nn.Parameter(torch.randn(components, *image_shape))
        self.register_buffer("label", torch.arange(components) % classes if classes else None)
        self._classes = classes
        self._encode = (encode,)  # in a tuple: the encoder is the model's, not a part of the prior

    def mixture(self) -> Mixture:
        """The posteriors of the pseudo-inputs, in equal shares."""
        mu, logvar = self._encode[0](torch.sigmoid(self.logits), self.label)
        shares = torch.full((len(mu),), len(mu), dtype=mu.dtype, device=mu.device)
        return Mixture(-shares.log(), mu, logvar)

    @torch.no_grad()
    def start_from(self, x: Tensor, label: Tensor | None = None) -> None:
        """Make images [K, C, H, W] in [0, 1] the pseudo-inputs; a conditional model wants their classes, int64 [K].

        Raises:
            UserError: the label is missing, or is one too many.
        """
        check_label(label, self._classes)
        self.logits.copy_(x.clamp(_DARKEST, 1 - _DARKEST).logit())
        if self.label is not None and label is not None:
            self.label.copy_(label)
