"""Walks through the latent space."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def interpolate(start: Floats, end: Floats, steps: int, path: Literal["spherical", "linear"]) -> Floats:
    """`steps` latents from `start` to `end`, both included: [latent_dim] x 2 -> [steps, latent_dim].

    `spherical` follows the arc between them (Shoemake, 1985), so that lengths stay those of samples; the middle of a
    straight line between two draws of a normal is shorter than nearly every draw.
    """
    along = np.linspace(0, 1, steps)[:, None]
    angle = _angle(start, end) if path == "spherical" else 0.0
    if np.sin(angle) < 1e-4:  # one direction, or opposite ones: the arc is the line, or is not defined
        from_start, from_end = 1 - along, along
    else:
        from_start, from_end = np.sin((1 - along) * angle) / np.sin(angle), np.sin(along * angle) / np.sin(angle)
    walk: Floats = (from_start * start + from_end * end).astype(np.float32)
    return walk


def _angle(start: Floats, end: Floats) -> float:
    lengths = float(np.linalg.norm(start) * np.linalg.norm(end))
    return float(np.arccos(np.clip(start @ end / lengths, -1, 1))) if lengths > 0 else 0.0
