import torch

from pipeline.dataset.noise import stream_key, uniform_16_bits


def test_noise_of_an_example_does_not_depend_on_its_batch():
    together = uniform_16_bits(7, torch.arange(10), 100)
    alone = uniform_16_bits(7, torch.tensor([6]), 100)
    torch.testing.assert_close(together[6:7], alone, rtol=0, atol=0)


def test_a_longer_draw_begins_with_the_shorter_one():
    short, long = (uniform_16_bits(7, torch.arange(3), count) for count in (5, 50))
    assert torch.equal(long[:, :5], short)


def test_values_are_uniform_over_sixteen_bits():
    values = uniform_16_bits(stream_key(0, 1), torch.arange(2000), 784)
    assert values.min() >= 0
    assert values.max() <= 65535
    counts = torch.bincount((values >> 8).flatten(), minlength=256).double()
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
