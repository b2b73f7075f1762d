import numpy as np
import pytest
import torch

from pipeline.quality.kid import kid_blocks, paired_kid, scaled


def normal(seed, n, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1, (n, 6)))


def test_each_block_is_the_unbiased_estimate_of_the_paper():
    real, made = normal(0, 16), normal(1, 24, 0.5)
    generator = torch.Generator().manual_seed(0)
    x, y = (rows[torch.randperm(len(rows), generator=generator)][1::8].numpy() for rows in (real, made))

    def mean(one, other, same):
        pairs = [(i, j) for i in range(len(one)) for j in range(len(other)) if not (same and i == j)]
        return np.mean([(one[i] @ other[j] / 6 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kid_blocks(real, made)[1].item() == pytest.approx(expected)


def test_sets_of_one_kind_are_at_distance_0_and_others_are_not():
    blocks = kid_blocks(normal(0, 4000), normal(1, 4000))
    assert abs(blocks.mean()) < 3 * blocks.std() / 8**0.5
    apart = kid_blocks(normal(0, 4000), normal(1, 4000, 0.3))
    assert apart.mean() > 10 * apart.std() / 8**0.5


def test_the_order_of_a_set_does_not_bend_the_distance():
    one, other = normal(0, 2000), normal(1, 2000, 2.0)
    by_class = torch.cat([one, other])
    mixed = torch.cat([normal(2, 2000), normal(3, 2000, 2.0)])
    blocks = kid_blocks(by_class, mixed[torch.randperm(4000, generator=torch.Generator().manual_seed(0))])
    assert abs(blocks.mean()) < 3 * blocks.std() / 8**0.5


def test_two_sets_in_the_order_of_their_classes_are_at_distance_0():
    centres = 3 * torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = (torch.cat([normal(10 * s + c, 50) + centre for c, centre in enumerate(centres)]) for s in (1, 2))
    blocks = kid_blocks(one, other)
    assert abs(blocks.mean()) < 3 * blocks.std() / 8**0.5


def test_fewer_than_four_images_have_no_distance():
    assert kid_blocks(normal(0, 3), normal(1, 50)) is None
    assert len(kid_blocks(normal(0, 5), normal(1, 50))) == 2


def test_partners_are_not_held_against_each_other():
    one = normal(0, 300)
    assert paired_kid(one, one) == pytest.approx(0, abs=1e-9)
    assert paired_kid(one, one + 0.3) > 0.05


def test_scaled_features_have_the_root_mean_square_of_one():
    real = 40 * normal(0, 100)
    assert scaled(real, by=real).square().mean().item() == pytest.approx(1)
    assert torch.equal(scaled(torch.zeros(4, 6), by=torch.zeros(4, 6)), torch.zeros(4, 6))
