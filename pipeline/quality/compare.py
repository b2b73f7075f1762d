"""All distances between two sets of images, over the features of one extractor."""

from torch import Tensor

from pipeline.quality.fid import frechet_distance
from pipeline.quality.kid import kid_blocks
from pipeline.quality.manifolds import overlap

FEWEST = 6
"""Images of each set, below which no distance is told."""


def compare(real: Tensor, made: Tensor) -> dict[str, float]:
    """`kid` and `kid_stderr`, `fid`, `precision`, `recall`, `density`, `coverage` of features [n, d] and [m, d].

    Empty where either set has fewer than FEWEST.
    """
    blocks, shares = kid_blocks(real, made), overlap(real, made)
    if blocks is None or shares is None:
        return {}
    stderr = blocks.std() / len(blocks) ** 0.5
    distances = {"kid": blocks.mean().item(), "kid_stderr": stderr.item(), "fid": frechet_distance(real, made)}
    return distances | shares._asdict()
