import pytest
import torch

from pipeline.dataset.shuffle import shuffled


def order(count, seed=0, epoch=1):
    return shuffled(torch.arange(count), count, seed, epoch)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])
def test_every_example_stands_at_one_position(count):
    assert torch.equal(order(count).sort().values, torch.arange(count))


def test_a_position_holds_the_same_example_whoever_asks():
    positions = torch.tensor([999, 3, 500])
    assert torch.equal(shuffled(positions, 1000, 0, 1), order(1000)[positions])


def test_every_seed_and_epoch_is_another_order():
    orders = [order(100, seed, epoch) for seed in range(3) for epoch in range(1, 4)]
    assert len({tuple(one.tolist()) for one in orders}) == 9


def test_each_example_is_as_likely_at_each_position():
    """The chi-square statistic of 4,000 orders of 16 examples over 16 x 16 cells has 225 degrees of freedom."""
    counts = torch.zeros(16, 16, dtype=torch.float64)
    for epoch in range(4000):
        counts[torch.arange(16), order(16, seed=5, epoch=epoch)] += 1
    chi_square = ((counts - 250) ** 2 / 250).sum().item()
    assert 130 < chi_square < 350  # a fair shuffle leaves this range once in a million


def test_neighbours_in_the_data_are_not_neighbours_in_the_order():
    places = torch.empty(10_000, dtype=torch.int64)
    places[order(10_000)] = torch.arange(10_000)
    steps = places.diff().abs().double()
    assert steps.mean().item() == pytest.approx(10_000 / 3, rel=0.03)  # of two random places
    correlation = torch.corrcoef(torch.stack([places.double(), torch.arange(10_000).double()]))[0, 1].item()
    assert abs(correlation) < 0.05
