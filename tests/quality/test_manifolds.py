import pytest
import torch

from pipeline.quality.manifolds import overlap


def normal(seed, n, shift=0.0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)) + shift


def test_a_set_that_lies_elsewhere_shares_nothing():
    assert overlap(normal(0, 200), normal(1, 200, 100.0)) == (0, 0, 0, 0)


def test_copies_of_the_real_set_share_everything():
    found = overlap(normal(0, 200), normal(0, 200))
    assert found[:2] == (1, 1)
    assert found.coverage == 1


def test_two_sets_of_one_kind_have_the_expected_density_and_coverage():
    found = overlap(normal(0, 3000), normal(1, 3000))
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.012)
    assert min(found.precision, found.recall) > 0.9


def test_a_dropped_mode_costs_recall_and_coverage_and_an_invented_one_precision_and_density():
    both = torch.cat([normal(0, 400), normal(1, 400, 50.0)])
    dropped = overlap(both, normal(2, 800))
    assert dropped.precision > 0.95
    assert dropped.recall < 0.55
    assert dropped.coverage < 0.55
    invented = overlap(normal(2, 800), both)
    assert invented.recall > 0.95
    assert invented.precision < 0.55
    assert invented.density < 0.6


def test_the_share_of_made_points_within_reach_is_counted():
    real = torch.arange(10.0)[:, None]  # the third neighbour is 2 away inside, 3 at the ends
    made = torch.tensor([[4.5], [11.9], [12.1], [20.0], [21.0], [22.0]])
    found = overlap(real, made)
    assert found.precision == pytest.approx(2 / 6)  # 4.5, and 11.9 in the ball of 9
    inside = sum(
        abs(m - r) <= reach for m in (4.5, 11.9, 12.1) for r, reach in enumerate([5, 4, 3, 3, 3, 3, 3, 3, 4, 5])
    )
    assert found.density == pytest.approx(inside / (5 * 6))


def test_one_outlier_moves_recall_and_not_coverage():
    real, outlier = normal(0, 300, 3.0), torch.full((8, 2), 500.0) * torch.arange(1, 9)[:, None]
    made = torch.cat([normal(1, 292, -40.0), outlier])
    found = overlap(real, made)
    assert found.recall == 1
    assert found.coverage < 0.01


def test_too_few_images_have_no_manifold():
    assert overlap(normal(0, 5), normal(1, 100)) is None
    assert overlap(normal(0, 100), normal(1, 6)) is not None


def test_all_four_are_those_of_the_papers_definitions():
    """By loops over balls: arXiv 1904.06991, equations 1 and 2, k = 3; 2002.09797, equations 4 and 5, k = 5."""
    real, made = normal(0, 40).double(), normal(1, 30, 1.2).double()

    def radius(points, at, k):
        return sorted((points - points[at]).norm(dim=1).tolist())[k]  # number 0 is the point itself

    def inside(points, k, x):
        """In how many balls of the points x lies."""
        return sum(float((x - point).norm()) <= radius(points, at, k) for at, point in enumerate(points))

    covered = [float((made - x).norm(dim=1).min()) <= radius(real, at, 5) for at, x in enumerate(real)]
    expected = (
        sum(inside(real, 3, x) > 0 for x in made) / 30,
        sum(inside(made, 3, x) > 0 for x in real) / 40,
        sum(inside(real, 5, x) for x in made) / (5 * 30),
        sum(covered) / 40,
    )
    assert overlap(real, made) == pytest.approx(expected)
