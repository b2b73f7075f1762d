import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.runtime import Sampler

RAW = {"accept": "application/octet-stream"}
NPY = {"accept": "application/x-npy"}
JSON = {"accept": "application/json"}
IS_JSON = {"content-type": "application/json"}
IS_NPY = {"content-type": "application/x-npy"}


def levels(a, b):
    """Largest difference in grey levels."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture(kind, size=(8, 8), mode="L"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def loaded(response):
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def refused(response, status, reason):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert reason in response.json()["error"]
    assert "\n" not in response.json()["error"]


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


def test_encode_takes_arrays_and_pictures(client, sampler):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    mu, logvar = sampler.encode(images)
    said = client.post("/encode", json={"images": images.tolist()}).json()
    np.testing.assert_allclose(said["mu"], mu, atol=1e-5)
    both = loaded(client.post("/encode", content=npy(images), headers=NPY | IS_NPY))
    np.testing.assert_allclose(both, [mu, logvar], atol=1e-5)
    file = io.BytesIO()
    Image.fromarray(images[1, ..., 0]).save(file, "PNG")
    said = client.post("/encode", content=file.getvalue(), headers={"content-type": "image/png"}).json()
    np.testing.assert_allclose(said["logvar"], logvar[1:2], atol=1e-5)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_of_another_size_is_resized_if_asked(client, kind, mode):
    sent = {"content": picture(kind, (20, 30), mode), "headers": {"content-type": f"image/{kind}"}}
    refused(client.post("/encode", **sent), 422, "the picture has 20x30 pixels; expected 8x8 (or resize=true)")
    assert np.shape(client.post("/encode?resize=true", **sent).json()["mu"]) == (1, 3)


def test_a_colour_model_takes_pictures_and_gives_colours(start, conv):
    client = start(model=Sampler(conv.folder, "cpu"))
    sent = {"content": picture("png", (14, 10), "LA"), "headers": {"content-type": "image/png"}}
    assert np.shape(client.post("/encode", **sent).json()["mu"]) == (1, 3)
    assert loaded(client.get("/sample?count=2", headers=NPY)).shape == (2, 10, 14, 3)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_walk_begins_and_ends_with_the_images_of_its_seeds(client, sampler, path):
    walk = loaded(client.post("/interpolate", json={"seeds": [3, 8], "steps": 5, "path": path}, headers=NPY))
    assert len(walk) == 5
    assert levels(walk[[0, -1]], np.concatenate([sampler.sample(1, seed=3), sampler.sample(1, seed=8)])) <= 1
    assert levels(walk[2], walk[0]) > 1


def test_metadata_says_what_the_model_is(client):
    said = client.get("/metadata").json()
    assert (said["latent_dim"], said["image_shape"], said["mlflow_run"]) == (3, [8, 8, 1], "8f14e45f")
    assert set(said["graphs"]) >= {"sampler", "decoder", "encoder"}
    assert said["max_images"] == 64


def test_metadata_says_how_many_nats_each_latent_dimension_carries(start, sampler):
    said = start().get("/metadata").json()["latent_kl"]
    assert len(said) == 3
    assert said == list(sampler.metadata.latent_kl)
    sampler.metadata = replace(sampler.metadata, latent_kl=None)  # of a plain auto-encoder
    assert start().get("/metadata").json()["latent_kl"] is None


def test_a_lone_sampler_says_what_it_lacks(start, mlp):
    client = start(model=Sampler(mlp.folder / "sampler.onnx", "cpu"))
    assert client.get("/sample").status_code == 200
    refused(
        client.post("/decode", json={"z": [[0, 0, 0]]}), 404, "this model has no 'decoder'; expected one of sampler"
    )


def test_metrics_count_requests_by_template_and_images(client):
    client.get("/sample?count=5")
    client.get("/sample?count=0")
    client.get("/a/path/of/the/clients/own")
    text = client.get("/metrics").text
    assert 'vae_requests_total{route="/sample",status="200"} 1.0' in text
    assert 'vae_requests_total{route="/sample",status="422"} 1.0' in text
    assert 'vae_requests_total{route="unmatched",status="404"} 1.0' in text
    assert 'vae_rows_total{graph="sampler"} 5.0' in text
    assert 'vae_batch_rows_bucket{graph="sampler",le="8.0"} 1.0' in text
    assert 'vae_queue_rows{graph="sampler"} 0.0' in text
    assert "clients/own" not in text


@pytest.mark.parametrize("route", ["/health", "/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_is_answered(client, route):
    assert client.get(route).status_code == 200


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


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    response = client.post("/sample", content=body, headers=IS_JSON)
    refused(response, response.status_code if response.status_code == 400 else 422, "")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"count": ' + b"9" * 5000 + b"}"])
def test_json_that_no_parser_follows_is_refused(client, body):
    refused(client.post("/sample", content=body, headers=IS_JSON), 400, "error parsing the body")
    refused(client.post("/decode", content=body, headers=IS_JSON), 422, "the body is not JSON")


@pytest.mark.parametrize(
    ("z", "reason"),
    [
        ([[0, 0]], "z has shape [1, 2]; expected [n >= 1, 3]"),
        ([0, 0, 0], "z has shape [3]"),
        ([], "z has shape [0]"),
        ([[0, 0, 0], [0]], "z is ragged"),
        ([["1", "2", "3"]], "z does not hold float32 numbers alone"),
        ([[None, 0, 0]], "z does not hold"),
        ([[1e39, 0, 0]], "z holds inf; expected finite numbers"),
        ([[10**400, 0, 0]], "z does not hold"),
        ({"a": 1}, "z does not hold"),
        ([[0, 0, 0]] * 65, "count is 65; expected 1 to 64"),
    ],
)
def test_latents_of_another_kind_are_refused(client, z, reason):
    refused(client.post("/decode", content=json.dumps({"z": z}), headers=IS_JSON), 422, reason)


def test_a_nan_is_no_latent(client):
    refused(client.post("/decode", content=b'{"z": [[NaN, 0, 0]]}', headers=IS_JSON), 422, "z holds nan")
    refused(client.post("/decode", content=npy(np.full((1, 3), np.inf)), headers=IS_NPY), 422, "z holds inf")


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.full((1, 8, 8, 1), 256).tolist(), "images holds a number outside the range of uint8"),
        (np.full((1, 8, 8, 1), -1).tolist(), "images holds a number outside"),
        (np.full((1, 8, 8, 1), 0.5).tolist(), "images does not hold uint8 numbers alone"),
        (np.zeros((1, 1, 8, 8), int).tolist(), "images have shape [1, 1, 8, 8]; expected ['n >= 1', 8, 8, 1]"),
        (np.zeros((8, 8, 1), int).tolist(), "images have shape [8, 8, 1]"),
    ],
)
def test_images_of_another_kind_are_refused(client, images, reason):
    refused(client.post("/encode", json={"images": images}), 422, reason)


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros((2, 3)))[:-1],
        npy(np.zeros((2, 3))) + b"\0",
        npy(np.asfortranarray(np.zeros((2, 3)))),
        npy(np.zeros((2, 3), complex)),
        header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"cos\nsystem\n.",
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000), }\n"),
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }\n"),
        header(b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,), }\n"),
        header(b"{[]: 3}\n"),
    ],
)
def test_a_file_that_is_no_plain_npy_is_refused(client, body):
    refused(client.post("/decode", content=body, headers=IS_NPY), 422, ".npy file")


def bomb(width, height):
    """A PNG that claims to be as large as this; valid to the end of its header."""
    content = bytearray(picture("png"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is not a PNG picture"),
        (b"not a picture", "is not a PNG picture"),
        (picture("jpeg"), "is not a PNG picture"),
        (picture("png", (100, 100))[:60], "the picture cannot be decoded"),
        (bomb(5000, 5000), "the picture has 5000x5000 pixels; expected <= 16777216"),
        (bomb(60000, 60000), "pixels; expected <= 16777216"),
    ],
)
def test_what_is_no_picture_or_a_bomb_is_refused(client, body, reason):
    refused(client.post("/encode?resize=true", content=body, headers={"content-type": "image/png"}), 422, reason)


@pytest.mark.parametrize("route", ["/decode", "/encode"])
@pytest.mark.parametrize("kind", [{}, {"content-type": "text/html"}, {"content-type": "image/gif"}])
def test_a_body_of_another_type_is_refused(client, route, kind):
    refused(client.post(route, content=b"x", headers=kind), 415, "Content-Type is")


@pytest.mark.parametrize("route", ["/sample", "/interpolate"])
@pytest.mark.parametrize("body", [b'{"count": 2, "seeds": [1, 2]}', b""])
def test_fields_that_do_not_say_that_they_are_json_are_refused(client, route, body):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    refused(client.post(route, content=body, headers=kind), 415, "expected application/json")


def test_a_route_of_images_names_the_pictures_that_it_reads(client):
    refused(client.post("/encode", content=b"x"), 415, "expected image/png, image/jpeg, image/webp, application/json")


def test_a_compressed_body_is_refused(client):
    refused(client.post("/decode", content=b"x", headers=IS_JSON | {"content-encoding": "gzip"}), 415, "not compressed")


@pytest.mark.parametrize(
    ("method", "route", "body"),
    [
        ("GET", "/sample", None),
        ("POST", "/sample", {}),
        ("POST", "/decode", {"z": [[0, 0, 0]]}),
        ("POST", "/encode", {"images": []}),
        ("POST", "/interpolate", {"seeds": [0, 1]}),
    ],
)
def test_a_form_that_is_not_offered_is_refused(client, method, route, body):
    response = client.request(method, route, json=body, headers={"accept": "text/html, image/png;q=0"})
    refused(response, 406, "expected one of")


@pytest.mark.parametrize("asked", [{"seeds": [1]}, {"seeds": [1, -2]}, {"seeds": [1, 2], "steps": 1}, {}])
def test_a_walk_needs_two_seeds_and_two_steps(client, asked):
    refused(client.post("/interpolate", json=asked), 422, "")


def test_a_walk_has_no_more_steps_than_a_request_has_images(client):
    refused(client.post("/interpolate", json={"seeds": [1, 2], "steps": 65}), 422, "steps is 65; expected 1 to 64")


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/v2/models/..%2f..%2fmanifest.json", "/v2/models/%2e%2e", "/x"])
def test_a_path_that_climbs_finds_nothing(client, path):
    assert client.get(path).status_code == 404


def test_another_method_is_refused(client):
    refused(client.delete("/sample"), 405, "Method Not Allowed")


def test_a_failure_of_the_server_is_one_line_without_its_reason(client, monkeypatch):
    def fail(rows):
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(client.app.state.service._batchers["sampler"], "_run", fail)
    response = client.get("/sample")
    refused(response, 500, "the server failed")
    assert "secret" not in response.text
    assert 'vae_requests_total{route="/sample",status="500"} 1.0' in client.get("/metrics").text
