import pytest
import torch

from pipeline.quality.random_conv import random_conv_features


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 5), (3, 70, 40)])
def test_features_of_an_image_do_not_depend_on_the_others(shape):
    images = torch.randint(0, 256, (300, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    together = random_conv_features(images)
    assert together.shape == (300, 256)
    torch.testing.assert_close(together[256:260], random_conv_features(images[256:260]))


def test_the_extractor_is_the_same_on_every_machine():
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 1, 8, 8)
    assert random_conv_features(ramp)[0, [0, 4]].tolist() == pytest.approx([0.4106, 0.0], rel=1e-4)
