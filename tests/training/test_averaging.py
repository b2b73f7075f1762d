import pytest
import torch

from pipeline.training.averaging import WeightAverage

START, TRAINED = 3.0, 5.0


def averaged(decay):
    """An average that is at 3, of weights that have gone on to 5."""
    trained = torch.full((4,), START, dtype=torch.float64)
    average = WeightAverage(trained, decay)
    trained.fill_(TRAINED)
    return average


@pytest.mark.parametrize(("step", "kept"), [(1, 2 / 11), (2, 3 / 12), (7, 8 / 17), (8, 0.5), (9, 0.5), (1000, 0.5)])
def test_the_decay_rises_over_the_first_steps_to_what_was_asked_for(step, kept):
    average = averaged(0.5)
    average.update(step)
    assert average.weights.tolist() == pytest.approx([kept * START + (1 - kept) * TRAINED] * 4)


def test_a_step_that_was_not_taken_leaves_the_average_where_it_is():
    average = averaged(0.5)
    average.update(3, torch.tensor(0.0, dtype=torch.float64))
    assert average.weights.tolist() == [START] * 4
    average.update(9, torch.tensor(1.0, dtype=torch.float64))
    assert average.weights.tolist() == [(START + TRAINED) / 2] * 4


def test_without_a_decay_the_average_is_the_trained_weights_themselves():
    average = averaged(0.0)
    average.update(1)
    assert average.weights is average.trained
    assert average.weights.tolist() == [TRAINED] * 4
