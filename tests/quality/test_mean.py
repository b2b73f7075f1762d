import pytest
import torch

from pipeline.quality.mean import mean_and_stderr


def test_standard_error_is_that_of_the_mean():
    mean, stderr = mean_and_stderr(torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert mean == 4
    assert stderr == pytest.approx((20 / 3) ** 0.5 / 2)


def test_a_single_value_has_no_spread():
    assert mean_and_stderr(torch.tensor([3.0])) == (3, 0)
