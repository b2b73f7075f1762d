from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime import Sampler
from pipeline.runtime.interpolation import WAYS, spherical, straight, there_and_back, usual_way, walk, write_animation
from pipeline.runtime.metadata import Metadata


def test_the_walk_keeps_its_distance_from_the_centre():
    start, end = np.array([3, 0, 0], np.float32), np.array([0, 3, 0], np.float32)
    points = spherical(start, end, 5)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 3, rtol=1e-6)
    np.testing.assert_allclose(points[[0, -1]], [start, end], atol=1e-6)
    np.testing.assert_allclose(points[2], [3 / 2**0.5, 3 / 2**0.5, 0], rtol=1e-6)
    angles = np.arccos(np.clip((points[1:] * points[:-1]).sum(1) / 9, -1, 1))
    np.testing.assert_allclose(angles, np.pi / 8, rtol=1e-3)


@pytest.mark.parametrize("end", [[2, 4, 6], [-1, -2, -3], [1, 2, 3], [0, 0, 0]])
def test_where_there_is_no_great_circle_the_walk_is_straight(end):
    start, end = np.array([1, 2, 3], np.float32), np.array(end, np.float32)
    np.testing.assert_allclose(spherical(start, end, 3), [start, (start + end) / 2, end], atol=1e-5)


@pytest.mark.parametrize(
    ("prior", "components", "way"),
    [("standard", None, "spherical"), ("standard", 3, "linear"), ("flow", None, "linear"), ("mixture", 3, "linear")],
)
def test_the_usual_way_goes_by_what_the_sampler_draws_from(prior, components, way):
    metadata = Metadata("sampler", 3, (1, 8, 8), "bernoulli", prior, "elbo", "d", "p", "g", "m")
    assert usual_way(replace(metadata, aggregate_components=components)) == way


def test_a_walk_has_a_leg_between_each_two_stations():
    stations = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    legs = walk(stations, 7)
    assert legs.shape == (3, 7, 5)
    np.testing.assert_allclose(legs[:, 0], stations[:-1], atol=1e-6)
    np.testing.assert_allclose(legs[:, -1], stations[1:], atol=1e-6)


def test_a_walk_may_be_straight():
    assert (WAYS["spherical"], WAYS["linear"]) == (spherical, straight)
    stations = np.array([[3, 0], [0, 3]], np.float32)
    np.testing.assert_allclose(walk(stations, 3, straight)[0, 1], [1.5, 1.5])


def test_a_loop_goes_there_and_back_and_stands_still_nowhere():
    legs = np.array([[0, 1, 2], [2, 3, 4]], np.float32)[..., None]
    np.testing.assert_array_equal(there_and_back(legs)[:, 0], [0, 1, 2, 3, 4, 3, 2, 1])
    np.testing.assert_array_equal(there_and_back(legs[:1, 1:])[:, 0], [1, 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_plays_for_ever(tmp_path, channels):
    frames = np.repeat(np.array([0, 80, 160, 240], np.uint8), 64 * channels).reshape(4, 8, 8, channels)
    write_animation(str(tmp_path / "a.gif"), iter(frames), 20)
    with Image.open(tmp_path / "a.gif") as animation:
        levels = [level_of(animation, number) for number in range(animation.n_frames)]
        assert levels == [0, 80, 160, 240]
        assert animation.info["loop"] == 0
        assert animation.info["duration"] == 50
        assert animation.size == (224, 224)


def level_of(animation, number):
    animation.seek(number)
    return animation.convert("L").getpixel((3, 3))


def test_the_latents_of_a_seed_decode_to_its_images(exported):
    sampler = Sampler(exported.folder, "cpu", batch_size=4)
    z = sampler.latents(10, seed=3, first=5, temperature=0.7)
    assert z.shape == (10, 3)
    difference = sampler.decode(z).astype(int) - sampler.sample(10, seed=3, first=5, temperature=0.7)
    assert np.abs(difference).max() <= 1
