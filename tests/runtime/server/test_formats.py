import json

import numpy as np
import pytest
from fastapi import HTTPException, Request

from pipeline.runtime.server.formats import OF_IMAGES, form_for, pixels_json, to_json


def test_a_float32_is_read_back_to_the_same_bits():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.testing.assert_array_equal(np.array(json.loads(to_json({"a": values}))["a"], np.float32), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_an_array_is_its_nested_lists_however_it_lies_in_memory(dtype):
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    for view in (array, array[:, ::2], np.asfortranarray(array), array.transpose(2, 0, 1)):
        assert json.loads(to_json([view]))[0] == view.tolist()


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 4, 5, 3), (1, 1, 1, 1), (2, 1, 3, 1)])
def test_pixels_are_nested_lists_whether_grey_or_coloured(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for view in (images, images[:, :, ::2]):
        assert json.loads(to_json({"images": pixels_json(view)})) == {"images": view.tolist()}


def test_what_is_not_finite_is_null_as_json_has_no_word_for_it():
    assert to_json({"a": np.array([np.nan, np.inf, 1])}) == b'{"a":[null,null,1.0]}'


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], "image/png"),
        ([""], "image/png"),
        (["*/*"], "image/png"),
        (["APPLICATION/JSON; charset=utf-8"], "application/json"),
        (["image/png;q=0.1, application/json;q=0.2"], "application/json"),
        (["application/*;q=0.5, */*;q=0.1"], "application/octet-stream"),
        (["*/*, image/png;q=0"], "application/octet-stream"),
        (["application/*, application/octet-stream;q=0"], "application/x-npy"),
        (["text/html", "application/json"], "application/json"),
    ],
)
def test_the_form_is_the_one_that_a_client_likes_best(accept, form):
    assert form_for(asking(accept), OF_IMAGES) == form


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/png;q=0, text/*", "image/png;q=much", "*"])
def test_a_client_that_likes_no_form_is_refused(accept):
    with pytest.raises(HTTPException, match="406: Accept is '.*'; expected one of image/png, application/octet-stream"):
        form_for(asking([accept]), OF_IMAGES)


def asking(accept):
    return Request({"type": "http", "headers": [(b"accept", line.encode()) for line in accept]})
