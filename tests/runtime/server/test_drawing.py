import io

import numpy as np
import pytest
from answers import IS_JSON, IS_NPY, JSON, NPY, RAW, levels, loaded, npy, refused
from PIL import Image

from pipeline.runtime import Sampler


def test_the_images_are_those_of_the_sampler_in_every_form(client, sampler):
    asked = {"count": 6, "seed": 7, "first": 40, "temperature": 0.5}
    expected = sampler.sample(6, seed=7, first=40, temperature=0.5)
    raw = client.post("/sample", json=asked, headers=RAW)
    assert (raw.headers["x-shape"], raw.headers["x-dtype"]) == ("6,8,8,1", "uint8")
    assert levels(np.frombuffer(raw.content, np.uint8).reshape(6, 8, 8, 1), expected) <= 1
    assert levels(loaded(client.post("/sample", json=asked, headers=NPY)), expected) <= 1
    said = client.post("/sample", json=asked, headers=JSON).json()
    assert (said["shape"], said["seed"], said["first"]) == ([6, 8, 8, 1], 7, 40)
    assert levels(np.array(said["images"]), expected) <= 1


def test_a_url_shows_a_grid_in_a_browser(client):
    response = client.get("/sample?count=4&seed=3", headers={"accept": "image/avif,image/webp,image/*,*/*;q=0.8"})
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (118, 118)
    assert response.content == client.post("/sample", json={"count": 4, "seed": 3}).content


def test_more_images_than_a_run_holds_are_joined(client, sampler):
    assert levels(loaded(client.get("/sample?count=50&seed=2", headers=NPY)), sampler.sample(50, seed=2)) <= 1


def test_decode_takes_json_and_npy(client, sampler):
    z = np.random.default_rng(0).standard_normal((5, 3))
    expected = sampler.decode(z)
    assert levels(loaded(client.post("/decode", json={"z": z.tolist()}, headers=NPY)), expected) <= 1
    assert levels(loaded(client.post("/decode", content=npy(z), headers=NPY | IS_NPY)), expected) <= 1


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_walk_begins_and_ends_with_the_images_of_its_seeds(client, sampler, path):
    walk = loaded(client.post("/interpolate", json={"seeds": [3, 8], "steps": 5, "path": path}, headers=NPY))
    assert len(walk) == 5
    assert levels(walk[[0, -1]], np.concatenate([sampler.sample(1, seed=3), sampler.sample(1, seed=8)])) <= 1
    assert levels(walk[2], walk[0]) > 1


def test_a_walk_is_spherical_between_draws_of_the_standard_normal_unless_told_otherwise(client):
    usual, told = (
        client.post("/interpolate", json={"seeds": [3, 8], "steps": 5, **path}, headers=JSON).json()
        for path in ({}, {"path": "spherical"})
    )
    assert usual == told


@pytest.mark.parametrize(("steps", "shape"), [(7, (1, 7)), (16, (1, 16)), (20, (2, 10))])
def test_a_walk_is_painted_as_one_row_unless_it_is_long(client, steps, shape):
    response = client.post("/interpolate", json={"seeds": [3, 8], "steps": steps})
    rows, columns = shape
    assert Image.open(io.BytesIO(response.content)).size == (58 * columns + 2, 58 * rows + 2)  # 8x8 enlarged to 56


def test_a_lone_sampler_says_what_it_lacks(start, mlp):
    client = start(model=Sampler(mlp.folder / "sampler.onnx", "cpu"))
    assert client.get("/sample").status_code == 200
    refused(
        client.post("/decode", json={"z": [[0, 0, 0]]}), 404, "this model has no 'decoder'; expected one of sampler"
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"count": 0}, "count is 0; input should be greater than or equal to 1"),
        ({"count": -5}, "count is -5"),
        ({"count": 65}, "count is 65; expected 1 to 64"),
        ({"count": 10**30}, "count is 1000"),
        ({"count": 1.5}, "count is 1.5"),
        ({"count": "many"}, "count is 'many'"),
        ({"count": True}, "count is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"first": -1}, "first is -1"),
        ({"first": 2**48 - 1, "count": 2}, "first is 281474976710655"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": 1001}, "temperature is 1001"),
        ({"temperature": None}, "temperature is None"),
        ({"label": 3}, "label is 3; expected none, since the sampler of this model takes no label"),
    ],
)
def test_a_value_out_of_range_is_named(client, asked, reason):
    refused(client.post("/sample", json=asked), 422, reason)


@pytest.mark.parametrize("temperature", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_temperature_that_is_not_finite_is_refused(client, temperature):
    refused(client.post("/sample", content=f'{{"temperature": {temperature}}}', headers=IS_JSON), 422, "temperature is")
    refused(client.get(f"/sample?temperature={temperature}"), 422, "temperature is")


@pytest.mark.parametrize("asked", [{"seeds": [1]}, {"seeds": [1, -2]}, {"seeds": [1, 2], "steps": 1}, {}])
def test_a_walk_needs_two_seeds_and_two_steps(client, asked):
    refused(client.post("/interpolate", json=asked), 422, "")


@pytest.mark.parametrize(("asked", "place"), [({}, "seeds"), ({"seeds": [1]}, "seeds.1")])
def test_what_a_walk_lacks_is_named(client, asked, place):
    refused(client.post("/interpolate", json=asked), 422, f"{place} is missing; expected a value")


def test_a_walk_has_no_more_steps_than_a_request_has_images(client):
    refused(client.post("/interpolate", json={"seeds": [1, 2], "steps": 65}), 422, "steps is 65; expected 1 to 64")


@pytest.mark.parametrize("route", ["/sample", "/interpolate"])
def test_a_field_in_the_query_of_a_body_of_fields_is_refused(client, route):
    body = {"seeds": [1, 2]} if route == "/interpolate" else {}
    refused(client.post(f"{route}?seed=3", json=body), 422, "'seed' stands in the query; expected all fields in the")


@pytest.mark.parametrize("asked", ["/sample?sed=3", "/sample?count=2&count=3&counts=1"])
def test_a_field_that_no_sample_has_is_refused(client, asked):
    refused(client.get(asked), 422, "is not known; expected count, seed, first, temperature or label")
