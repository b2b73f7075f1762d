import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.runtime import pictures
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.settings import Settings

RAW = {"accept": "application/octet-stream"}


def refused(response, status, reason):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert reason in response.json()["error"]
    assert response.headers["x-content-type-options"] == "nosniff"


class Held:
    """The sampler graph of a server, held until `go` is set."""

    def __init__(self, client):
        batcher = client.app.state.service._batchers["sampler"]
        self.go, self.started, self._run = threading.Event(), threading.Event(), batcher._run
        batcher._run = self

    def __call__(self, rows):
        self.started.set()
        assert self.go.wait(10)
        return self._run(rows)


def test_a_body_that_says_it_is_too_large_is_refused(start):
    refused(start(max_body_bytes=1000).post("/decode", content=b"x" * 1001), 413, "more than 1000 bytes")


@pytest.mark.parametrize("route", ["/sample", "/interpolate", "/encode", "/score", "/v2/models/sampler/infer"])
def test_the_limit_of_the_body_is_that_of_every_route(start, route):
    refused(start(max_body_bytes=1000).post(route, content=b"x" * 1001), 413, "more than 1000 bytes")


@pytest.mark.parametrize("form", [RAW, {"accept": "application/json"}, {"accept": "image/png"}])
def test_images_are_limited_by_their_bytes_too(start, form):
    client = start(max_pixel_bytes=6 * 64 + 63)
    assert client.get("/metadata").json()["max_images"] == 6
    assert client.get("/sample?count=6", headers=form).status_code == 200
    refused(client.get("/sample?count=7", headers=form), 422, "count is 7; expected 1 to 6")
    refused(client.post("/interpolate", json={"seeds": [1, 2], "steps": 7}), 422, "steps is 7; expected 1 to 6")


def test_a_picture_of_too_many_pixels_is_refused_where_its_images_are_not(client, monkeypatch):
    """Small images are enlarged in a picture, these to 49 times their bytes."""
    monkeypatch.setattr(pictures, "MAX_GRID_VALUES", 118 * 118)
    assert client.get("/sample?count=4").status_code == 200
    refused(client.get("/sample?count=5"), 422, "a grid of 176x118 pixels; expected fewer images (or another form")
    assert client.get("/sample?count=5", headers=RAW).status_code == 200


@pytest.mark.parametrize("route", ["/encode", "/score"])
def test_more_images_than_a_request_may_hold_are_refused(client, route):
    images = np.zeros((65, 8, 8, 1), int).tolist()
    refused(client.post(route, json={"images": images}), 422, "count is 65; expected 1 to 64")


def test_a_body_without_a_length_is_counted_as_it_comes(sampler):
    pieces = 0

    async def endless():
        nonlocal pieces
        while True:
            pieces += 1
            yield b"x" * 100

    response = asyncio.run(ask(sampler, Settings(max_body_bytes=1000), "POST", "/decode", content=endless()))
    refused(response, 413, "more than 1000 bytes")
    assert pieces == 11


def test_a_body_without_a_length_may_be_as_large_as_one_with(start):
    client = start(max_body_bytes=1000)
    assert client.post("/decode", content=(b"x" * 100 for _ in range(10))).status_code == 415


def test_bodies_of_all_requests_share_one_budget_and_small_ones_always_find_room(sampler):
    """Two bodies stand half sent, each far from its own limit; together they are nearly what all may have."""
    half, app = 2**17, create_app(sampler, Settings(max_bodies_bytes=2**18 + 2))

    async def load():
        transport, go = httpx.ASGITransport(app), asyncio.Event()
        arrived = 0

        async def held():
            nonlocal arrived
            yield b"x" * half
            arrived += 1
            await go.wait()
            yield b"x"

        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            first = asyncio.create_task(client.post("/decode", content=held()))
            second = asyncio.create_task(client.post("/decode", content=held()))
            while arrived < 2:
                await asyncio.sleep(0.001)
            third = await client.post("/decode", content=b"x" * (2**16 + 1))
            small = await client.post("/decode", content=b"x" * 2**16)
            go.set()
            both = [await first, await second]
            after = await client.post("/decode", content=b"x" * 2**18)
        return third, small, both, after

    third, small, both, after = asyncio.run(load())
    refused(third, 503, "262146 bytes of bodies are being read already")
    assert third.headers["retry-after"] == "1"
    assert small.status_code == 415
    assert [response.status_code for response in both] == [415, 415]
    assert after.status_code == 415


def test_a_body_that_does_not_come_is_given_up(sampler):
    async def slow():
        yield b"{"
        await asyncio.sleep(30)

    response = asyncio.run(ask(sampler, Settings(body_seconds=0.05), "POST", "/decode", content=slow()))
    refused(response, 408, "not here within 0.05 s")
    assert response.headers["connection"] == "close"


async def ask(sampler, settings, method, route, **sent):
    transport = httpx.ASGITransport(create_app(sampler, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.request(method, route, **sent)


def test_one_client_has_its_share_and_others_theirs(start):
    client = start(max_per_client=2)
    other = type(client)(client.app, base_url="http://127.0.0.1", client=("127.0.0.2", 1))
    held = Held(client)
    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(client.get, "/sample") for _ in range(2)]
        while client.app.state.service.in_flight < 2:
            held.started.wait(0.01)
        refused(client.get("/sample"), 429, "2 requests of this client")
        assert client.get("/sample").headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200
        assert other.get("/metadata").status_code == 200
        held.go.set()
        assert [request.result().status_code for request in busy] == [200, 200]
    assert client.get("/sample").status_code == 200


def test_a_full_queue_is_said_and_recovers(start):
    client = start(max_queue=16)
    held = Held(client)
    batcher = client.app.state.service._batchers["sampler"]
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(client.get, "/sample?count=16")]
        assert held.started.wait(10)
        busy.append(pool.submit(client.get, "/sample?count=16"))
        while batcher.queued < 16:
            pass
        response = client.get("/sample")
        refused(response, 503, "the queue is full: 16 rows wait already")
        assert response.headers["retry-after"] == "1"
        held.go.set()
        assert [request.result().status_code for request in busy] == [200, 200]
    assert client.get("/sample").status_code == 200


def test_a_result_that_comes_too_late_is_given_up(start):
    client = start(request_seconds=0.05)
    held = Held(client)
    refused(client.get("/sample"), 504, "no result within 0.05 s")
    held.go.set()


def test_a_stopping_server_takes_no_new_request(start):
    client = start()
    client.app.state.service.draining = True
    refused(client.get("/sample"), 503, "the server is stopping")
    refused(client.get("/ready"), 503, "stopping")
    refused(client.get("/v2/health/ready"), 503, "stopping")
    assert client.get("/health").status_code == 200


def test_the_token_is_asked_of_all_but_health(start):
    client = start(token="a secret")  # noqa: S106
    refused(client.get("/sample"), 401, "Authorization: Bearer TOKEN")
    assert client.get("/metrics").headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer another", "Bearer", "Basic a secret", "Bearer a secret more", "Bearer a"):
        refused(client.get("/sample", headers={"authorization": wrong}), 401, "Bearer")
    refused(client.get("/sample", headers={"authorization": b"Bearer \xff\xe9"}), 401, "Bearer")
    assert client.get("/sample", headers={"authorization": "Bearer a secret"}).status_code == 200
    assert client.get("/ready").status_code == 200


def test_health_says_whether_a_token_is_asked_for(start):
    assert start(token="a secret").get("/health").json() == {"status": "alive", "token": True}  # noqa: S106
    assert start().get("/health").json() == {"status": "alive", "token": False}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::2]:80"])
def test_another_host_name_is_refused(client, host):
    refused(client.get("/sample", headers={"host": host}), 421, "Host is")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_the_names_of_loopback_are_known(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_pages_of_other_sites_are_refused_and_get_no_cors_header(client):
    refused(client.post("/sample", json={}, headers={"origin": "https://evil.example"}), 403, "Origin is")
    refused(client.options("/sample", headers={"origin": "null"}), 403, "Origin is")
    response = client.get("/sample", headers={"origin": "http://127.0.0.1"})
    assert response.status_code == 200
    assert not any("access-control" in name for name in response.headers)
    assert response.headers["cross-origin-resource-policy"] == "same-site"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_images": 0}, "max_images is 0; expected a number > 0"),
        ({"request_seconds": float("nan")}, "request_seconds is nan"),
        ({"token": ""}, "VAE_TOKEN is empty"),
        ({"token": "tokén"}, "VAE_TOKEN is empty or holds more"),
    ],
)
def test_settings_that_no_request_could_meet_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Settings(**settings)


def test_two_hundred_requests_at_once_all_get_their_own_images(sampler):
    async def load():
        app = create_app(sampler, Settings())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=RAW) as client:
            asked = [f"/sample?count={1 + seed % 5}&seed={seed}" for seed in range(200)]
            responses = await asyncio.gather(*map(client.get, asked))
        return responses, app.state.service.metrics.text().decode()

    responses, metrics = asyncio.run(load())
    assert {response.status_code for response in responses} == {200}
    for seed, response in enumerate(responses):
        images = np.frombuffer(response.content, np.uint8).reshape(1 + seed % 5, *sampler.image_shape)
        assert np.abs(images.astype(int) - sampler.sample(1 + seed % 5, seed=seed)).max() <= 1
    runs = next(line for line in metrics.splitlines() if line.startswith('vae_batch_rows_count{graph="sampler"}'))
    assert float(runs.split()[1]) < 100  # 600 images in runs of at most 16
