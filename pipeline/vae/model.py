"""The variational auto-encoder of Kingma and Welling, arXiv 1312.6114."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.vae.condition import CONDITIONS, Conditioned, check_label
from pipeline.vae.densities import bounded_logvar
from pipeline.vae.flows import FlowSize, posterior_flow
from pipeline.vae.ladder import LadderDecoder, LadderEncoder, LadderPosterior
from pipeline.vae.ladder_conv import ConvLadderDecoder, ConvLadderEncoder
from pipeline.vae.ladder_dense import DenseLadderDecoder, DenseLadderEncoder
from pipeline.vae.likelihoods.make import make_likelihood
from pipeline.vae.networks import ACTIVATIONS, DECODERS, ENCODERS, NETWORKS, NORMALIZATIONS, Layout, PixelScale
from pipeline.vae.posteriors import DiagonalGaussian, Draw, FlowPosterior, Posterior
from pipeline.vae.priors.make import make_prior

GROUP_NETWORKS = {
    "dense": (DenseLadderEncoder, DenseLadderDecoder),
    "conv": (ConvLadderEncoder, ConvLadderDecoder),
}

_CHOICES: dict[str, Collection[str]] = {
    "network": NETWORKS,
    "group_network": GROUP_NETWORKS,
    "activation": ACTIVATIONS,
    "normalization": NORMALIZATIONS,
    "condition": CONDITIONS,
}


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
    condition: str = "none"
    classes: tuple[str, ...] = ()
    """Their names, in the order of the labels, where `condition` is label; else none."""
    normalization: str = "none"
    latent_groups: int = 1
    """Of a ladder; other networks have one whatever it says."""
    posterior: str = "diagonal"
    flow_layers: int = 1
    flow_hidden: tuple[int, ...] = (1,)
    residual_blocks: int = 0
    group_network: str = "dense"
    """Of a ladder."""
    pixel_mean: float = 0.5
    """This and the next: of the data, of pixels in [0, 1]; the encoder sees pixels standardised by them."""
    pixel_standard_deviation: float = 0.5

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if not _are_sizes(self.image_shape) or len(self.image_shape) != 3:
            raise UserError(f"model.image_shape is {self.image_shape!r}; expected channels, height and width")
        for name, sizes in self._sizes().items():
            if not _are_sizes(sizes):
                raise UserError(f"model.{name} is {getattr(self, name)!r}; expected whole numbers above 0")
        is_above_0 = _is_number(self.sigma) and float(self.sigma) > 0
        if self.sigma not in ("learned", "optimal", "per_pixel") and not is_above_0:
            raise UserError(f"model.sigma is {self.sigma!r}; expected a number > 0, learned, optimal or per_pixel")
        self._check_classes()
        if not isinstance(self.residual_blocks, int) or self.residual_blocks < 0:
            raise UserError(f"model.residual_blocks is {self.residual_blocks!r}; expected a whole number from 0 on")
        if not _is_number(self.pixel_mean):
            raise UserError(f"model.pixel_mean is {self.pixel_mean!r}; expected a number")
        if not _is_number(self.pixel_standard_deviation) or self.pixel_standard_deviation <= 0:
            value = self.pixel_standard_deviation
            raise UserError(f"model.pixel_standard_deviation is {value!r}; expected a number > 0")
        if self.network == "ladder":
            self._check_ladder()

    def _check_ladder(self) -> None:
        if not self.hidden:
            raise UserError("model.hidden is []; expected at least one layer of units for model.network: ladder")
        if self.group_network == "dense" and self.latent_dim % self.latent_groups:
            expected = f"a multiple of model.latent_groups: {self.latent_groups}"
            raise UserError(f"model.latent_dim is {self.latent_dim}; expected {expected}")
        for name, expected in {"prior": "standard", "posterior": "diagonal"}.items():
            if getattr(self, name) != expected:
                raise UserError(
                    f"model.{name} is {getattr(self, name)!r} while model.network is 'ladder'; expected {expected}"
                )

    def _check_classes(self) -> None:
        names, conditional = self.classes, self.condition == "label"
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise UserError(f"model.classes is {names!r:.60}; expected a list of names")
        if len(set(names)) != len(names):
            raise UserError(f"model.classes is {names!r:.60}; expected each name once")
        if conditional != bool(names):
            expected = "the names of the classes" if conditional else "none"
            raise UserError(f"model.classes has {len(names)} names; expected {expected} for condition {self.condition}")

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        single = ("latent_dim", "likelihood_components", "prior_components", "latent_groups", "flow_layers")
        several = {"hidden": self.hidden, "flow_hidden": self.flow_hidden}
        return several | {name: (getattr(self, name),) for name in single}

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

    A conditional model is q(z|x, y), p(z) or p(z|y), and p(x|z, y): its methods take the classes as `label`, int64
    [batch], from 0, and `prior.given(label)` is its prior. Another model takes none; either refuses the other's call.

    Raises:
        UserError: the network does not fit the images.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.image_shape
        likelihood = make_likelihood(config.likelihood, channels, config.sigma, config.likelihood_components)
        flow_size = FlowSize(config.flow_layers, config.flow_hidden)
        flow = posterior_flow(config.posterior, config.latent_dim, flow_size)
        context_dim = flow.context_dim if flow else 0
        self.encoder, self.decoder = _networks(config, (likelihood.outputs, height, width), context_dim)
        self.prior = make_prior(
            config.prior,
            config.latent_dim,
            config.prior_components,
            config.image_shape,
            self.encode,
            len(config.classes),
            flow=flow_size,
        )
        self.likelihood = likelihood
        self.flow = flow

    def generative_parameters(self) -> list[nn.Parameter]:
        """theta, those of p(z) and p(x|z); what is left is of q(z|x)."""
        modules = (self.prior, self.decoder, self.likelihood)
        return [parameter for module in modules for parameter in module.parameters()]

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many latents each group of a ladder has, the top one's first; of another network, none."""
        return self.decoder.sizes if isinstance(self.decoder, LadderDecoder) else ()

    def encode(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The Gaussian that q(z|x) is, or that its flow starts from: mu and logvar, each [batch, latent_dim].

        logvar is the log of the variance, by `bounded_logvar`. Of a ladder, that which stands for q.
        """
        if isinstance(self.encoder, LadderEncoder):
            q = self.posterior(x, label)
            return q.mu, q.logvar
        mu, logvar, _ = self._encode(x, label)
        return mu, logvar

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior:
        """q(z|x) of images [batch, C, H, W]."""
        if isinstance(self.encoder, LadderEncoder) and isinstance(self.decoder, LadderDecoder):
            check_label(label, len(self.config.classes))
            return LadderPosterior(self.encoder, self.decoder, self.encoder(x, label), x.dtype, label)
        mu, logvar, context = self._encode(x, label)
        gaussian = DiagonalGaussian(mu, logvar)
        return gaussian if self.flow is None else FlowPosterior(gaussian, self.flow, context)

    def parameters_of(self, draw: Draw, label: Tensor | None = None) -> Tensor:
        """`decode` of a draw's z, which some posteriors have done on the way."""
        return self.decode(draw.z, label) if draw.parameters is None else draw.parameters

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The likelihood's parameters (logits, means, scales: see each), [batch, likelihood.outputs, H, W]."""
        return self._run(self.decoder, z, label)

    def mean(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Pixel means E[x|z], clipped to [0, 1], [batch, C, H, W]."""
        return self.likelihood.mean(self.decode(z, label)).clamp(0, 1)

    def _encode(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """mu, logvar and what the encoder tells the flow, [batch, context_dim]."""
        outputs = self._run(self.encoder, x, label)  # (batch, 2 * latent_dim + context_dim)
        latent_dim = self.config.latent_dim
        mu, logvar, context = outputs.tensor_split((latent_dim, 2 * latent_dim), dim=1)
        return mu, bounded_logvar(logvar), context

    def _run(self, network: nn.Module, given: Tensor, label: Tensor | None) -> Tensor:
        """What a network makes of its input, in the precision of that input."""
        check_label(label, len(self.config.classes))
        # Under autocast the network gives bfloat16; densities want the precision of their input.
        outputs: Tensor = network(given) if label is None else network(given, label)
        return outputs.to(given.dtype)


def _networks(
    config: VAEConfig, parameter_shape: tuple[int, int, int], context_dim: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder, with what it tells a flow, and decoder, which gives the likelihood's parameters of an image."""
    pixels = PixelScale(config.pixel_mean, config.pixel_standard_deviation)
    layout = Layout(config.hidden, config.activation, config.normalization, config.residual_blocks, pixels)
    if config.network == "ladder":
        sizes = (config.latent_dim, config.latent_groups, len(config.classes))
        of_images, of_groups = GROUP_NETWORKS[config.group_network]
        return of_images(config.image_shape, layout, *sizes), of_groups(parameter_shape, layout, *sizes)
    encoder = ENCODERS[config.network](config.image_shape, layout, 2 * config.latent_dim + context_dim)
    decoder = DECODERS[config.network](parameter_shape, layout, config.latent_dim)
    classes = len(config.classes)
    return (Conditioned(encoder, classes), Conditioned(decoder, classes)) if classes else (encoder, decoder)


def _are_sizes(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, int) and value > 0 for value in values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
