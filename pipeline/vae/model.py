"""The variational auto-encoder of Kingma and Welling, arXiv 1312.6114."""

import math
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.vae.densities import bounded_logvar
from pipeline.vae.likelihoods.make import make_likelihood
from pipeline.vae.networks import ACTIVATIONS, DECODERS, ENCODERS
from pipeline.vae.posteriors import DiagonalGaussian, Draw, Posterior
from pipeline.vae.priors import make_prior


@dataclass(frozen=True)
class VAEConfig:
    """All that is needed to rebuild a model; the values' meaning is that of params.yaml's `model` section.

    A field with a default is one that checkpoints of an earlier version lack.
    """

    image_shape: tuple[int, int, int]
    network: str
    hidden: tuple[int, ...]
    activation: str
    latent_dim: int
    likelihood: str
    sigma: float | str
    likelihood_components: int = 1
    prior: str = "standard"
    prior_components: int = 1

    def __post_init__(self) -> None:
        for name, known in {"network": tuple(ENCODERS), "activation": tuple(ACTIVATIONS)}.items():
            if getattr(self, name) not in known:
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not _are_sizes(self.image_shape) or len(self.image_shape) != 3:
            raise UserError(f"model.image_shape is {self.image_shape!r}; expected channels, height and width")
        for name, sizes in self._sizes().items():
            if not _are_sizes(sizes):
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected whole numbers above 0")
        is_number = isinstance(self.sigma, int | float) and 0 < self.sigma < math.inf
        if self.sigma not in ("learned", "optimal", "per_pixel") and not is_number:
            raise UserError(f"model.sigma is {self.sigma!r}; expected a number > 0, learned, optimal or per_pixel")

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        single = ("latent_dim", "likelihood_components", "prior_components")
        return {"hidden": self.hidden, **{name: (getattr(self, name),) for name in single}}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Rebuild from the JSON form of `dataclasses.asdict`.

        Raises:
            UserError: a field is missing, unknown, or of another kind.
        """
        if not isinstance(content, dict):
            raise UserError(f"model is {content!r}; expected an object")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        try:
            return cls(**fields)
        except TypeError as error:
            raise UserError(f"not a model's config: {error}") from None


class VAE(nn.Module):
    """q(z|x), p(z) and p(x|z), with x in [0, 1] of shape [batch, C, H, W] and z of shape [batch, latent_dim].

    Raises:
        UserError: the network does not fit the images.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.image_shape
        likelihood = make_likelihood(config.likelihood, channels, config.sigma, config.likelihood_components)
        parameter_shape = (likelihood.outputs, height, width)
        layout = (config.hidden, config.activation)
        self.encoder = ENCODERS[config.network](config.image_shape, *layout, 2 * config.latent_dim)
        self.decoder = DECODERS[config.network](parameter_shape, *layout, config.latent_dim)
        self.prior = make_prior(
            config.prior, config.latent_dim, config.prior_components, config.image_shape, self.encode
        )
        self.likelihood = likelihood

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x) as mu and logvar (the log of the variance, by `bounded_logvar`), each [batch, latent_dim]."""
        # Under autocast the network gives bfloat16; densities want the precision of their input.
        mu, logvar = self.encoder(x).to(x.dtype).chunk(2, dim=1)  # (batch, 2 * latent_dim)
        return mu, bounded_logvar(logvar)

    def posterior(self, x: Tensor) -> Posterior:
        """q(z|x) of images [batch, C, H, W]."""
        return DiagonalGaussian(*self.encode(x))

    def parameters_of(self, draw: Draw) -> Tensor:
        """`decode` of a draw's z, which some posteriors have done on the way."""
        return self.decode(draw.z) if draw.parameters is None else draw.parameters

    def decode(self, z: Tensor) -> Tensor:
        """The likelihood's parameters (logits, means, scales: see each), [batch, likelihood.outputs, H, W]."""
        parameters: Tensor = self.decoder(z).to(z.dtype)
        return parameters

    def mean(self, z: Tensor) -> Tensor:
        """Pixel means E[x|z], clipped to [0, 1], [batch, C, H, W]."""
        return self.likelihood.mean(self.decode(z)).clamp(0, 1)


def _are_sizes(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, int) and value > 0 for value in values)
