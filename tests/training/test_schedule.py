import pytest

from pipeline.training.schedule import learning_rate_factor, warmed_up


def test_cosine_falls_from_one_to_zero_and_is_half_way_in_the_middle():
    assert [learning_rate_factor("cosine", step, 10) for step in (0, 5, 10)] == pytest.approx([1, 0.5, 0])


def test_constant_stays():
    assert {learning_rate_factor("constant", step, 10) for step in range(11)} == {1.0}


def test_beta_rises_linearly_from_zero():
    assert [warmed_up(2.0, epoch, 4) for epoch in range(1, 7)] == [0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert warmed_up(2.0, 1, 0) == 2.0
