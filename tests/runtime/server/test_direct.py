"""The short way to GET /sample, held to the way of FastAPI that describes it."""

import pytest

from pipeline.runtime.server.direct import QueryRoute


def without_direct_routes(client):
    client.app.router.routes[:] = [route for route in client.app.router.routes if not isinstance(route, QueryRoute)]
    return client


@pytest.mark.parametrize(
    "query",
    [
        "",
        "count=3&seed=7&first=40&temperature=0.5",
        "count=1&count=2",
        "count=%32",
        "seed=9223372036854775807",
        "count=",
        "count",
        "count=0",
        "count=65",
        "count=many",
        "count=1.5",
        "seed=-1",
        "first=281474976710655&count=2",
        "temperature=nan",
        "temperature=1e999",
        "label=3",
        "sed=3",
        "count=2&counts=1",
        "count=%FF",
    ],
)
def test_a_query_is_answered_as_fastapi_would(start, query):
    direct, usual = start(), without_direct_routes(start())
    found, expected = (client.get(f"/sample?{query}", headers={"accept": "*/*"}) for client in (direct, usual))
    assert (found.status_code, found.content) == (expected.status_code, expected.content)
    assert found.headers == expected.headers


def test_get_sample_takes_the_short_way(start, monkeypatch):
    async def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("fastapi.routing.solve_dependencies", fail)
    assert start().get("/sample").status_code == 200
    assert without_direct_routes(start()).get("/sample").status_code == 500
