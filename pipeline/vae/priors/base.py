"""What every prior tells of z, and the KL by which one that has none in closed form orders the dimensions."""

from torch import Generator, Tensor, nn

from pipeline.vae.densities import gaussian_kl_per_dimension, gaussian_log_prob


class Prior(nn.Module):
    """p(z) over z of shape [batch, latent_dim]."""

    has_closed_kl = False

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def given(self, label: Tensor | None) -> "Prior":  # noqa: ARG002
        """p(z|y) of the class of each row, int64 [batch]; most priors are the same for all of them."""
        return self

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats; [batch, latent_dim] -> [batch]."""
        raise NotImplementedError

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        """KL(q || p) in nats, [batch], or where it has no closed form, log q(z) - log p(z) of the given draw of q."""
        return gaussian_log_prob(z, mu, logvar) - self.log_prob(z)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension of z, both [latent_dim], or [batch, latent_dim] where rows differ."""
        raise NotImplementedError

    def kl_per_dimension(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """How far a Gaussian q is from p in each dimension, in nats: [batch, latent_dim] -> [batch, latent_dim].

        KL to the Gaussian with the mean and the variance of p's dimension; of the standard normal these add up to the
        KL, of another prior, whose dimensions are not independent, they order the dimensions.
        """
        mean, variance = (moment.to(mu) for moment in self.moments())
        return gaussian_kl_per_dimension((mu - mean) / variance.sqrt(), logvar - variance.log())

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw z, float32 [count, latent_dim], on the CPU."""
        raise NotImplementedError
