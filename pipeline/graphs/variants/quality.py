"""What a variant loses against the float32 files, by running both on the same z."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.graphs.labels import classes_of, in_turn, label_input
from pipeline.graphs.variants.bound import DecoderBound
from pipeline.graphs.variants.layers import PARAMETERS, expose, image_shape_of
from pipeline.quality.kid import kid_blocks, paired_kid, scaled
from pipeline.quality.mean import mean_and_stderr
from pipeline.quality.random_conv import random_conv_features
from pipeline.runtime.draws import rows
from pipeline.runtime.sampler import DECODER, SAMPLER
from pipeline.runtime.session import Device, open_session
from pipeline.runtime.together import rows_together

SAMPLES = 1024  # images drawn from each sampler, of seed 0
_CALLS = (64, 7, 1)  # sizes of the calls in which the first samples are drawn once more
_SMALLEST_ERROR = 1e-15  # 150 dB; files that agree in every bit have no PSNR

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    stderr: float

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Of independent values [n], n > 0, by `mean_and_stderr`."""
        return cls(*mean_and_stderr(values))


@dataclass(frozen=True)
class Quality:
    """What a variant loses."""

    psnr: float
    """Of the decoder's pixel means against float32's, in dB of the range [0, 1], at the z of the samples."""
    loss: Estimate
    """Float32's importance bound minus the variant's, in nats per test image; of a plain auto-encoder, which has no
    such bound, of recon at z = mu."""
    kid: Estimate | None
    """Kernel inception distance of the variant's samples from the test images; None where these are too few."""
    kid_float32: Estimate | None
    """The same of float32's samples."""
    kid_between: float
    """The distance between the samples of both, which share their z."""
    images: int
    """How many test images the loss is a mean over."""
    split_grey_levels: int
    """Largest difference of a pixel between one call and the same rows in calls of other sizes."""


class Yardstick:
    """The float32 files' side of every comparison, computed once.

    Args:
        files: sampler.onnx and decoder.onnx.
        bound: of the model that they were made from.
        test: uint8 [m, H, W, C], at least one.
    """

    def __init__(self, files: Files, bound: DecoderBound, test: Images) -> None:
        self._bound, self._real = bound, _features(test)
        images, self._z = _draw(files[SAMPLER], "cpu")
        classes = classes_of(open_session(files[SAMPLER], "cpu", name=SAMPLER), SAMPLER)
        self._labels = in_turn(classes, SAMPLES)
        self._made = self._features(images)
        self._means, self._bounds = self._decode(files[DECODER], "cpu")

    def measure(self, files: Files, device: Device) -> Quality:
        """What a variant loses when it runs on `device`; its files bear the names of the float32 ones."""
        means, bounds = self._decode(files[DECODER], device)
        images, _ = _draw(files[SAMPLER], device)
        again, _ = _draw(files[SAMPLER], device, _CALLS)
        made = self._features(images)
        error = float(((means - self._means) ** 2).mean(dtype=np.float64))
        return Quality(
            psnr=-10 * math.log10(max(error, _SMALLEST_ERROR)),
            loss=Estimate.of(self._bounds - bounds),
            kid=self._kid(made),
            kid_float32=self._kid(self._made),
            kid_between=paired_kid(self._made, made),
            images=len(bounds),
            split_grey_levels=int(np.abs(again.astype(int) - images[: len(again)]).max()),
        )

    def _decode(self, decoder: bytes, device: Device) -> tuple[Floats, Tensor]:
        """The pixel means of the samples, [1024, C, H, W], and the bound of each test image, [n]."""
        model = onnx.load_from_string(decoder)
        run, together = open_session(decoder, device, name=DECODER).run, rows_together(image_shape_of(model), SAMPLES)
        slices = (slice(start, start + together) for start in range(0, SAMPLES, together))
        parts = [run(["x"], {"z": self._z[rows], **label_input(self._labels, rows)})[0] for rows in slices]
        return np.concatenate(parts), self._bound.of(expose(model, [PARAMETERS]), device)

    def _features(self, images: Images) -> Tensor:
        return scaled(_features(images), by=self._real)

    def _kid(self, made: Tensor) -> Estimate | None:
        blocks = kid_blocks(scaled(self._real, by=self._real), made)
        return None if blocks is None else Estimate.of(blocks)


def _calls_of(size: int) -> list[int]:
    """Sizes of the calls in which all samples are drawn, so many in each but for the last."""
    return [min(size, SAMPLES - start) for start in range(0, SAMPLES, size)]


def _features(images: Images) -> Tensor:
    return random_conv_features(torch.from_numpy(images).movedim(3, 1))


def _draw(sampler: bytes, device: Device, calls: Sequence[int] = ()) -> tuple[Images, Floats]:
    """The first images of seed 0, of each class in its turn, in calls of the given sizes or of all that fits, and their
    z."""
    session = open_session(sampler, device, name=SAMPLER)
    shapes = {output.name: output.shape for output in session.get_outputs()}
    calls = calls or _calls_of(rows_together(shapes["images"][1:], SAMPLES // 2))
    starts, classes = np.cumsum((0, *calls[:-1])).tolist(), classes_of(session, SAMPLER)
    drawn = [
        session.run(["images", "z"], rows(size, 0, start, 1.0) | label_input(in_turn(classes, size, start)))
        for start, size in zip(starts, calls, strict=True)
    ]
    images, z = (np.concatenate(column) for column in zip(*drawn, strict=True))
    return images, z
