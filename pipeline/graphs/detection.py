"""scorer.onnx as a detector of strange images: how well its scores tell them from test images, by the file itself."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from pipeline.graphs.defects import Images, draw_defects
from pipeline.graphs.labels import Labels, classes_of, in_class, label_input
from pipeline.graphs.scorer import LATENTS_TOGETHER
from pipeline.runtime.sampler import SCORER
from pipeline.runtime.scores import ScoreScale, images_together
from pipeline.runtime.session import open_session
from pipeline.runtime.together import rows_together

SEED = 0
LEAST_IMAGES = 2  # of each kind: one has no spread, so its AUROC no standard error

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Auroc:
    """The probability that a strange image stands above a normal one, ties counting half."""

    value: float
    stderr: float
    normal: int
    """How many normal images there were."""
    strange: int


@dataclass(frozen=True)
class Detection:
    """What was measured of a scorer."""

    defects: Auroc
    """Of the scores of test images with a drawn defect, against those of others without."""
    defects_error_map: Auroc
    """Of the same images' error maps: the largest mean over a window."""
    located: float
    """The share of the images with a defect in which the middle of that window lies on it."""
    located_stderr: float
    window: int
    """Height and width of the window, in pixels."""
    covered: float
    """The mean share of an image's pixels that its defect covers: to hit it blindly is as likely."""
    held_out: Auroc | None
    """Of the scores of images with held-out labels, against those of test images."""

    @property
    def metrics(self) -> dict[str, float]:
        """`auroc_held_out`, `auroc_defects`, `auroc_defects_error_map`, `defects_located`, and `_stderr` of each."""
        aurocs = {
            "auroc_held_out": self.held_out,
            "auroc_defects": self.defects,
            "auroc_defects_error_map": self.defects_error_map,
        }
        measured = {name: (auroc.value, auroc.stderr) for name, auroc in aurocs.items() if auroc is not None}
        measured["defects_located"] = (self.located, self.located_stderr)
        named = (((name, value), (f"{name}_stderr", stderr)) for name, (value, stderr) in measured.items())
        return dict(chain.from_iterable(named))


@dataclass(frozen=True)
class Reading:
    """What the scorer says of some images."""

    score: Floats
    """[n], nats."""
    peak: Floats
    """[n], the largest mean of the error map over a window, in nats a pixel."""
    place: Rows
    """[n], the pixel in the middle of that window, counted along the rows."""


def measure_detection(
    scorer: bytes, test: Images, held_out: Images | None, count: int, labels: Labels | None = None
) -> Detection | None:
    """How well a scorer tells strange images from test images; None where there are too few to say.

    Which images are used is drawn by a fixed seed. Half of the test images get a defect (`draw_defects`), so that no
    image stands on both sides, and the standard errors are those of independent images. A conditional model's scorer is
    told the classes of test images. Held-out images have none that it knows: they, and the test images that they are
    held against, get the least of their scores over all classes.

    Args:
        scorer: scorer.onnx.
        test: uint8 [n, C, H, W], which the model has not seen.
        held_out: uint8 [m, C, H, W] of classes that it has never seen, or None.
        count: images of each kind, at most.
        labels: of a conditional model: the classes of the test images, int64 [n].
    """
    if len(test) < 2 * LEAST_IMAGES:
        return None
    reader = _Reader(scorer, window := _window(test.shape[2:]))
    order = _order(len(test))
    whole, marked = order[0::2][:count], order[1::2][:count]
    normal = reader.read(_channels_last(test, whole), label_input(labels, whole))
    images, masks = draw_defects(_channels_last(test, marked), SEED)
    defective = reader.read(images, label_input(labels, marked))
    located = float(np.take_along_axis(masks.reshape(len(masks), -1), defective.place[:, None], axis=1).mean())
    unknown = None
    if held_out is not None and len(held_out) >= LEAST_IMAGES:
        strange = reader.least_scores(_channels_last(held_out, _order(len(held_out))[:count]))
        unknown = measure_auroc(reader.least_scores(_channels_last(test, order[:count])), strange)
    return Detection(
        defects=measure_auroc(normal.score, defective.score),
        defects_error_map=measure_auroc(normal.peak, defective.peak),
        located=located,
        located_stderr=math.sqrt(located * (1 - located) / len(masks)),
        window=window,
        covered=float(masks.mean()),
        held_out=unknown,
    )


def measure_auroc(normal: Floats, strange: Floats) -> Auroc:
    """The area under the receiver operating characteristic: the Mann-Whitney statistic as a share of all pairs.

    Its standard error is that of DeLong, DeLong and Clarke-Pearson (1988), which assumes no distribution.

    Args:
        normal: scores [n], n >= 2.
        strange: scores [m], m >= 2.
    """
    ranks = _ranks(np.concatenate([normal, strange]))
    below = (ranks[len(normal) :] - _ranks(strange)) / len(normal)  # the share of normal ones below each strange one
    above = 1 - (ranks[: len(normal)] - _ranks(normal)) / len(strange)
    variance = below.var(ddof=1) / len(strange) + above.var(ddof=1) / len(normal)
    return Auroc(float(below.mean()), math.sqrt(variance), len(normal), len(strange))


def _ranks(values: Floats) -> Floats:
    """From 1 on, as of scipy.stats, whose import takes a second: ties share the mean; beside a NaN none has a rank."""
    _, place, ties = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (ties.cumsum() - (ties - 1) / 2)[place]
    return np.full_like(ranks, np.nan) if np.isnan(values).any() else ranks


def _window(size: tuple[int, ...]) -> int:
    """About a tenth of the shorter side, and odd, so that it has a pixel in its middle."""
    return 2 * (min(size) // 20) + 1


def _order(count: int) -> Rows:
    return np.random.default_rng(SEED).permutation(count)


def _channels_last(images: Images, rows: Rows) -> Images:
    return np.moveaxis(images[rows], 1, -1)


def _peaks(error: NDArray[np.float32], window: int) -> tuple[Floats, Rows]:
    """The largest mean over a window in each map [n, H, W], and the pixel in that window's middle."""
    means = uniform_filter(error.astype(np.float64), (1, window, window)).reshape(len(error), -1)
    return means.max(1), means.argmax(1)


class _Reader:
    """Reads images [n, H, W, C] with the scorer, in batches; of the error maps only their peaks are kept."""

    def __init__(self, scorer: bytes, window: int) -> None:
        self._session, self._window = open_session(scorer, "cpu", name=SCORER), window
        scale = ScoreScale.from_strings(self._session.get_modelmeta().custom_metadata_map, SCORER)
        self._samples = scale.samples
        self._classes = classes_of(self._session, SCORER)

    def read(self, images: Images, label: Mapping[str, Labels]) -> Reading:
        """What the scorer says of images of these classes."""
        batches = self._batches({"images": images, **label})
        score, peak, place = (np.concatenate(part) for part in zip(*batches, strict=True))
        return Reading(score.astype(np.float64), peak, place)

    def least_scores(self, images: Images) -> Floats:
        """The scores of images whose class nobody knows: the least over all classes; [n]."""
        labels = [in_class(label, len(images)) for label in range(self._classes)] or [{}]
        scores: Floats = np.min([self.read(images, label).score for label in labels], axis=0)
        return scores

    def _batches(self, asked: Mapping[str, Images | Labels]) -> Iterator[tuple[NDArray[np.float32], Floats, Rows]]:
        images = asked["images"]
        together = images_together(rows_together(images.shape[1:], LATENTS_TOGETHER), self._samples)
        for start in range(0, len(images), together):
            some = {name: values[start : start + together] for name, values in asked.items()}
            score, error = self._session.run(["score", "error"], some)
            yield score, *_peaks(error, self._window)
