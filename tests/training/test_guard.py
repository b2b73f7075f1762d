import math

import pytest
import torch

from pipeline.training.guard import StepGuard

CPU = torch.device("cpu")


def unwaiting():
    """A guard as it is on a GPU, on tensors of the CPU: it asks now and then."""
    guard = StepGuard(CPU)
    guard._waits = False
    return guard


@pytest.mark.parametrize("make", [lambda: StepGuard(CPU), unwaiting])
def test_the_largest_norm_of_the_steps_that_were_taken(make):
    guard = make()
    guard.begin(0)
    for norm in (1.0, 3.0, 2.0):
        guard.admit(torch.tensor(norm))
    guard.admit(torch.tensor(math.inf))
    assert guard.largest.item() == 3
    guard.begin(0, torch.zeros(()))
    assert guard.largest.item() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_norms_are_looked_at_the_step_itself_is_refused(value):
    guard = StepGuard(CPU)
    guard.begin(5)
    assert guard.admit(torch.tensor(1.0))
    assert guard.held_back(5, last=False) is None
    assert not guard.admit(torch.tensor(value))
    assert guard.held_back(6, last=False) == 6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gpu_holds_back_all_later_steps_and_tells_the_first_when_it_is_asked(value):
    guard = unwaiting()
    guard.begin(0)
    told = []
    for step in range(60):
        assert guard.admit(torch.tensor(value if step == 7 else 1.0))
        assert guard.refused.item() == (step >= 7)
        assert guard.applied.item() == (step < 7)
        told.append(guard.held_back(step, last=step == 59))
    assert told[:49] == [None] * 49
    assert told[49] == 7


def test_the_last_step_of_an_epoch_is_always_looked_at():
    guard = unwaiting()
    guard.begin(0)
    guard.admit(torch.tensor(math.nan))
    assert guard.held_back(0, last=True) == 0
