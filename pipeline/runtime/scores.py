"""What a score means: where it lies among the scores of the validation images, as `scorer.onnx` carries them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def images_together(latents: int, samples: int) -> int:
    """How many images may be scored at once where so many latents may be decoded: each image takes `samples`."""
    return max(1, latents // samples)


@dataclass(frozen=True)
class ScoreScale:
    """The quantiles of the validation split's scores, and how many samples of z each score was averaged over."""

    samples: int
    levels: tuple[float, ...]
    """Rising from 0 to 1."""
    scores: tuple[float, ...]
    """The score at each level, in nats; never falling."""

    @classmethod
    def of(cls, scores: NDArray[np.float32], samples: int) -> "ScoreScale":
        """The scale of validation scores [n], n >= 1."""
        quantiles = np.quantile(scores.astype(np.float64), LEVELS)
        return cls(samples, LEVELS, tuple(float(f"{score:.7g}") for score in quantiles))

    def strangeness(self, scores: NDArray[Any] | float) -> NDArray[np.float64]:
        """The share of validation images that score lower, in [0, 1], linear between the stored quantiles.

        It is 1 for every score above all of theirs, however far above; a score that many of them have stands somewhere
        among those. NaN stays NaN.
        """
        return np.asarray(np.interp(scores, self.scores, self.levels), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a manifest."""
        return {"samples": self.samples, "quantiles": {"levels": list(self.levels), "scores": list(self.scores)}}

    def to_strings(self) -> dict[str, str]:
        """The entries of the scorer's `metadata_props` besides those that every file has."""
        return {f"score_{name}": json.dumps(value) for name, value in self.to_json().items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], source: str) -> "ScoreScale":
        """Read what `to_strings` wrote; errors name `source`.

        Raises:
            UserError: an entry is missing or malformed.
        """
        try:
            quantiles = json.loads(strings["score_quantiles"])
            samples = int(strings["score_samples"])
            scale = cls(samples, _numbers(quantiles["levels"]), _numbers(quantiles["scores"]))
            if samples < 1:
                raise ValueError("expected at least one sample")
        except KeyError as error:
            raise UserError(f"{source}: metadata lacks {error}; expected what the export stage writes") from None
        except (TypeError, ValueError, RecursionError):
            raise UserError(f"{source}: metadata score_quantiles or score_samples is malformed") from None
        if len(scale.levels) != len(scale.scores) or not _rises(scale.levels) or not _rises(scale.scores):
            raise UserError(f"{source}: metadata score_quantiles does not rise; expected one score for each level")
        return scale


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError("expected finite numbers")
    return numbers


def _rises(values: tuple[float, ...]) -> bool:
    return list(values) == sorted(values)
