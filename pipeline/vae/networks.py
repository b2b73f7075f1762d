"""Encoders from images to features, decoders from z to the likelihood's parameters."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gated": partial(nn.GLU, dim=1),  # a * sigmoid(b): the layer before it gives a and b
}
NORMALIZATIONS = ("none", "layer")

SMALLEST_CONV_IMAGE = 8


class PixelScale(NamedTuple):
    """Mean and standard deviation of the pixels in [0, 1] that an encoder is to see; by default it sees 2 x - 1."""

    mean: float = 0.5
    standard_deviation: float = 0.5


class Layout(NamedTuple):
    """The layers of a network: the scale of its pixels, the rest as params.yaml's `model` section names it."""

    hidden: Sequence[int]
    activation: str
    normalization: str = "none"
    residual_blocks: int = 0
    pixels: PixelScale = PixelScale()


class Standardize(nn.Module):
    """Pixels in [0, 1] -> mean 0 and variance 1 over the data, which trains faster (LeCun et al. 1998, section 4.3)."""

    def __init__(self, pixels: PixelScale) -> None:
        super().__init__()
        self._pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape, which stays."""
        return (x - self._pixels.mean) * (1 / self._pixels.standard_deviation)

    def extra_repr(self) -> str:
        """What `print` tells of it."""
        return f"mean={self._pixels.mean:.4f}, standard_deviation={self._pixels.standard_deviation:.4f}"


class Resize(nn.Module):
    """Nearest-neighbour resizing to one fixed size.

    Resize + convolution instead of a transposed convolution: no checkerboard, and it survives every ONNX runtime.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[batch, C, h, w] -> [batch, C, H, W]."""
        return nn.functional.interpolate(x, size=self.size, mode="nearest")


class LayerNorm2d(nn.GroupNorm):
    """Over channels and pixels of each example, with a scale and a shift for each channel: GroupNorm of one group."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, C, H, W] -> [batch, C, H, W]."""
        return self.along_last(x) if x.is_cuda else super().forward(x)

    def along_last(self, x: Tensor) -> Tensor:
        """The same where channels lie last in memory, in the precision of x.

        torch's kernel of group_norm for CUDA copies them to lie first, the next convolution copies them back, and
        autocast has all that done in float32.
        """
        last = x.permute(0, 2, 3, 1)
        shape = last.shape[1:]
        scale, shift = (of_channels.to(x.dtype).expand(shape) for of_channels in (self.weight, self.bias))
        with torch.autocast(x.device.type, enabled=False):
            normal = nn.functional.layer_norm(last, shape, scale, shift, self.eps)
        return normal.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + two convolutions, each behind an activation (He et al. 2016, arXiv 1603.05027): shape and size stay."""

    def __init__(self, channels: int, layout: Layout) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *activated(channels, layout, LayerNorm2d),
            nn.Conv2d(channels, channels, 3, padding=1),
            *activated(channels, layout, LayerNorm2d),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, C, H, W] -> [batch, C, H, W]."""
        moved: Tensor = x + self.layers(x)
        return moved


def mlp_encoder(image_shape: tuple[int, int, int], layout: Layout, outputs: int) -> nn.Sequential:
    """[batch, C, H, W] in [0, 1] -> [batch, outputs]; without hidden layers it is affine."""
    widths = [math.prod(image_shape), *layout.hidden]
    return nn.Sequential(
        nn.Flatten(), Standardize(layout.pixels), *dense(widths, layout), nn.Linear(widths[-1], outputs)
    )


def mlp_decoder(output_shape: tuple[int, int, int], layout: Layout, latent_dim: int) -> nn.Sequential:
    """[batch, latent_dim] -> [batch, *output_shape]; without hidden layers it is affine."""
    widths = [latent_dim, *reversed(layout.hidden)]
    last = nn.Linear(widths[-1], math.prod(output_shape))
    return nn.Sequential(*dense(widths, layout), last, nn.Unflatten(1, output_shape))


def conv_encoder(image_shape: tuple[int, int, int], layout: Layout, outputs: int) -> nn.Sequential:
    """[batch, C, H, W] in [0, 1] -> [batch, outputs]; each stage halves the image, rounding up."""
    sizes = stage_sizes(image_shape, layout.hidden)
    layers: list[nn.Module] = [Standardize(layout.pixels)]
    for before, after in pairwise([image_shape[0], *layout.hidden]):
        layers += convolution(before, after, layout, stride=2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(layout.hidden[-1] * math.prod(sizes[-1]), outputs))


def conv_decoder(output_shape: tuple[int, int, int], layout: Layout, latent_dim: int) -> nn.Sequential:
    """[batch, latent_dim] -> [batch, *output_shape], back through the sizes of the encoder's stages."""
    hidden = layout.hidden
    sizes = stage_sizes(output_shape, hidden)
    smallest = (hidden[-1], *sizes[-1])
    layers = [*dense([latent_dim, math.prod(smallest)], layout), nn.Unflatten(1, smallest)]
    channels = [*reversed(hidden), hidden[0]]
    for (before, after), size in zip(pairwise(channels), reversed(sizes[:-1]), strict=True):
        layers += [Resize(size), *convolution(before, after, layout)]
    return nn.Sequential(*layers, nn.Conv2d(hidden[0], output_shape[0], 3, padding=1))


ENCODERS = {"mlp": mlp_encoder, "conv": conv_encoder}
DECODERS = {"mlp": mlp_decoder, "conv": conv_decoder}
NETWORKS = (*ENCODERS, "ladder")


def dense(widths: Sequence[int], layout: Layout) -> list[nn.Module]:
    """Hidden layers from the first of the widths to the last."""
    return [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Linear(before, features_given(after, layout)), *activated(after, layout, nn.LayerNorm))
    ]


def convolution(before: int, after: int, layout: Layout, stride: int = 1) -> list[nn.Module]:
    """A stage: from so many channels to so many, with its residual blocks; a stride of 2 halves the image."""
    product = nn.Conv2d(before, features_given(after, layout), 3, stride=stride, padding=1)
    blocks = [ResidualBlock(after, layout) for _ in range(layout.residual_blocks)]
    return [product, *blocks, *activated(after, layout, LayerNorm2d)]


def features_given(features: int, layout: Layout) -> int:
    """What a product must give so that `features` are left behind the activation."""
    return 2 * features if layout.activation == "gated" else features


def activated(features: int, layout: Layout, normalize: Callable[[int], nn.Module]) -> list[nn.Module]:
    """What stands behind the product of a layer of so many features."""
    activation = ACTIVATIONS[layout.activation]()
    return [activation] if layout.normalization == "none" else [normalize(features_given(features, layout)), activation]


def stage_sizes(image_shape: tuple[int, int, int], hidden: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width before the first stage and after each: [(28, 28), (14, 14), (7, 7)].

    Raises:
        UserError: the image is too small for convolutions, or for so many stages.
    """
    _, height, width = image_shape
    if min(height, width) < SMALLEST_CONV_IMAGE:
        raise UserError(
            f"images are {height}x{width}; expected at least {SMALLEST_CONV_IMAGE}x{SMALLEST_CONV_IMAGE} "
            "for convolutions (prepare.image_size resizes, model.network: mlp takes any size)"
        )
    most = int(math.log2(min(height, width)))
    if not 1 <= len(hidden) <= most:
        raise UserError(f"model.hidden has {len(hidden)} stages; expected 1 to {most} for {height}x{width} images")
    sizes = [(height, width)]
    for _ in hidden:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes
