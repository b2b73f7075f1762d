import io

import numpy as np
import pytest
from answers import IS_NPY, NPY, RAW, loaded, loop_thread, noting_threads, npy, picture, refused
from PIL import Image

from pipeline.cli import main
from pipeline.runtime import Sampler
from pipeline.runtime.server import formats
from pipeline.runtime.server.graphs import open_graphs

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)


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
    sent = {"content": npy(IMAGES), "headers": IS_NPY | NPY}
    np.testing.assert_allclose(loaded(client.post("/score", **sent)), score, rtol=1e-5)
    found = loaded(client.post("/score?error_map=true", **sent))
    np.testing.assert_allclose(found, error, rtol=1e-4, atol=1e-4)
    sent["headers"] |= RAW
    response = client.post("/score?error_map=true", **sent)
    assert (response.headers["x-shape"], response.headers["x-dtype"]) == ("7,8,8", "float32")
    np.testing.assert_array_equal(np.frombuffer(response.content, "<f4").reshape(7, 8, 8), found)


def test_few_scores_with_large_error_maps_are_written_beside_the_event_loop(client, monkeypatch):
    threads = noting_threads(monkeypatch, formats, "to_json")
    monkeypatch.setattr(formats, "_SMALL", IMAGES.nbytes)  # seven scores have 28 bytes, their maps 1,792
    assert client.post("/score", json={"images": IMAGES[:1].tolist()}).status_code == 200
    assert threads == [loop_thread(client)]
    assert client.post("/score", json={"images": IMAGES.tolist()}).status_code == 200
    assert threads[1] != loop_thread(client)


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


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("/decode?lable=3", "expected label"),
        ("/encode?rezise=true", "expected label or resize"),
        ("/score?map=true", "expected label, resize or error_map"),
    ],
)
def test_a_field_of_the_query_that_no_route_knows_is_refused(client, asked, known):
    refused(client.post(asked, json={}), 422, f"'{asked.partition('?')[2].partition('=')[0]}' is not known; {known}")
