import numpy as np
import pytest

from pipeline.dataset.chunks import Chunk
from pipeline.dataset.splits import SplitDraw, held_out_classes, uniform_from_bytes
from pipeline.errors import UserError

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


@pytest.mark.parametrize("among", [SPLITS, ("train", "val"), ("test",)])
def test_held_out_classes_stand_apart_and_the_others_stay_where_they_were(images, among):
    labels = (images[:, 0, 0, 0] % 5).astype(np.int64)
    chunk = Chunk(images, labels, among)
    before = {split: part[part_labels < 3] for split, part, part_labels in SplitDraw(0.3, 0.3, 0).divide(chunk)}
    after = {split: (part, part_labels) for split, part, part_labels in SplitDraw(0.3, 0.3, 0, (3, 4)).divide(chunk)}
    held_out, held_out_labels = after.pop("held_out")
    np.testing.assert_array_equal(held_out, images[labels > 2])
    assert set(held_out_labels) == {3, 4}
    assert set(after) == set(among)
    for split, (part, _) in after.items():
        np.testing.assert_array_equal(part, before[split])


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([], None, ()),
        (["dog"], ("cat", "dog", "eel"), (1,)),
        ([2, "cat", 0], ("cat", "dog", "eel"), (0, 2)),
        ([7, "5"], ("5", "6", "7"), (0, 2)),
    ],
)
def test_labels_are_named_or_counted(labels, classes, expected):
    assert held_out_classes(labels, classes) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["cat"], None, r"prepare\.held_out_labels is \['cat'\], and the source has no labels; expected \[\], or"),
        (["cta"], ("cat", "dog"), r"prepare\.held_out_labels\.0 is 'cta'; expected one of cat, dog$"),
        (["cat", 2], ("cat", "dog"), r"held_out_labels\.1 is 2; expected one of cat, dog$"),
        ([0], ("5", "6", "7"), r"held_out_labels\.0 is 0; expected one of 5, 6, 7$"),
        (["x"], tuple(f"c{n}" for n in range(900)), r"c49, \.\.\. \(900 in all\)$"),
        (["dog", 0], ("cat", "dog"), r"names all 2 labels; expected one left to train on"),
    ],
)
def test_a_label_that_cannot_be_held_out_is_named(labels, classes, message):
    with pytest.raises(UserError, match=message):
        held_out_classes(labels, classes)
