"""Bodies that are hostile, broken or of another kind."""

import gzip
import json
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from answers import IS_JSON, IS_NPY, RAW, many_scans, npy, picture, refused
from PIL import ImageFile, JpegImagePlugin

from pipeline.runtime.server import reading
from pipeline.runtime.server.bodies import SMALL_JSON

JSON_ROUTES = ["/sample", "/interpolate", "/decode", "/encode", "/score"]


@pytest.mark.parametrize("route", JSON_ROUTES)
@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"z": "\xff"}', b"[" * 100_000, b'{"z": ' + b"9" * 5000 + b"}"])
def test_what_no_parser_follows_as_json_is_refused_alike_by_every_route(client, route, body):
    refused(client.post(route, content=body, headers=IS_JSON), 422, "the body is not JSON; expected an object")


@pytest.mark.parametrize("route", JSON_ROUTES)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "list"),
        (b"[{}]", "list"),
        (b"3", "int"),
        (b"0", "int"),
        (b"1e400", "float"),
        (b"null", "null"),
        (b"true", "bool"),
        (b'"z"', "str"),
    ],
)
def test_json_that_is_no_object_is_refused_alike_by_every_route(client, route, body, kind):
    response = client.post(route, content=body, headers=IS_JSON)
    refused(response, 422, f"the body is a JSON {kind}; expected an object")


@pytest.mark.parametrize("route", JSON_ROUTES)
def test_a_json_body_that_is_empty_is_refused(client, route):
    refused(client.post(route, content=b"", headers=IS_JSON), 422, "the body is not JSON; expected an object")


@pytest.mark.parametrize("route", ["/sample", "/interpolate"])
def test_a_field_whose_name_no_encoding_writes_is_named(client, route):
    refused(client.post(route, content=b'{"\\ud800": 1}', headers=IS_JSON), 422, r"'\ud800' is not known; expected")


@pytest.mark.parametrize(
    ("z", "reason"),
    [
        ([[0, 0]], "z has shape [1, 2]; expected [n >= 1, 3]"),
        ([0, 0, 0], "z has shape [3]"),
        ([], "z has shape [0]"),
        ([[0, 0, 0], [0]], "z is ragged"),
        ([["1", "2", "3"]], "z does not hold float32 numbers alone"),
        ([[None, 0, 0]], "z does not hold"),
        ([[True, 0, 0]], "z does not hold float32 numbers alone"),
        ([[1e39, 0, 0]], "z holds inf; expected finite numbers"),
        ([[10**300, 0, 0]], "z holds inf; expected finite numbers"),
        ([[10**400, 0, 0]], "z holds inf; expected finite numbers"),
        ([[0.5, -(10**400), 0]], "z holds -inf; expected finite numbers"),
        ([[2**64, True, 0]], "z does not hold float32 numbers alone"),
        ([[2**64, None, 0]], "z does not hold float32 numbers alone"),
        ([[2**64, 0, 0], [0]], "z is ragged"),
        ([[0.5, 10**400, 0], [0]], "z is ragged"),
        ({"a": 1}, "z does not hold"),
        ([[0, 0, 0]] * 65, "count is 65; expected 1 to 64"),
    ],
)
def test_latents_of_another_kind_are_refused(client, z, reason):
    refused(client.post("/decode", content=json.dumps({"z": z}), headers=IS_JSON), 422, reason)


@pytest.mark.parametrize("whole", [2**64, -(2**64), 10**30])
@pytest.mark.parametrize("beside", [0, -1, 0.5])
def test_a_latent_is_the_same_number_written_as_an_integer_or_as_a_float(client, whole, beside):
    def decode(value):
        return client.post("/decode", content=json.dumps({"z": [[value, beside, 0]]}), headers=IS_JSON | RAW)

    answer, expected = decode(whole), decode(float(whole))
    assert answer.status_code == expected.status_code == 200, answer.text
    assert answer.content == expected.content


def test_a_latent_that_overflows_the_decoder_is_refused(client):
    refused(client.post("/decode", json={"z": [[3e38, -3e38, 3e38]]}), 422, "z lies where the decoder overflows")


def test_a_nan_is_no_latent(client):
    refused(client.post("/decode", content=b'{"z": [[NaN, 0, 0]]}', headers=IS_JSON), 422, "z holds nan")
    refused(client.post("/decode", content=npy(np.full((1, 3), np.inf)), headers=IS_NPY), 422, "z holds inf")


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.full((1, 8, 8, 1), 256).tolist(), "images holds a number outside the range of uint8"),
        (np.full((1, 8, 8, 1), -1).tolist(), "images holds a number outside"),
        (np.full((1, 8, 8, 1), 0.5).tolist(), "images does not hold uint8 numbers alone"),
        ([[[[True]] + [[0]] * 7] + [[[0]] * 8] * 7], "images does not hold uint8 numbers alone"),
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
        header(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"cos\nsystem\n.",
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000), }\n"),
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }\n"),
        header(b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,), }\n"),
        header(b"{[]: 3}\n"),
    ],
)
def test_a_file_that_is_no_plain_npy_is_refused(client, body):
    refused(client.post("/decode", content=body, headers=IS_NPY), 422, ".npy file")


def test_a_file_in_another_order_or_of_another_type_is_refused_for_that(client):
    fortran, complex_ = npy(np.asfortranarray(np.zeros((2, 3)))), npy(np.zeros((2, 3), complex))
    refused(client.post("/decode", content=fortran, headers=IS_NPY), 422, "is in Fortran order; expected C order")
    refused(client.post("/decode", content=complex_, headers=IS_NPY), 422, "holds '<c16'; expected one of |u1, <f2,")


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


IS_JPEG = {"content-type": "image/jpeg"}


@pytest.mark.parametrize("resize", ["true", "false"])
def test_a_jpeg_of_more_scans_than_any_camera_writes_is_refused_before_it_is_decoded(client, monkeypatch, resize):
    asked = f"/encode?resize={resize}"
    assert client.post(asked, content=many_scans(100), headers=IS_JPEG).status_code == 200
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", None)
    refused(client.post(asked, content=many_scans(101), headers=IS_JPEG), 422, "101 scans, expected at most 100")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(client, monkeypatch, kind):
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    sent = {"content": picture(kind, (9, 8)), "headers": {"content-type": f"image/{kind}"}}
    refused(client.post("/encode", **sent), 422, "the picture has 9x8 pixels; expected 8x8 (or resize=true)")


class Turns:
    """A function of `reading`, held until `go` is set; counts how many run at once, and notes in which threads."""

    def __init__(self, monkeypatch, name="read_picture"):
        self.go, self.started, self.threads = threading.Event(), threading.Event(), set()
        self.now = self.most = 0
        self._read = getattr(reading, name)
        monkeypatch.setattr(reading, name, self)

    def __call__(self, *arguments):
        self.now += 1
        self.most = max(self.most, self.now)
        self.threads.add(threading.current_thread().name)
        self.started.set()
        assert self.go.wait(10)
        self.now -= 1
        return self._read(*arguments)


def assert_one_at_a_time(client, turns, count, **sent):
    """Of so many requests to /encode one is read at a time, by the thread for pictures, and others are answered."""
    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(client.post, "/encode", **sent) for _ in range(count)]
        assert turns.started.wait(10)
        while client.app.state.service.in_flight < count:
            pass
        assert client.get("/sample").headers["content-type"] == "image/png"
        turns.go.set()
        assert {request.result().status_code for request in waiting} == {200}
    assert turns.most == 1
    assert turns.threads == {"pictures_0"}


def test_pictures_are_decoded_one_at_a_time_and_hold_up_nothing_else(client, monkeypatch):
    many = 40  # more than asyncio's own executor has threads
    sent = {"content": picture("png"), "headers": {"content-type": "image/png"}}
    assert_one_at_a_time(client, Turns(monkeypatch), many, **sent)


def test_a_picture_whose_turn_does_not_come_is_given_up(start, monkeypatch):
    turns = Turns(monkeypatch)
    client = start(request_seconds=0.05)
    sent = {"content": picture("png"), "headers": {"content-type": "image/png"}}
    refused(client.post("/encode", **sent), 504, "the picture was not decoded within 0.05 s")
    turns.go.set()


@pytest.fixture
def many_lists():
    """The largest JSON that 64 images can need: each value in a list, and each on a line of its own."""
    return json.dumps({"images": np.full((64, 8, 8, 1), 255).tolist()}, indent=4).encode()


@pytest.mark.parametrize("route", ["/encode", "/score"])
def test_as_many_images_as_are_allowed_may_be_written_at_any_length(client, many_lists, route):
    assert len(many_lists) > SMALL_JSON
    assert client.post(route, content=many_lists, headers=IS_JSON).status_code == 200


def test_as_many_rows_as_are_allowed_may_be_written_as_triton_writes_them(start):
    n = 10_000
    seeds = {"name": "seed", "datatype": "INT64", "shape": [n, 1], "data": [[2**63 - 1]] * n}
    index = {"name": "index", "datatype": "INT64", "shape": [n, 1], "data": [[0]] * n}
    temperature = {"name": "temperature", "datatype": "FP32", "shape": [n, 1], "data": [[1 / 3]] * n}
    body = json.dumps({"inputs": [seeds, index, temperature], "outputs": [{"name": "z"}]}, indent=4)
    assert start(max_images=n).post("/v2/models/sampler/infer", content=body).status_code == 200


def test_json_over_a_small_size_is_parsed_in_the_turn_of_pictures_and_holds_up_nothing_else(
    client, monkeypatch, many_lists
):
    assert_one_at_a_time(client, Turns(monkeypatch, "read_array"), 8, content=many_lists, headers=IS_JSON)


def test_json_whose_turn_does_not_come_is_given_up(start, monkeypatch, many_lists):
    turns = Turns(monkeypatch, "read_array")
    client = start(request_seconds=0.05)
    sent = {"content": many_lists, "headers": IS_JSON}
    refused(client.post("/encode", **sent), 504, "the JSON was not decoded within 0.05 s")
    turns.go.set()


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("/sample", "the body has more than 262144 bytes"),
        ("/interpolate", "the body has more than 262144 bytes"),
        ("/decode", "the body has more than 274432 bytes"),  # 64 latents of 3 numbers
        ("/encode", "the JSON has 200003 brackets and commas; expected at most 14464"),
        ("/score", "the JSON has 200003 brackets and commas; expected at most 14464"),
        ("/v2/models/encoder/infer", "the JSON has 200003 brackets and commas; expected at most 14464"),
    ],
)
def test_json_that_no_request_needs_is_refused_unparsed(client, monkeypatch, route, reason):
    body = b'{"z": [' + b"{}," * 100_000 + b"{}]}"
    with monkeypatch.context() as without_parser:
        without_parser.setattr(json, "loads", None)
        response = client.post(route, content=body, headers=IS_JSON)
    refused(response, 413, reason)


def test_what_stands_behind_the_json_has_the_limit_of_the_body_alone(client):
    inputs = [{"name": "z", "datatype": "FP32", "shape": [30_000, 3], "parameters": {"binary_data_size": 360_000}}]
    head = json.dumps({"inputs": inputs}).encode()
    sent = {"content": head + bytes(360_000), "headers": {"Inference-Header-Content-Length": str(len(head))}}
    refused(client.post("/v2/models/decoder/infer", **sent), 422, "count is 30000; expected 1 to 64")


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


@pytest.mark.parametrize("route", [*JSON_ROUTES, "/v2/models/sampler/infer"])
def test_a_compressed_body_is_refused_by_every_route(client, route):
    headers = IS_JSON | {"content-encoding": "gzip"}
    refused(client.post(route, content=gzip.compress(b"{}"), headers=headers), 415, "not compressed")
    headers["content-encoding"] = "identity"
    assert client.post(route, content=b"{}", headers=headers).status_code in (200, 400, 422)
