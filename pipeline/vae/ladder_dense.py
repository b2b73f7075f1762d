"""Groups of latents between dense layers: each is a vector, and so is the state that passes through them."""

import math

import torch
from torch import Tensor, nn

from pipeline.vae.densities import bounded_logvar
from pipeline.vae.ladder import LadderDecoder, LadderEncoder, strong, with_class
from pipeline.vae.networks import Layout, Standardize, activated, dense, features_given
from pipeline.vae.posteriors import reparameterize


class DenseLadderEncoder(LadderEncoder):
    """From images up: one vector of features for each group, and what the posterior makes of it on the way down.

    Args:
        image_shape: C, H, W.
        layout: `hidden` are the units of the layers below the bottom group, and again between two groups.
        latent_dim: of all groups together, a multiple of `groups`.
        groups: how many.
        classes: of a conditional model; each has features of its own, added to the first.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], layout: Layout, latent_dim: int, groups: int, classes: int = 0
    ) -> None:
        super().__init__()
        width = layout.hidden[-1]
        given = features_given(width, layout)
        below = dense([math.prod(image_shape), *layout.hidden], layout)
        self.first = nn.Sequential(nn.Flatten(), Standardize(layout.pixels), *below)
        self.up = nn.ModuleList(nn.Sequential(*dense([width, *layout.hidden], layout)) for _ in range(groups - 1))
        self.of_image = nn.ModuleList(nn.Linear(width, given) for _ in range(groups))
        self.of_state = nn.ModuleList(nn.Linear(width, given, bias=False) for _ in range(groups))
        heads = [strong(nn.Linear(width, 2 * latent_dim // groups)) for _ in range(groups)]
        self.heads = nn.ModuleList(nn.Sequential(*activated(width, layout, nn.LayerNorm), head) for head in heads)
        self.class_bias = nn.Embedding(classes, width) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        """Images [batch, C, H, W] in [0, 1] -> the features of each group, the top one's first, [batch, features]."""
        levels = [with_class(self.first(x), self.class_bias, label)]
        for layers in self.up:
            levels.append(layers(levels[-1]))
        return tuple(layer(level) for layer, level in zip(self.of_image, reversed(levels), strict=True))

    def group(self, place: int, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s^2 of one group's u, [batch, group], under the state that the groups above it left."""
        outputs = self.heads[place](features + self.of_state[place](state)).to(state.dtype)
        mu, logvar = outputs.chunk(2, dim=1)
        return mu, bounded_logvar(logvar)


class DenseLadderDecoder(LadderDecoder):
    """From u down to the likelihood's parameters: a state goes through the groups, and each z moves it.

    Args:
        output_shape: of the likelihood's parameters of one image.
        layout: `hidden` are the units of the layers between two groups.
        latent_dim: of all groups together, a multiple of `groups`.
        groups: how many.
        classes: of a conditional model; each has a start of its own, added to that of all.
    """

    def __init__(
        self, output_shape: tuple[int, int, int], layout: Layout, latent_dim: int, groups: int, classes: int = 0
    ) -> None:
        super().__init__()
        width, size = layout.hidden[-1], latent_dim // groups
        self.sizes = (size,) * groups
        self.start = nn.Parameter(torch.zeros(width))
        self.priors = nn.ModuleList(nn.Linear(width, 2 * size) for _ in range(groups))
        # z's weights start as those of so few inputs: among those of the state, z would drown and stay unused.
        given = features_given(layout.hidden[0], layout)
        self.of_state = nn.ModuleList(nn.Linear(width, given) for _ in range(groups))
        self.of_z = nn.ModuleList(nn.Linear(size, given, bias=False) for _ in range(groups))
        self.down = nn.ModuleList(nn.Sequential(*_after_first_product(layout)) for _ in range(groups))
        self.last = nn.Sequential(nn.Linear(width, math.prod(output_shape)), nn.Unflatten(1, output_shape))
        self.class_bias = nn.Embedding(classes, width) if classes else None

    def begin(self, like: Tensor, label: Tensor | None = None) -> Tensor:
        """The state above the top group, [batch, features], for as many examples as `like` has."""
        start = self.start.to(like.dtype).expand(like.shape[0], -1)
        return with_class(start, self.class_bias, label)

    def group(self, place: int, u: Tensor, state: Tensor) -> Tensor:
        """The state below a group whose whitened latents are u, [batch, group]."""
        mu, logvar = self.priors[place](state).to(u.dtype).chunk(2, dim=1)
        z = reparameterize(mu, bounded_logvar(logvar), u)
        product = self.of_state[place](state) + self.of_z[place](z)
        moved: Tensor = state + self.down[place](product).to(u.dtype)
        return moved

    def end(self, state: Tensor) -> Tensor:
        """The likelihood's parameters from the state below the bottom group."""
        parameters: Tensor = self.last(state).to(state.dtype)
        return parameters


def _after_first_product(layout: Layout) -> list[nn.Module]:
    """The hidden layers without the product that the first begins with."""
    return [*activated(layout.hidden[0], layout, nn.LayerNorm), *dense(layout.hidden, layout)]
