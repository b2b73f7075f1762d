"""A hierarchical model: groups of latents, each drawn under those before it (Soenderby et al. 2016, arXiv 1602.02282).

From the top group to the bottom one, z_i ~ N(mu_i(z_<i), sigma_i(z_<i)^2). All outside of this file sees the groups
whitened: u_i = (z_i - mu_i) / sigma_i, side by side. Of u the prior is N(0, I), the decoder a function of u alone, and
the posterior q(u_i | u_<i, x) = N(m_i, s_i^2), where m_i and s_i are what Vahdat and Kautz (arXiv 2007.03898, section
3.2) call the residual parametrisation, in units of the prior's sigma. A KL does not change with such a map.
"""

from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from pipeline.vae.densities import gaussian_kl_per_dimension, gaussian_log_prob
from pipeline.vae.posteriors import Draw, Posterior, reparameterize, repeat, repeated
from pipeline.vae.priors.base import Prior

_SIGNAL = 4.0  # beside noise of 1 a smaller m is lost on the decoder, and the KL closes a group before it is of use
Product = TypeVar("Product", nn.Linear, nn.Conv2d)


class LadderEncoder(nn.Module):
    """From images up: features for each group, and what the posterior makes of them on the way down."""

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images [batch, C, H, W] in [0, 1] -> the features of each group, the top one's first, [batch, ...]."""
        raise NotImplementedError

    def group(self, place: int, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s^2 of one group's u, [batch, group], under the state that the groups above it left."""
        raise NotImplementedError


class LadderDecoder(nn.Module):
    """From u down to the likelihood's parameters: a state goes through the groups, and each z moves it.

    Attributes:
        sizes: how many latents each group has, the top one's first.
    """

    sizes: tuple[int, ...]

    def forward(self, u: Tensor, label: Tensor | None = None) -> Tensor:
        """[batch, latent_dim] -> the likelihood's parameters, [batch, *output_shape]."""
        state = self.begin(u, label)
        for place, part in enumerate(torch.split(u, list(self.sizes), dim=1)):
            state = self.group(place, part, state)
        return self.end(state)

    def begin(self, like: Tensor, label: Tensor | None = None) -> Tensor:
        """The state above the top group, [batch, ...], for as many examples as `like` has."""
        raise NotImplementedError

    def group(self, place: int, u: Tensor, state: Tensor) -> Tensor:
        """The state below a group whose whitened latents are u, [batch, group]."""
        raise NotImplementedError

    def end(self, state: Tensor) -> Tensor:
        """The likelihood's parameters from the state below the bottom group."""
        raise NotImplementedError


def strong(head: Product) -> Product:
    """A product that gives m and log s^2, whose m starts with `_SIGNAL` times the usual weights."""
    with torch.no_grad():
        head.weight[: len(head.weight) // 2].mul_(_SIGNAL)
    return head


def with_class(features: Tensor, class_bias: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """Features [batch, width, ...], moved by those of each example's class, int64 [batch]."""
    if class_bias is None or label is None:
        return features
    moved: Tensor = class_bias(label).to(features.dtype)
    return features + moved.view(*moved.shape, *[1] * (features.ndim - 2))


class _Descent(NamedTuple):
    """One way through all groups: u, m and log s^2, each [batch, latent_dim], and the state at its end."""

    u: Tensor
    mu: Tensor
    logvar: Tensor
    state: Tensor


class _Move(NamedTuple):
    """What `Posterior.moved` was asked for, each [batch, latent_dim]."""

    shift: Tensor
    stretch: Tensor

    def after(self, first: "_Move") -> "_Move":
        """This move, of what another has moved already."""
        return _Move(first.shift + torch.exp(0.5 * first.stretch) * self.shift, first.stretch + self.stretch)


class LadderPosterior(Posterior):
    """q(u|x), a product over the groups of Gaussians, each under the u of those above it.

    Args:
        encoder: gave the features, and gives each group's Gaussian.
        decoder: the model's, which carries the state down.
        features: of each group, the top one's first.
        dtype: of u and of the densities; the features may be of less precision.
        label: of a conditional model, int64 [batch].
        move: by which each group's Gaussian lies beside the encoder's; None leaves it there.
    """

    def __init__(
        self,
        encoder: LadderEncoder,
        decoder: LadderDecoder,
        features: tuple[Tensor, ...],
        dtype: torch.dtype,
        label: Tensor | None = None,
        move: _Move | None = None,
    ) -> None:
        self._encoder, self._decoder, self._features, self._dtype = encoder, decoder, features, dtype
        self._label, self._move = label, move
        self._mean: _Descent | None = None

    @property
    def mu(self) -> Tensor:  # type: ignore[override]
        """m of each group where all groups above it took theirs: the mean path, [batch, latent_dim]."""
        return self._mean_path().mu

    @property
    def logvar(self) -> Tensor:  # type: ignore[override]
        """log s^2 along the mean path, [batch, latent_dim]."""
        return self._mean_path().logvar

    def draw(self, eps: Tensor) -> Draw:
        """u_i = m_i + s_i * eps_i, from the top group down; density, KL and pixels come with it.

        The KL is the sum of the groups' in closed form, each under the u drawn above it: its mean is KL(q || p).
        """
        way = self._descend(eps, is_noise=True)
        log_q = gaussian_log_prob(way.u, way.mu, way.logvar)
        kl = gaussian_kl_per_dimension(way.mu, way.logvar)
        return Draw(way.u, log_q, kl, self._decoder.end(way.state))

    def log_prob(self, draw: Draw) -> Tensor:
        """log q(u|x) in nats, [batch], also of a u that was drawn elsewhere."""
        if draw.log_q is not None:
            return draw.log_q
        way = self._descend(draw.z, is_noise=False)
        return gaussian_log_prob(way.u, way.mu, way.logvar)

    def kl(self, draw: Draw, prior: Prior) -> Tensor:
        """An unbiased estimate of KL(q || N(0, I)) in nats, [batch], with less noise than log q - log p."""
        return super().kl(draw, prior) if draw.kl_per_dimension is None else draw.kl_per_dimension.sum(1)

    def kl_per_dimension(self, draw: Draw, prior: Prior) -> Tensor:
        """In nats, [batch, latent_dim], each under the u drawn in the groups above it.

        Raises:
            ValueError: the draw was made elsewhere.
        """
        return super().kl_per_dimension(draw, prior) if draw.kl_per_dimension is None else draw.kl_per_dimension

    def repeat(self, times: int) -> Self:
        """Each example so many times in a row."""
        features = tuple(repeat(value, times) for value in self._features)
        label = repeated(self._label, times)
        move = None if self._move is None else _Move(*(repeat(value, times) for value in self._move))
        return type(self)(self._encoder, self._decoder, features, self._dtype, label, move)

    def moved(self, shift: Tensor, stretch: Tensor) -> Self:
        """Each group's Gaussian moved, wherever the groups above it took theirs."""
        move = _Move(shift, stretch)
        move = move if self._move is None else move.after(self._move)
        return type(self)(self._encoder, self._decoder, self._features, self._dtype, self._label, move)

    def _mean_path(self) -> _Descent:
        if self._mean is None:
            size = self._features[0].shape[0], sum(self._decoder.sizes)
            zeros = torch.zeros(size, dtype=self._dtype, device=self._features[0].device)
            self._mean = self._descend(zeros, is_noise=True)
        return self._mean

    def _descend(self, given: Tensor, is_noise: bool) -> _Descent:
        """Through all groups, `given` [batch, latent_dim] being eps, or u itself."""
        state = self._decoder.begin(given, self._label)
        groups = []
        for place, part in enumerate(self._split(given)):
            mu, logvar = self._gaussian(place, state)
            u = reparameterize(mu, logvar, part) if is_noise else part
            state = self._decoder.group(place, u, state)
            groups.append((u, mu, logvar))
        u, mu, logvar = (torch.cat(column, dim=1) for column in zip(*groups, strict=True))
        return _Descent(u, mu, logvar, state)

    def _gaussian(self, place: int, state: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s^2 of one group's u, each [batch, group], under the state that the groups above it left."""
        mu, logvar = self._encoder.group(place, self._features[place], state)
        if self._move is None:
            return mu, logvar
        shift, stretch = (self._split(value)[place] for value in self._move)
        return reparameterize(mu, logvar, shift), logvar + stretch

    def _split(self, value: Tensor) -> tuple[Tensor, ...]:
        """What each group has of [batch, latent_dim], the top one first."""
        return torch.split(value, list(self._decoder.sizes), dim=1)
