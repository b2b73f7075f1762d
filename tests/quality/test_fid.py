import pytest
import torch
from scipy.linalg import sqrtm

from pipeline.quality.fid import frechet_distance


def with_moments(mean, root, n=60):
    """Points [n, d] whose mean and covariance are exactly `mean` and root root^T."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    white = torch.linalg.qr(x - x.mean(0)).Q * (n - 1) ** 0.5
    return white @ root.T + mean


def test_the_distance_of_two_gaussians_is_that_of_the_closed_form():
    zero, shift = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    scales = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    found = frechet_distance(with_moments(zero, torch.eye(3).double()), with_moments(shift, scales.diag(), 40))
    assert found == pytest.approx(float(shift.square().sum() + (1 - scales).square().sum()))


def test_correlated_gaussians_agree_with_the_matrix_root_of_the_paper():
    roots = [torch.randn(4, 4, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)]
    zero = torch.zeros(4, dtype=torch.float64)
    one, other = (root @ root.T for root in roots)
    expected = (one + other).trace() - 2 * sqrtm((one @ other).numpy()).trace().real
    assert frechet_distance(*(with_moments(zero, root) for root in roots)) == pytest.approx(float(expected))


def test_fewer_points_than_dimensions_have_a_distance():
    few = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 1) == pytest.approx(20, rel=1e-6)
