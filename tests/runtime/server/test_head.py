import pytest


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metadata", "/metrics", "/v2", "/v2/health/live", "/", "/sample"]
)
def test_head_is_answered_as_get_without_the_body(client, path):
    head, got = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert got.content
    kept = {name for name in got.headers if path != "/metrics" or name != "content-length"}  # the count has moved on
    assert {name: head.headers[name] for name in kept} == {name: got.headers[name] for name in kept}


def test_head_is_counted_under_the_route(client):
    client.head("/health")
    assert 'vae_requests_total{route="/health",status="200"} 1.0' in client.get("/metrics").text


def test_head_is_refused_where_there_is_no_get(client):
    response = client.head("/decode")
    assert (response.status_code, response.content, response.headers["allow"]) == (405, b"", "POST")


def test_head_needs_the_token_too(start):
    client = start(token="a secret")  # noqa: S106
    assert client.head("/metadata").status_code == 401
    assert client.head("/health").status_code == 200
