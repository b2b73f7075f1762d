import pytest
import torch

from pipeline.quality.compare import FEWEST, compare
from pipeline.quality.fid import frechet_distance
from pipeline.quality.kid import kid_blocks

NAMES = {"kid", "kid_stderr", "fid", "precision", "recall", "density", "coverage"}


def normal(seed, n, shift=0.0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)) + shift


def test_every_distance_is_told_by_its_name():
    real, made = normal(0, 80), normal(1, 64, 0.5)
    found = compare(real, made)
    assert set(found) == NAMES
    blocks = kid_blocks(real, made)
    assert found["kid"] == blocks.mean().item()
    assert found["kid_stderr"] == pytest.approx(blocks.std().item() / len(blocks) ** 0.5)
    assert found["fid"] == frechet_distance(real, made)


def test_a_worse_set_is_farther_by_all_of_them():
    real = normal(0, 300)
    near, far = (compare(real, normal(1, 300, shift)) for shift in (0.0, 2.0))
    assert near["kid"] < far["kid"]
    assert near["fid"] < far["fid"]
    assert all(near[name] > far[name] for name in ("precision", "recall", "density", "coverage"))


def test_sets_of_a_handful_have_none():
    assert compare(normal(0, FEWEST - 1), normal(1, 100)) == {}
    assert set(compare(normal(0, FEWEST), normal(1, 100))) == NAMES
