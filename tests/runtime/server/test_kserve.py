import json

import numpy as np
import pytest
from answers import loop_thread, noting_threads

from pipeline.runtime.server import formats, kserve

HEADER = "Inference-Header-Content-Length"
IN_SHARED_MEMORY = {"shared_memory_region": "ours", "shared_memory_byte_size": 8}
NOT_SERVED = "shared_memory_region is an extension that is not served; expected JSON or binary tensors"


def tensor(name, datatype, values):
    return {"name": name, "datatype": datatype, "shape": list(np.shape(values)), "data": values}


def rows(seeds, **changes):
    inputs = {
        "seed": tensor("seed", "INT64", seeds),
        "index": tensor("index", "INT64", [0] * len(seeds)),
        "temperature": tensor("temperature", "FP32", [1.0] * len(seeds)),
    }
    return [inputs[name] | changes.get(name, {}) for name in inputs]


def infer(client, model, body):
    return client.post(f"/v2/models/{model}/infer", json=body)


def test_the_server_and_its_models_are_described(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    said = client.get("/v2/models/decoder").json()
    assert said["inputs"] == [{"name": "z", "datatype": "FP32", "shape": [-1, 3]}]
    assert said["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert client.get("/v2/models/sampler/versions/1/ready").json() == {"name": "sampler", "ready": True}
    assert client.get("/v2/models/none").status_code == 404
    assert client.get("/v2/models/sampler/versions/2").json() == {"error": "version is '2'; expected '1'"}


def test_rows_of_any_seed_stand_in_one_request(client, sampler):
    body = {"id": "42", "inputs": rows([3, 8]), "outputs": [{"name": "images"}]}
    said = infer(client, "sampler", body).json()
    assert (said["model_name"], said["model_version"], said["id"]) == ("sampler", "1", "42")
    (images,) = said["outputs"]
    assert (images["name"], images["datatype"], images["shape"]) == ("images", "UINT8", [2, 8, 8, 1])
    expected = np.concatenate([sampler.sample(1, seed=3), sampler.sample(1, seed=8)])
    assert np.abs(np.reshape(images["data"], (2, 8, 8, 1)) - expected.astype(int)).max() <= 1


def test_a_number_a_row_may_have_a_dimension_of_its_own_as_triton_wants_it(client):
    body = {"inputs": [entry | {"shape": [2, 1]} for entry in rows([3, 8])]}
    assert infer(client, "sampler", body).json() == infer(client, "sampler", {"inputs": rows([3, 8])}).json()


def test_binary_tensors_stand_behind_the_json_byte_for_byte(client):
    z = np.array([[0.5, -1, 2], [0, 0, 0]], "<f4")
    head = (
        b'{"id":"1","inputs":[{"name":"z","shape":[2,3],"datatype":"FP32","parameters":{"binary_data_size":24}}],'
        b'"outputs":[{"name":"x","parameters":{"binary_data":true}}]}'
    )
    headers = {HEADER: str(len(head)), "content-type": "application/octet-stream"}
    response = client.post("/v2/models/decoder/infer", content=head + z.tobytes(), headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[HEADER])
    (described,) = json.loads(response.content[:length])["outputs"]
    assert described == {
        "name": "x",
        "datatype": "FP32",
        "shape": [2, 1, 8, 8],
        "parameters": {"binary_data_size": 512},
    }
    x = np.frombuffer(response.content[length:], "<f4")
    said = infer(client, "decoder", {"inputs": [tensor("z", "FP32", z.tolist())]}).json()
    np.testing.assert_array_equal(x, np.array(said["outputs"][0]["data"], np.float32))


def test_binary_and_json_outputs_mix(client):
    body = {
        "inputs": rows([3]),
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "z", "parameters": {"binary_data": False}}, {"name": "images"}],
    }
    response = infer(client, "sampler", body)
    length = int(response.headers[HEADER])
    z, images = json.loads(response.content[:length])["outputs"]
    assert len(z["data"]) == 3
    assert images["parameters"] == {"binary_data_size": 64}
    assert len(response.content) - length == 64


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ([], 400, "the body is a JSON list; expected an object"),
        ({}, 400, "inputs is not a list"),
        ({"inputs": [1]}, 400, "inputs is not a list"),
        ({"inputs": rows([1])[:2]}, 400, "expected seed, index, temperature"),
        ({"inputs": rows([1]) + rows([1])[:1]}, 400, "expected seed, index, temperature"),
        ({"inputs": rows([1], seed={"name": None})}, 400, "inputs are"),
        ({"inputs": rows([1], seed={"datatype": "INT32"})}, 400, "seed is 'INT32'; expected INT64"),
        ({"inputs": rows([1], seed={"shape": [2]})}, 400, "seed has 1 values; expected [2]"),
        ({"inputs": rows([1], seed={"shape": [1, 2]})}, 400, "seed has shape [1, 2]; expected [n >= 1]"),
        ({"inputs": rows([1], seed={"shape": [10**30]})}, 400, "seed has shape"),
        ({"inputs": rows([1], seed={"shape": "x"})}, 400, "seed has shape"),
        ({"inputs": rows([1], seed={"shape": []})}, 400, "seed has shape"),
        ({"inputs": rows([1], seed={"data": [0.5]})}, 400, "seed does not hold int64"),
        ({"inputs": rows([True])}, 400, "seed does not hold int64 numbers alone"),
        ({"inputs": rows([1, True])}, 400, "seed does not hold int64 numbers alone"),
        ({"inputs": rows([1], seed={"data": [2**63]})}, 400, "seed holds a number outside"),
        ({"inputs": rows([1], seed={"data": None})}, 400, "seed does not hold"),
        ({"inputs": rows([1], seed={"parameters": 3})}, 400, "parameters is not an object"),
        ({"inputs": rows([1], seed={"parameters": {"binary_data_size": 4}})}, 400, "seed has 4 bytes; expected 8"),
        ({"inputs": rows([1]), "outputs": [{"name": "none"}]}, 400, "outputs: expected"),
        ({"inputs": rows([1]), "outputs": 0}, 400, "outputs: expected"),
        ({"inputs": rows([1]), "outputs": ""}, 400, "outputs: expected"),
        ({"inputs": rows([1]), "outputs": {}}, 400, "outputs: expected"),
        (
            {"inputs": rows([1]), "outputs": [{"name": "z", "parameters": {"classification": 2}}]},
            400,
            "classification is",
        ),
        ({"inputs": rows([1]), "outputs": [{"name": "z", "parameters": IN_SHARED_MEMORY}]}, 400, NOT_SERVED),
        ({"inputs": rows([1], seed={"parameters": IN_SHARED_MEMORY})}, 400, NOT_SERVED),
        ({"inputs": rows([1]), "outputs": [{"name": "z", "parameters": {"binary_data": 1}}]}, 400, "binary_data is 1"),
        ({"inputs": rows([1]), "parameters": {"binary_data_output": "no"}}, 400, "binary_data_output is 'no'"),
        ({"inputs": rows([1]), "id": 3}, 400, "id is not a string"),
        ({"inputs": rows([1]), "id": "\ud800"}, 400, "id is not a string, or holds half of a surrogate pair"),
        ({"inputs": rows([1, 2], seed={"shape": [1], "data": [1]})}, 400, "differ in their number of rows"),
        ({"inputs": rows([-1])}, 422, "seed holds -1; expected numbers from 0"),
        ({"inputs": rows([1], index={"data": [2**48]})}, 422, "index holds 281474976710656"),
        ({"inputs": rows([1], temperature={"data": [-0.5]})}, 422, "temperature holds -0.5"),
        ({"inputs": rows(list(range(65)))}, 422, "count is 65; expected 1 to 64"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(client, body, status, reason):
    headers = {"content-type": "application/json"}
    response = client.post("/v2/models/sampler/infer", content=json.dumps(body), headers=headers)
    assert response.status_code == status, response.text
    assert reason in response.json()["error"]


def test_parameters_that_nobody_knows_are_ignored_as_by_triton(client):
    hint = {"parameters": {"content_type": "np"}}
    outputs = [{"name": "z"} | hint]
    body = {"inputs": [entry | hint for entry in rows([1])], "outputs": outputs, "parameters": {"priority": 1}}
    assert (
        infer(client, "sampler", body).json()
        == infer(client, "sampler", {"inputs": rows([1]), "outputs": outputs}).json()
    )


def test_large_tensors_are_read_and_written_beside_the_event_loop(client, monkeypatch):
    reading, writing = (noting_threads(monkeypatch, kserve, name) for name in ("unpack_request", "pack_response"))
    infer(client, "sampler", {"inputs": rows([1])})
    assert reading == writing == [loop_thread(client)]
    monkeypatch.setattr(formats, "_SMALL", 200)
    infer(client, "sampler", {"inputs": rows(list(range(10)))})
    assert loop_thread(client) not in (reading[1], writing[1])


@pytest.mark.parametrize("length", ["-1", "x", "99999", "9" * 5000, "²"])
def test_a_header_length_that_is_none_is_refused(client, length):
    response = client.post("/v2/models/sampler/infer", content=b"{}", headers={HEADER: length.encode()})
    assert response.status_code == 400
    assert "expected 0 to 2" in response.json()["error"]


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (b"\x07" + bytes(7), f"the body is not JSON; expected an object, and the header {HEADER} if binary"),
        (b"", f"seed has 0 bytes behind the JSON; expected 8 ({HEADER} says where it ends)"),
    ],
)
def test_a_binary_tensor_without_the_header_that_ends_the_json_is_answered_with_its_name(client, behind, reason):
    seed = {"data": None, "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": rows([1], seed=seed)}).encode()
    response = client.post("/v2/models/sampler/infer", content=head + behind)
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


def test_bytes_that_belong_to_no_tensor_are_refused(client):
    head = json.dumps({"inputs": rows([1])}).encode()
    response = client.post("/v2/models/sampler/infer", content=head + b"more", headers={HEADER: str(len(head))})
    assert response.json() == {"error": "4 bytes behind the last tensor belong to none"}
