"""The model as apps meet it: pixels as they hold them on the outside, the network's own layout inside."""

import torch
from torch import Tensor, nn

from pipeline.vae.model import VAE


class Decoder(nn.Module):
    """z float32 [n, latent_dim] -> x float32 [n, C, H, W], pixel means in [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        """The pixel means of each row's z."""
        return self.vae.mean(z)


class Encoder(nn.Module):
    """images uint8 [n, H, W, C] -> mu and logvar of q(z|x), each float32 [n, latent_dim]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of each row's image."""
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 255  # (n, C, H, W)
        return self.vae.encode(x)
