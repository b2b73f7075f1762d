"""What training minimises. These shape the weights alone; what is reported is always the bound itself."""

from torch import Tensor

from pipeline.vae.bounds import Bound


def beta_vae_loss(bound: Bound, beta: float | Tensor) -> Tensor:
    """-(recon - beta * kl), the mean over the batch, in nats (Higgins et al. 2017; beta = 1 is minus the ELBO)."""
    return (beta * bound.kl - bound.recon).mean()


def autoencoder_loss(bound: Bound) -> Tensor:
    """-recon, the mean over the batch, in nats: with z at the posterior's mean this is a plain auto-encoder."""
    return -bound.recon.mean()
