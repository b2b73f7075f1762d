from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conditional import write_model

from pipeline.runtime import Sampler


def levels(a, b):
    """Largest difference in grey levels."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


@pytest.fixture
def sampler(mlp):
    return Sampler(mlp.folder, "cpu")


def test_an_image_drawn_alone_is_the_one_of_the_batch(sampler):
    for asked in ({"seed": 2**63 - 1}, {"seed": 7, "first": 2**48 - 10}, {"seed": 7, "temperature": 0.5}):
        expected = sampler.sample(4, **asked)
        first = asked.pop("first", 0)
        alone = [sampler.sample(1, first=first + at, **asked) for at in range(4)]  # kept: a draw must not change them
        assert levels(np.concatenate(alone), expected) <= 1


def test_an_image_of_each_class_may_be_drawn_alone(mlp, tmp_path):
    sampler = write_model(tmp_path, mlp.metadata, ("circle", "square"))
    alone = {label: sampler.sample(1, seed=3, label=label) for label in ("circle", "square", "circle")}
    for label, image in alone.items():
        assert levels(image, sampler.sample(2, seed=3, label=label)[:1]) <= 1
    assert levels(alone["circle"], alone["square"]) > 1


def test_who_comes_while_another_draws_need_not_wait(sampler):
    alone = sampler.sample(1, seed=7)
    with sampler._one._free:
        assert sampler._one.draw(7, 0, 1.0, None) is None
        assert levels(sampler.sample(1, seed=7), alone) <= 1


def test_threads_that_ask_for_one_image_each_get_their_own(sampler):
    expected = [sampler.sample(2, seed=seed)[:1] for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: sampler.sample(1, seed=seed), range(100)))
    assert max(map(levels, found, expected)) <= 1
