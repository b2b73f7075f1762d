import numpy as np
import pytest

from pipeline.dataset.chunks import Chunk
from pipeline.dataset.splits import SplitDraw, uniform_from_bytes

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4000, 1, 3, 3), dtype=np.uint8)


def test_equal_images_stand_on_the_same_side(images):
    draw = SplitDraw(0.3, 0.3, seed=0)
    order = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_array_equal(draw.assign(images, SPLITS)[order], draw.assign(images[order], SPLITS))


def test_fractions_are_met(images):
    names = SplitDraw(0.2, 0.1, seed=0).assign(images, SPLITS)
    assert (names == "val").mean() == pytest.approx(0.2, abs=0.03)
    assert (names == "test").mean() == pytest.approx(0.1, abs=0.03)


def test_the_draw_is_uniform(images):
    uniform = uniform_from_bytes(images, seed=7)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.histogram(uniform, 10, (0, 1))[0] == pytest.approx(400, abs=80)


def test_another_seed_draws_anew(images):
    first, second = (SplitDraw(0.5, 0.1, seed).assign(images, SPLITS) for seed in (0, 2**32 - 1))
    assert 0.3 < (first == second).mean() < 0.6


def test_a_published_test_split_gets_nothing_from_train(images):
    names = SplitDraw(0.2, 0.5, seed=0).assign(images, ("train", "val"))
    assert set(names) == {"train", "val"}
    assert (names == "val").mean() == pytest.approx(0.2, abs=0.03)


def test_images_that_the_publisher_assigned_stay_there(images):
    assert set(SplitDraw(0.2, 0.5, seed=0).assign(images, ("test",))) == {"test"}


def test_labels_follow_their_images(images):
    labels = images[:, 0, 0, 0].astype(np.int64)
    parts = list(SplitDraw(0.3, 0.3, seed=0).divide(Chunk(images, labels)))
    assert sorted(split for split, _, _ in parts) == sorted(SPLITS)
    assert sum(len(part) for _, part, _ in parts) == len(images)
    for _, part, part_labels in parts:
        np.testing.assert_array_equal(part[:, 0, 0, 0], part_labels)
