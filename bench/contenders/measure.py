"""The one measure of all contenders: the ELBO on the test images, from the same noise."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIGMA = 0.1  # of the Gaussian pixels of the convolutional row


@torch.no_grad()
def test_elbo(
    file: str, network: str, encode: Callable[[Tensor], tuple[Tensor, Tensor]], decode: Callable[[Tensor], Tensor]
) -> float:
    """The mean over the test images, in nats; grey pixels under Bernoulli logits (mlp), or a Gaussian (conv).

    Args:
        file: .npy, uint8 [n, C, H, W].
        network: mlp or conv.
        encode: x [n, C, H, W] in [0, 1] -> mu and logvar, each [n, latent_dim].
        decode: z -> logits or means, [n, C, H, W].
    """
    images = torch.from_numpy(np.load(file))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, total = torch.Generator().manual_seed(0), 0.0
    for some in images.split(1000):
        x = (some.float() / 255).to(device)
        mu, logvar = encode(x)
        eps = torch.randn(mu.shape, generator=generator).to(device)
        y = decode(mu + eps * torch.exp(0.5 * logvar)).reshape(x.shape)
        if network == "mlp":
            recon = -functional.binary_cross_entropy_with_logits(y, x, reduction="sum")
        else:
            recon = -0.5 * ((x - y).square() / SIGMA**2 + math.log(2 * math.pi * SIGMA**2)).sum()
        kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum()
        total += (recon - kl).item()
    return total / len(images)
