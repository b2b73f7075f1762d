import pytest
import torch
from scipy import stats

from pipeline.dataset.noise import generator_of, standard_normal, stream_key, uniform_16_bits


@pytest.mark.parametrize("draw", [uniform_16_bits, standard_normal])
def test_noise_of_an_example_does_not_depend_on_its_batch(draw):
    together = draw(7, torch.arange(10), 101)
    alone = draw(7, torch.tensor([6]), 101)
    torch.testing.assert_close(together[6:7], alone, rtol=0, atol=0)


@pytest.mark.parametrize("draw", [uniform_16_bits, standard_normal])
def test_a_longer_draw_begins_with_the_shorter_one(draw):
    short, long = (draw(7, torch.arange(3), count) for count in (5, 50))
    assert torch.equal(long[:, :5], short)


def test_values_are_uniform_over_sixteen_bits():
    values = uniform_16_bits(stream_key(0, 1), torch.arange(2000), 784)
    counts = torch.bincount(((values.to(torch.int32) + 32768) >> 8).flatten(), minlength=256).double()
    expected = values.numel() / 256
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert 150 < chi_square < 380  # 255 degrees of freedom; a fair generator leaves this range once in a million


def test_every_bit_is_fair_and_neighbours_are_uncorrelated():
    values = uniform_16_bits(stream_key(0, 1), torch.arange(2000), 784)
    bits = torch.stack([(values >> bit) & 1 for bit in range(16)]).double()
    assert (bits.mean((1, 2)) - 0.5).abs().max() < 0.0025  # six standard errors
    centred = values.double() - values.double().mean()
    for neighbour in (centred.roll(1, 0), centred.roll(1, 1)):
        assert ((centred * neighbour).mean() / centred.square().mean()).abs() < 0.005


def test_streams_and_seeds_have_different_keys():
    keys = {stream_key(seed, first, second) for seed in range(20) for first in range(20) for second in range(5)}
    assert len(keys) == 2000
    assert all(0 <= key < 2**64 for key in keys)


def test_normals_are_standard_and_independent():
    draws = standard_normal(stream_key(3, 1), torch.arange(50_000), 20)
    assert draws.dtype == torch.float32
    assert stats.kstest(draws.flatten().double().numpy(), "norm").pvalue > 1e-4
    assert (torch.corrcoef(draws.T.double()) - torch.eye(20)).abs().max() < 0.025  # five standard errors
    neighbours = torch.stack([draws[:-1].flatten(), draws[1:].flatten()]).double()
    assert torch.corrcoef(neighbours)[0, 1].abs() < 0.006


def test_a_thousand_million_normals_would_all_be_finite():
    """The smallest uniform number there is has a finite logarithm."""
    smallest = torch.tensor(0.5 / 2**32, dtype=torch.float64)
    assert (-2 * smallest.log()).sqrt() < 7


def test_a_generator_of_a_stream_begins_at_the_same_place_in_every_process_and_no_other_stream_does():
    assert generator_of(3, 5, 2).initial_seed() == 1_800_265_374_445_509_830
    places = {generator_of(seed, stream).initial_seed() for seed in range(50) for stream in range(50)}
    assert len(places) == 2500
