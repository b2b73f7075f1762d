import io
from dataclasses import replace

import numpy as np
import pytest
from conditional import write_model

from pipeline.errors import UserError

NPY = {"accept": "application/x-npy"}
NAMES = ("2", "circle", "square")  # one of them reads like another's index


@pytest.fixture
def conditional(start, mlp, tmp_path):
    return start(model=write_model(tmp_path, mlp.metadata, NAMES))


def level(response):
    """The class that an answer's images are of, by their grey value."""
    assert response.status_code == 200, response.text
    images = np.load(io.BytesIO(response.content), allow_pickle=False)
    levels = set(np.rint((images / 255 - 0.2) / 0.3).ravel().astype(int))
    assert len(levels) == 1
    return levels.pop()


@pytest.mark.parametrize(("label", "index"), [("circle", 1), ("2", 0), (2, 2), (0, 0), ("1", 1), ("square", 2)])
def test_a_class_is_asked_for_by_its_name_or_by_its_index_where_none_has_that_name(conditional, label, index):
    assert level(conditional.post("/sample", json={"count": 5, "label": label}, headers=NPY)) == index


def test_every_route_takes_the_label(conditional):
    assert level(conditional.get("/sample?count=3&label=square", headers=NPY)) == 2
    assert level(conditional.post("/decode?label=circle", json={"z": [[0, 0]] * 3}, headers=NPY)) == 1
    assert level(conditional.post("/interpolate", json={"seeds": [1, 2], "label": 1}, headers=NPY)) == 1


def test_a_walk_is_straight_where_the_prior_is_not_the_standard_normal(start, mlp, tmp_path):
    client = start(model=write_model(tmp_path, replace(mlp.metadata, prior="mixture"), NAMES))
    said = client.post(
        "/interpolate", json={"seeds": [1, 2], "label": 0}, headers={"accept": "application/json"}
    ).json()
    assert said["path"] == "linear"


def test_rows_of_different_classes_share_a_run(conditional):
    values = {"seed": [1, 2, 3], "index": [0, 0, 0], "temperature": [1, 1, 1], "label": [2, 0, 1]}
    inputs = [
        {"name": name, "datatype": "FP32" if name == "temperature" else "INT64", "shape": [3], "data": data}
        for name, data in values.items()
    ]
    said = conditional.post("/v2/models/sampler/infer", json={"inputs": inputs}).json()
    images = np.reshape(said["outputs"][0]["data"], (3, 4))
    np.testing.assert_array_equal(np.rint((images / 255 - 0.2) / 0.3), [[2] * 4, [0] * 4, [1] * 4])
    inputs[3]["data"] = [0, 3, 1]
    response = conditional.post("/v2/models/sampler/infer", json={"inputs": inputs})
    assert response.status_code == 422
    assert response.json()["error"] == "label holds 3; expected numbers from 0 to 2"


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("triangle", "label is 'triangle'; expected one of 2, circle, square, or an index from 0 to 2"),
        (3, "label is 3; expected one of"),
        (-1, "label is -1; expected one of"),
        ("9" * 5000, "label is '999"),
        ("²", "label is '²'; expected one of"),
        (True, "label is True; expected the name of a class, or its index"),
        (1.5, "label is 1.5; expected the name of a class, or its index"),
        ([1], "label is [1]; expected the name of a class, or its index"),
        (None, "label is missing; expected one of 3 classes, by name or index"),
    ],
)
def test_what_is_no_class_of_the_model_is_refused(conditional, label, reason):
    response = conditional.post("/sample", json={"label": label})
    assert response.status_code == 422
    assert reason in response.json()["error"]


def test_metadata_names_the_classes_of_a_conditional_model_alone(conditional, client):
    assert conditional.get("/metadata").json()["labels"] == list(NAMES)
    assert "labels" not in client.get("/metadata").json()


@pytest.mark.parametrize("route", ["/decode", "/encode", "/score"])
def test_a_model_without_classes_refuses_a_label(client, route):
    name, body = ("z", [[0, 0, 0]]) if route == "/decode" else ("images", np.zeros((1, 8, 8, 1), int).tolist())
    response = client.post(f"{route}?label=3", json={name: body})
    assert response.status_code == 422
    assert "label is '3'; expected none" in response.json()["error"]


@pytest.mark.parametrize("names", [None, [], "digits", [0, 1, 2], ["a", "a"]])
def test_a_conditional_file_that_does_not_name_its_classes_is_refused(mlp, tmp_path, names):
    with pytest.raises(UserError, match=r"sampler\.onnx: metadata labels is .*; expected a JSON list"):
        write_model(tmp_path, mlp.metadata, names)
