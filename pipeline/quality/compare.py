"""All distances between two sets of images, over the features of one extractor."""

from torch import Tensor

from pipeline.quality.fid import frechet_distance
from pipeline.quality.kid import kid_blocks
from pipeline.quality.manifolds import overlap
from pipeline.quality.mean import mean_and_stderr

FEWEST = 6
"""Images of each set, below which no distance is told."""


def compare(real: Tensor, made: Tensor) -> dict[str, float]:
    """`kid` and `kid_stderr`, `fid`, `precision`, `recall`, `density`, `coverage` of features [n, d] and [m, d].

    Empty where either set has fewer than FEWEST.
    """
    blocks, shares = kid_blocks(real, made), overlap(real, made)
    if blocks is None or shares is None:
        return {}
    kid, stderr = mean_and_stderr(blocks)
    return {"kid": kid, "kid_stderr": stderr, "fid": frechet_distance(real, made)} | shares._asdict()
