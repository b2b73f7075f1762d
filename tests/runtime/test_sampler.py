import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.runtime import Sampler


def levels(a, b):
    """Largest difference in grey levels."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


@pytest.fixture
def sampler(mlp):
    return Sampler(mlp.folder, "cpu", batch_size=16)


def test_images_have_the_shape_and_type_that_apps_hold(exported):
    sampler = Sampler(exported.folder, "cpu")
    channels, height, width = exported.metadata.image_shape
    assert sampler.image_shape == (height, width, channels)
    assert sampler.latent_dim == 3
    assert sampler.metadata.mlflow_run == "8f14e45f"
    images = sampler.sample(5, seed=1)
    assert images.shape == (5, height, width, channels)
    assert images.dtype == np.uint8
    assert images.std() > 5
    assert levels(images[0], images[1]) > 5


def test_the_same_seed_gives_the_same_images_and_another_gives_others(sampler):
    assert np.array_equal(sampler.sample(8, seed=3), sampler.sample(8, seed=3))
    assert levels(sampler.sample(8, seed=3), sampler.sample(8, seed=4)) > 5


def test_a_request_may_be_split_and_joined(exported):
    sampler = Sampler(exported.folder, "cpu")
    whole = sampler.sample(100, seed=7)
    parts = [sampler.sample(40, seed=7), sampler.sample(60, seed=7, first=40)]
    assert levels(whole, np.concatenate(parts)) <= 1


def test_numbers_of_numpy_do_not_overflow_between_chunks(sampler):
    first = 32_700  # of sixteen bits, which end at 32,767
    assert np.array_equal(sampler.sample(100, 7, np.int16(first)), sampler.sample(100, 7, first))
    assert np.array_equal(sampler.latents(100, np.uint8(7), np.int16(first)), sampler.latents(100, 7, first))


def test_chunks_do_not_change_the_images(mlp):
    whole = Sampler(mlp.folder, "cpu", batch_size=1000).sample(50, seed=2, first=9)
    chunked = Sampler(mlp.folder, "cpu", batch_size=7)
    assert levels(whole, chunked.sample(50, seed=2, first=9)) <= 1
    parts = list(chunked.iterate(50, seed=2, first=9))
    assert [len(part) for part in parts] == [7] * 7 + [1]
    assert levels(whole, np.concatenate(parts)) <= 1


def test_of_large_images_fewer_are_computed_at_once(mlp, monkeypatch):
    assert Sampler(mlp.folder, "cpu").batch_size == 512
    monkeypatch.setattr("pipeline.runtime.together.MOST_VALUES", 10 * 64)
    sampler = Sampler(mlp.folder, "cpu")
    assert sampler.batch_size == 10
    assert [len(part) for part in sampler.iterate(25)] == [10, 10, 5]
    assert levels(sampler.sample(25), Sampler(mlp.folder, "cpu", batch_size=25).sample(25)) <= 1


def test_temperature_zero_gives_the_image_of_the_centre(sampler):
    images = sampler.sample(3, seed=5, temperature=0.0)
    assert levels(images, sampler.decode(np.zeros((3, 3)))) <= 1
    assert levels(images, sampler.sample(3, seed=5)) > 1


def test_decode_and_encode_are_those_of_the_model(exported):
    sampler = Sampler(exported.folder, "cpu", batch_size=4)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((10, 3))
    images = rng.integers(0, 256, (10, *sampler.image_shape), dtype=np.uint8)
    with torch.no_grad():
        x = exported.vae.mean(torch.from_numpy(z).float()).permute(0, 2, 3, 1).numpy()
        expected = exported.vae.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    assert levels(sampler.decode(z), np.rint(x * 255)) <= 1
    for found, wanted in zip(sampler.encode(images), expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_a_latent_that_overflows_the_decoder_is_refused(sampler):
    with pytest.raises(UserError, match="z lies where the decoder overflows: a pixel is not finite; expected z nearer"):
        sampler.decode(np.array([[0, 0, 0], [3e38, -3e38, 3e38]]))


def test_one_sampler_serves_many_threads(mlp, sampler):
    z = np.zeros((1, 3))
    expected, centre = sampler.sample(20, seed=1), Sampler(mlp.folder, "cpu").decode(z)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: (sampler.sample(20, seed=1), sampler.decode(z)), range(40)))
    assert all(np.array_equal(images, expected) and np.array_equal(decoded, centre) for images, decoded in drawn)


def test_a_lone_sampler_file_samples_and_says_what_it_lacks(mlp, tmp_path, sampler):
    path = shutil.copy(mlp.folder / "sampler.onnx", tmp_path / "renamed.onnx")
    lone = Sampler(path, "cpu")
    assert np.array_equal(lone.sample(4), sampler.sample(4))
    with pytest.raises(UserError, match=r"renamed.onnx: is a sampler; expected a decoder.onnx, or the export folder"):
        lone.decode(np.zeros((1, 3)))


def test_a_file_with_another_graph_is_refused(mlp):
    with pytest.raises(UserError, match=r"decoder.onnx: is a decoder; expected a sampler.onnx"):
        Sampler(mlp.folder / "decoder.onnx", "cpu")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"n": 0}, "n is 0; expected a whole number >= 1"),
        ({"n": -3}, "n is -3"),
        ({"n": 2.0}, "n is 2.0; expected a whole number"),
        ({"n": True}, "n is True; expected a whole number"),
        ({"n": 10**6 + 1}, "n is 1000001; expected at most 1000000"),
        ({"n": 1, "seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"n": 1, "seed": 2**63}, "seed is 9223372036854775808; expected"),
        ({"n": 1, "seed": 0.5}, "seed is 0.5; expected a whole number"),
        ({"n": 1, "seed": "7"}, "seed is '7'; expected a whole number"),
        ({"n": 1, "first": -1}, "first is -1; expected"),
        ({"n": 2, "first": 2**48 - 1}, "first is 281474976710655; expected"),
        ({"n": 1, "temperature": -0.1}, "temperature is -0.1; expected a number from 0"),
        ({"n": 1, "temperature": math.nan}, "temperature is nan; expected"),
        ({"n": 1, "temperature": math.inf}, "temperature is inf; expected"),
        ({"n": 1, "temperature": 10**400}, "temperature is 1000.*; expected a number from 0 to 1000"),
        ({"n": 1, "temperature": 1j}, "temperature is 1j; expected"),
        ({"n": 1, "temperature": "hot"}, "temperature is 'hot'; expected"),
    ],
)
def test_a_value_out_of_range_is_named(sampler, request_, message):
    with pytest.raises(UserError, match=message):
        sampler.sample(**request_)


def test_iterate_checks_its_values_before_the_first_chunk(sampler):
    with pytest.raises(UserError, match="seed is -1"):
        sampler.iterate(5, seed=-1)
    assert len(next(sampler.iterate(10**9))) == 16  # no limit: nothing is held but a chunk


def test_more_images_than_a_seed_has_are_refused_by_the_name_of_the_argument(sampler):
    with pytest.raises(UserError, match=f"^n is {10**30}; expected a whole number from 1 to {2**48}$"):
        sampler.iterate(10**30)


def test_numpy_integers_are_whole_numbers(sampler):
    assert np.array_equal(sampler.sample(np.int64(2), np.int32(1), np.uint8(3)), sampler.sample(2, 1, 3))


@pytest.mark.parametrize(
    "z", [np.zeros(3), np.zeros((2, 4)), np.zeros((0, 3)), [["a", "b", "c"]], [[0, 0, math.nan]], [[0, 0, math.inf]]]
)
def test_latents_of_another_kind_are_refused(sampler, z):
    with pytest.raises(UserError, match=r"^z "):
        sampler.decode(z)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 1)), np.zeros((8, 8, 1), np.uint8), np.zeros((2, 1, 8, 8), np.uint8), np.zeros((0, 8, 8, 1))],
)
def test_images_of_another_kind_are_refused(sampler, images):
    with pytest.raises(UserError, match=r"^images are .*; expected uint8 \['n >= 1', 8, 8, 1\]"):
        sampler.encode(images)


@pytest.mark.parametrize("read", ["decode", "encode", "score"])
def test_ragged_lists_are_refused(sampler, read):
    with pytest.raises(UserError, match="^(z|images) is ragged; expected lists of equal length"):
        getattr(sampler, read)([[0, 0, 0], [0]])


@pytest.mark.filterwarnings("error")
def test_a_latent_beyond_float32_is_refused_in_one_line(sampler):
    with pytest.raises(UserError, match="z holds a NaN or an infinity"):
        sampler.decode(np.full((1, 3), 1e300))


def test_more_latents_than_one_array_holds_are_refused_by_their_number(sampler):
    with pytest.raises(UserError, match="^n is 1000000000000000; expected at most 1000000$"):
        sampler.latents(10**15)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_batch_size_out_of_range_is_refused(mlp, batch_size):
    with pytest.raises(UserError, match="batch_size is"):
        Sampler(mlp.folder, "cpu", batch_size=batch_size)
