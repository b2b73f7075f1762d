import numpy as np
import pytest
from conditional import write_model

from pipeline.errors import UserError

NAMES = ("2", "circle", "square")  # one of them reads like another's index


@pytest.fixture
def sampler(mlp, tmp_path):
    return write_model(tmp_path, mlp.metadata, NAMES)


def class_of(images):
    """The class that all images are of, by their grey value."""
    levels = set(np.rint((images / 255 - 0.2) / 0.3).ravel().astype(int))
    assert len(levels) == 1
    return levels.pop()


def test_the_classes_are_named(sampler, mlp):
    assert sampler.labels == NAMES


@pytest.mark.parametrize(
    ("label", "index"),
    [("circle", 1), ("2", 0), (2, 2), ("1", 1), (0, 0), ("square", 2), (np.int64(1), 1), (np.uint8(2), 2)],
)
def test_a_class_is_drawn_by_name_or_index(sampler, label, index):
    assert class_of(sampler.sample(5, seed=1, label=label)) == index
    assert class_of(sampler.sample(1500, seed=1, label=label)) == index  # in chunks
    assert class_of(sampler.decode(np.zeros((600, 2)), label)) == index
    assert sampler.latents(3, label=label).shape == (3, 2)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "label is missing; expected one of 3 classes, by name or index"),
        ("triangle", "label is 'triangle'; expected one of 2, circle, square, or an index from 0 to 2"),
        (3, "label is 3; expected one of"),
        (-1, "label is -1; expected one of"),
        (True, "label is True; expected the name of a class, or its index"),
        (1.0, "label is 1.0; expected the name of a class, or its index"),
        (np.int64(3), "label is 3; expected one of"),
        (np.True_, "label is np.True_; expected the name of a class, or its index"),
        (np.arange(2), r"label is array\(\[0, 1\]\); expected the name of a class, or its index"),
    ],
)
def test_a_class_that_does_not_exist_is_named(sampler, label, message):
    for draw in (sampler.sample, sampler.iterate, sampler.latents):
        with pytest.raises(UserError, match=f"^{message}"):
            draw(2, label=label)
    with pytest.raises(UserError, match=f"^{message}"):
        sampler.decode(np.zeros((1, 2)), label)


def test_any_other_model_refuses_a_class(mlp):
    from pipeline.runtime import Sampler

    plain = Sampler(mlp.folder, "cpu")
    assert plain.labels == ()
    images = plain.sample(1)
    for call in (plain.sample, lambda _, label: plain.encode(images, label)):
        with pytest.raises(UserError, match="label is 'circle'; expected none, since the .* of this model takes no"):
            call(1, label="circle")
