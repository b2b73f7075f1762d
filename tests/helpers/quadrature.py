"""Densities of two dimensions, held against sums over grids."""

import torch
from scipy.stats import chi2


def grid(half_width, steps):
    """The middles of the cells of a square, [steps**2, 2], and a cell's area."""
    width = 2 * half_width / steps
    line = (torch.arange(steps, dtype=torch.float64) + 0.5) * width - half_width
    return torch.cartesian_prod(line, line), width**2


def assert_drawn_from(z, log_prob):
    """Pearson's test of draws [n, 2] over the cells of a grid, with one cell for all that lies outside.

    It fails one time in a thousand by chance.
    """
    points, area = grid(4.0, 400)
    expected = (log_prob(points).exp() * area).view(8, 50, 8, 50).sum((1, 3))
    cells = (z + 4).floor().long()
    inside = ((cells >= 0) & (cells < 8)).all(1)
    found = torch.bincount(cells[inside] @ torch.tensor([8, 1]), minlength=64).double().view(8, 8)
    expected, found = expected.flatten() * len(z), found.flatten()
    enough = expected > 10
    expected = torch.cat([expected[enough], (len(z) - expected[enough].sum())[None]])
    found = torch.cat([found[enough], (len(z) - found[enough].sum())[None]])
    statistic = ((found - expected).square() / expected).sum().item()
    assert len(expected) > 8
    assert statistic < chi2.ppf(0.999, len(expected) - 1)
