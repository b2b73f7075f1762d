"""What kind of values a set of images has: which likelihoods suit it follows from that."""

from typing import Any

import numpy as np

NEAR_AN_END = 16  # levels from black or from white
MOSTLY = 0.85  # of the values of near-binary images lie near an end,
AT_EACH_END = 0.01  # and so many at either one

_VALUES_TOGETHER = 2**16  # counted at once: they stay in the processor's cache

BINARIZED = "bernoulli (train.binarize: dynamic)"
SUITABLE = {
    "binary": "bernoulli",
    "near-binary": f"{BINARIZED} or continuous_bernoulli",
    "grey": f"gaussian, discretized_logistic, logistic_mixture, continuous_bernoulli or {BINARIZED}",
    "colour": "logistic_mixture, discretized_logistic or gaussian",
}
"""The kinds of values, and which likelihoods suit each, as params.yaml names them."""


def count_levels(images: np.ndarray) -> np.ndarray:
    """How often each of 256 levels occurs in uint8 images of any shape, int64 [256]; numpy makes eight bytes of one."""
    values, counts = images.ravel(), np.zeros(256, np.int64)
    for start in range(0, len(values), _VALUES_TOGETHER):
        counts += np.bincount(values[start : start + _VALUES_TOGETHER], minlength=256)
    return counts


def value_statistics(levels: np.ndarray, has_colour: bool = False) -> dict[str, Any]:
    """Statistics of pixel values 0..255 from how often each level occurs, `levels` [256].

    `binary_fraction` is the share of values that are 0 or 255; `kind` is a key of SUITABLE. Hand-written digits are
    near-binary: 85 % of the values or more are nearly black or nearly white, both occur, and channels do not differ.
    """
    total = int(levels.sum())
    present = np.flatnonzero(levels)
    values = np.arange(256)
    mean = float(levels @ values) / total
    binary_fraction = float(levels[0] + levels[255]) / total
    kind = _kind(levels / total, binary_fraction, has_colour)
    return {
        "minimum": int(present[0]),
        "maximum": int(present[-1]),
        "mean": mean,
        "standard_deviation": float(np.sqrt(levels @ (values - mean) ** 2 / total)),
        "binary_fraction": binary_fraction,
        "kind": kind,
        "suitable_likelihoods": SUITABLE[kind],
    }


def _kind(shares: np.ndarray, binary_fraction: float, has_colour: bool) -> str:
    if binary_fraction == 1:
        return "binary"
    ends = float(shares[:NEAR_AN_END].sum()), float(shares[-NEAR_AN_END:].sum())
    if has_colour:  # also where nearly all are at an end: drawn as black or white, channels would be eight colours
        return "colour"
    return "near-binary" if sum(ends) >= MOSTLY and min(ends) >= AT_EACH_END else "grey"


def has_colour(images: np.ndarray) -> bool:
    """Whether the channels of uint8 [m, C, H, W] differ anywhere."""
    return bool((images[:, 1:] != images[:, :1]).any())
