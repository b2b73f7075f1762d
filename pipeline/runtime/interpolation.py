"""Walks through the latents, and the moving or still picture of one."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.files import atomic_file
from pipeline.runtime.metadata import Metadata
from pipeline.runtime.pictures import as_picture

SMALLEST_FRAME = 224  # pixels; smaller images are enlarged by a whole factor, each pixel a square

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Way = Callable[[Floats, Floats, int], Floats]
"""Start, end, both [latent_dim], and a number of steps -> float32 [steps, latent_dim], both ends included."""


def spherical(start: Floats, end: Floats, steps: int) -> Floats:
    """`steps` points from `start` to `end`, both [latent_dim], along a great circle: float32 [steps, latent_dim].

    Between two draws of a normal prior a straight line passes closer to the centre than any draw lies; this keeps
    its distance (White 2016, arXiv 1609.04468). Where the directions are the same or opposite it is the line.
    """
    share = np.linspace(0, 1, steps)[:, None]
    lengths = np.linalg.norm(start) * np.linalg.norm(end)
    angle = np.arccos(np.clip(start @ end / lengths, -1, 1)) if lengths else 0.0
    if np.sin(angle) < 1e-4:
        return straight(start, end, steps)
    points = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)
    return np.asarray(points, np.float32)


def straight(start: Floats, end: Floats, steps: int) -> Floats:
    """`steps` points from `start` to `end`, both [latent_dim], along a line: float32 [steps, latent_dim]."""
    share = np.linspace(0, 1, steps)[:, None]
    return np.asarray((1 - share) * start + share * end, np.float32)


WAYS: Mapping[str, Way] = {"spherical": spherical, "linear": straight}


def usual_way(metadata: Metadata) -> str:
    """Which of WAYS to take between two draws of the sampler that says so of itself.

    Only the standard normal's draws lie on a sphere around 0. Those of another prior, or of a mixture that was fitted
    to the codes, lie around centres of its own, so a circle around 0 would leave both.
    """
    return "spherical" if metadata.draws_standard_normal else "linear"


def walk(stations: Floats, steps: int, way: Way = spherical) -> Floats:
    """Legs of `steps` points through stations [m, latent_dim], m >= 2: float32 [m - 1, steps, latent_dim]."""
    return np.stack([way(start, end, steps) for start, end in pairwise(stations)])


def there_and_back(legs: Floats) -> Floats:
    """Legs [m, steps, latent_dim] as a loop, float32 [n, latent_dim]; where two of them meet, one point stands."""
    way = np.concatenate([legs[0], *legs[1:, 1:]])
    return np.concatenate([way, way[-2:0:-1]])


def write_animation(output: str, frames: Iterable[Images], frames_per_second: int) -> None:
    """Write frames, at least one, each uint8 [H, W, C], as a GIF that plays for ever; they are taken one by one."""
    pictures = (as_picture(frame, SMALLEST_FRAME) for frame in frames)
    with atomic_file(Path(output)) as beside:
        next(pictures).save(beside, save_all=True, append_images=pictures, duration=1000 // frames_per_second, loop=0)
