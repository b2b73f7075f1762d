import io

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.runtime import Sampler
from pipeline.runtime.server.graphs import open_graphs

RAW = {"accept": "application/octet-stream"}
NPY = {"accept": "application/x-npy"}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)


def loaded(response):
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return {"content": file.getvalue(), "headers": {"content-type": "application/x-npy"}}


def test_scores_are_those_of_the_sampler_with_their_place_among_the_validation_images(client, sampler):
    score, error = sampler.score(IMAGES)
    said = client.post("/score", json={"images": IMAGES.tolist()}).json()
    assert set(said) == {"score", "strangeness", "error"}
    np.testing.assert_allclose(said["score"], score, rtol=1e-5)
    np.testing.assert_allclose(said["error"], error, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(said["strangeness"], sampler.strangeness(np.array(said["score"], np.float32)))
    assert 0 < said["strangeness"][0] < 1


def test_arrays_hold_the_score_or_if_asked_the_error_map(client, sampler):
    score, error = sampler.score(IMAGES)
    sent = npy(IMAGES)
    sent["headers"] |= NPY
    np.testing.assert_allclose(loaded(client.post("/score", **sent)), score, rtol=1e-5)
    found = loaded(client.post("/score?error_map=true", **sent))
    np.testing.assert_allclose(found, error, rtol=1e-4, atol=1e-4)
    sent["headers"] |= RAW
    response = client.post("/score?error_map=true", **sent)
    assert (response.headers["x-shape"], response.headers["x-dtype"]) == ("7,8,8", "float32")
    np.testing.assert_array_equal(np.frombuffer(response.content, "<f4").reshape(7, 8, 8), found)


def test_a_picture_of_another_size_is_scored_if_it_may_be_resized(client):
    file = io.BytesIO()
    Image.fromarray(IMAGES[0, ..., 0]).resize((20, 30)).save(file, "PNG")
    sent = {"content": file.getvalue(), "headers": {"content-type": "image/png"}}
    assert client.post("/score", **sent).status_code == 422
    assert np.shape(client.post("/score?resize=true", **sent).json()["error"]) == (1, 8, 8)


def test_a_large_photo_has_the_score_that_vae_score_gives_it(client, mlp, tmp_path, monkeypatch):
    """Both let the decoder shrink it first, as the prepare stage does."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    arguments = ["score", "photo.jpg", "--resize", "--model", str(mlp.folder), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    _, row = (tmp_path / "scores.csv").read_text().splitlines()
    sent = {"content": (tmp_path / "photo.jpg").read_bytes(), "headers": {"content-type": "image/jpeg"}}
    assert client.post("/score?resize=true", **sent).json()["score"] == pytest.approx([float(row.split(",")[1])], 1e-5)


def test_a_run_of_the_scorer_holds_fewer_images_since_it_decodes_each_many_times(client, sampler):
    graphs = open_graphs(sampler)
    assert (graphs["decoder"].batch_size, graphs["scorer"].batch_size) == (16, 4)  # 4 samples of z an image
    client.post("/score", json={"images": IMAGES.tolist()})
    assert 'vae_batch_rows_count{graph="scorer"} 2.0' in client.get("/metrics").text


def test_a_model_without_a_scorer_says_so(start, mlp):
    client = start(model=Sampler(mlp.folder / "sampler.onnx", "cpu"))
    response = client.post("/score", json={"images": IMAGES.tolist()})
    assert (response.status_code, response.json()["error"]) == (
        404,
        "this model has no 'scorer'; expected one of sampler",
    )
    assert "score" not in client.get("/metadata").json()


def test_metadata_holds_the_scale_of_the_scores(client, sampler):
    assert client.get("/metadata").json()["score"] == sampler.score_scale.to_json()


def test_the_scorer_is_a_model_of_the_v2_protocol(client, sampler):
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(IMAGES.shape), "data": IMAGES.ravel().tolist()}
    said = client.post("/v2/models/scorer/infer", json={"inputs": [tensor]}).json()
    score, error = (np.reshape(output["data"], output["shape"]) for output in said["outputs"])
    np.testing.assert_allclose(score, sampler.score(IMAGES)[0], rtol=1e-5)
    assert error.shape == (7, 8, 8)
