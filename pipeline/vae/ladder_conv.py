"""Groups of latents between convolutions, at several resolutions: each group is a stack of planes, as is the state.

As many groups at each stage: 4 groups at 2 stages of 28x28 images are 2 of 7x7 places, then 2 of 14x14. All groups have
as many latents at a place (planes), so that a group at twice the side has four times the latents (Vahdat and Kautz,
arXiv 2007.03898, section 3.1).
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.vae.densities import bounded_logvar
from pipeline.vae.ladder import LadderDecoder, LadderEncoder, strong, with_class
from pipeline.vae.networks import (
    LayerNorm2d,
    Layout,
    Resize,
    Standardize,
    activated,
    features_given,
    stage_sizes,
)
from pipeline.vae.posteriors import reparameterize


class _Place(NamedTuple):
    """Where a group stands: the channels of its state, and its latents [planes, height, width]."""

    channels: int
    latents: tuple[int, int, int]


class ConvLadderEncoder(LadderEncoder):
    """From images up: planes of features for each group, and what the posterior makes of them on the way down.

    Args:
        image_shape: C, H, W.
        layout: `hidden` are the channels of the stages, each of which halves the image.
        latent_dim: of all groups together.
        groups: how many.
        classes: of a conditional model; each has features of its own, added to the first.

    Raises:
        UserError: the groups do not divide among the stages, or the latents among the places.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], layout: Layout, latent_dim: int, groups: int, classes: int = 0
    ) -> None:
        super().__init__()
        places = _places(image_shape, layout, latent_dim, groups)
        bottom = places[::-1]  # the way up meets the bottom group first
        self.first = nn.Sequential(Standardize(layout.pixels), _linear(image_shape[0], bottom[0].channels, stride=2))
        self.up = nn.ModuleList(_smaller(below, above) for below, above in pairwise(bottom))
        self.residuals = nn.ModuleList(_residual(place.channels, layout) for place in bottom)
        self.of_image = nn.ModuleList(_product(place.channels, place.channels, layout) for place in places)
        self.of_state = nn.ModuleList(_product(place.channels, place.channels, layout, bias=False) for place in places)
        self.heads = nn.ModuleList(
            nn.Sequential(
                *activated(place.channels, layout, LayerNorm2d), strong(_conv(place.channels, 2 * place.latents[0]))
            )
            for place in places
        )
        self.class_bias = nn.Embedding(classes, layout.hidden[0]) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images [batch, C, H, W] in [0, 1] -> the features of each group, the top one's first, [batch, c, h, w]."""
        level = with_class(self.first(x), self.class_bias, label)
        levels = []
        for up, residual in zip([nn.Identity(), *self.up], self.residuals, strict=True):
            level = up(level)
            level = level + residual(level)
            levels.append(level)
        return tuple(layer(level) for layer, level in zip(self.of_image, reversed(levels), strict=True))

    def group(self, place: int, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s^2 of one group's u, [batch, group], under the state that the groups above it left."""
        outputs = self.heads[place](features + self.of_state[place](state)).to(state.dtype)
        mu, logvar = outputs.flatten(1).chunk(2, dim=1)
        return mu, bounded_logvar(logvar)


class ConvLadderDecoder(LadderDecoder):
    """From u down to the likelihood's parameters: the state grows to the image's size, and each z moves it.

    Args:
        output_shape: of the likelihood's parameters of one image.
        layout: `hidden` are the channels of the stages, the largest image's first.
        latent_dim: of all groups together.
        groups: how many.
        classes: of a conditional model; each has a start of its own, added to that of all.

    Raises:
        UserError: the groups do not divide among the stages, or the latents among the places.
    """

    def __init__(
        self, output_shape: tuple[int, int, int], layout: Layout, latent_dim: int, groups: int, classes: int = 0
    ) -> None:
        super().__init__()
        places = _places(output_shape, layout, latent_dim, groups)
        self._shapes = [place.latents for place in places]
        self.sizes = tuple(planes * height * width for planes, height, width in self._shapes)
        top = places[0]
        self.start = nn.Parameter(torch.zeros(top.channels, *top.latents[1:]))
        self.priors = nn.ModuleList(_conv(place.channels, 2 * place.latents[0]) for place in places)
        self.of_z = nn.ModuleList(_conv(place.latents[0], place.channels, bias=False) for place in places)
        self.down = nn.ModuleList(_residual(place.channels, layout) for place in places)
        self.rise = nn.ModuleList(
            _larger(above, below)
            for above, below in zip(places, [*places[1:], _Place(layout.hidden[0], output_shape)], strict=True)
        )
        self.last = _conv(layout.hidden[0], output_shape[0])
        self.class_bias = nn.Embedding(classes, top.channels) if classes else None

    def begin(self, like: Tensor, label: Tensor | None = None) -> Tensor:
        """The state above the top group, [batch, c, h, w], for as many examples as `like` has."""
        start = self.start.to(like.dtype).expand(like.shape[0], -1, -1, -1)
        return with_class(start, self.class_bias, label)

    def group(self, place: int, u: Tensor, state: Tensor) -> Tensor:
        """The state below a group whose whitened latents are u, [batch, group]."""
        u = u.view(-1, *self._shapes[place])
        mu, logvar = self.priors[place](state).to(u.dtype).chunk(2, dim=1)
        z = reparameterize(mu, bounded_logvar(logvar), u)
        moved = state + self.of_z[place](z)
        moved = moved + self.down[place](moved)
        risen: Tensor = self.rise[place](moved).to(u.dtype)
        return risen

    def end(self, state: Tensor) -> Tensor:
        """The likelihood's parameters from the state below the bottom group."""
        parameters: Tensor = self.last(state).to(state.dtype)
        return parameters


def _places(shape: tuple[int, int, int], layout: Layout, latent_dim: int, groups: int) -> list[_Place]:
    """Of each group, the top one's first."""
    stages = [*zip(layout.hidden, stage_sizes(shape, layout.hidden)[1:], strict=True)][::-1]
    if groups % len(stages):
        raise UserError(
            f"model.latent_groups is {groups} while model.hidden has {len(stages)} stages; "
            "expected as many groups at each, for model.group_network: conv"
        )
    at_stage = groups // len(stages)
    latents = at_stage * sum(height * width for _, (height, width) in stages)
    if latent_dim % latents:
        sizes = ", ".join(f"{at_stage} of {height}x{width}" for _, (height, width) in stages)
        raise UserError(
            f"model.latent_dim is {latent_dim}; expected a multiple of {latents}, the places of all groups ({sizes}), "
            "for model.group_network: conv"
        )
    planes = latent_dim // latents
    return [_Place(channels, (planes, *size)) for channels, size in stages for _ in range(at_stage)]


def _conv(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=bias)


def _product(before: int, after: int, layout: Layout, bias: bool = True) -> nn.Conv2d:
    return _conv(before, features_given(after, layout), bias)


def _residual(channels: int, layout: Layout) -> nn.Sequential:
    """What planes are moved by: on the way up the features, on the way down the state with a group's z in it."""
    return nn.Sequential(
        _product(channels, channels, layout), *activated(channels, layout, LayerNorm2d), _conv(channels, channels)
    )


def _linear(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """Without a non-linearity; its output varies as much as its input does, through however many stages."""
    size = 3 if stride > 1 else 1
    product = nn.Conv2d(before, after, size, stride=stride, padding=size // 2)
    nn.init.normal_(product.weight, std=(before * size * size) ** -0.5)
    return product


def _smaller(below: _Place, above: _Place) -> nn.Module:
    """On the way up, from one group to the next."""
    if above.latents == below.latents:
        return nn.Identity()
    return _linear(below.channels, above.channels, stride=2)


def _larger(above: _Place, below: _Place) -> nn.Module:
    """On the way down, from one group to the next: what the groups above said arrives below as it is."""
    if above.latents == below.latents:
        return nn.Identity()
    _, height, width = below.latents
    return nn.Sequential(Resize((height, width)), _linear(above.channels, below.channels))
