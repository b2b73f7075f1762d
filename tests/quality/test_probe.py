import pytest
import torch

from pipeline.quality.probe import probe_accuracy


def codes(seed, n=2000):
    """Three classes around corners of a triangle, where one in 20 lies at another's corner; a scale that differs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    corners = torch.tensor([[0.0, 0.0], [8000.0, 0.0], [0.0, 8.0]])
    stray = torch.rand(n, generator=generator) < 0.05
    noise = torch.randn(n, 2, generator=generator) * torch.tensor([1000.0, 1.0])
    return corners[torch.where(stray, (labels + 1) % 3, labels)] + noise, labels


def test_classes_apart_are_told_but_for_those_that_lie_astray():
    assert probe_accuracy(*codes(0), *codes(1)) == pytest.approx(0.95, abs=0.015)


def test_codes_that_know_nothing_of_the_class_are_at_chance():
    noise = torch.randn(2, 2000, 4, generator=torch.Generator().manual_seed(9))
    assert probe_accuracy(noise[0], codes(0)[1], noise[1], codes(1)[1]) == pytest.approx(1 / 3, abs=0.04)


def test_an_xor_of_two_dimensions_is_beyond_a_line():
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    labels = (z[:, 0] * z[:, 1] > 0).long()
    assert probe_accuracy(z[:1000], labels[:1000], z[1000:], labels[1000:]) < 0.65


def test_the_scale_of_the_codes_does_not_matter():
    (z, labels), (test_z, test_labels) = codes(0), codes(1)
    small = probe_accuracy(z / 1e6, labels, test_z / 1e6, test_labels)
    assert small == pytest.approx(probe_accuracy(z, labels, test_z, test_labels), abs=0.002)
