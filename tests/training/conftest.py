import pytest
import small_training


@pytest.fixture
def make_trainer():
    """A trainer of a small model on 600 real digits, with changes such as epochs=8."""
    return small_training.make_trainer
