import pytest
from answers import refused

from pipeline.runtime.server.guards import SECURITY_HEADERS


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


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/v2/models/..%2f..%2fmanifest.json", "/v2/models/%2e%2e", "/x"])
def test_a_path_that_climbs_finds_nothing(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/health/", "/v2/", "/sample/", "/nothing"])
def test_a_path_that_is_none_is_answered_with_one_line_and_no_redirect(client, path):
    response = client.get(path, follow_redirects=False)
    refused(response, 404, f"'{path}' is no path; expected one that /openapi.json lists")


def test_another_method_is_refused(client):
    refused(client.delete("/sample"), 405, "DELETE does not work here; expected GET, HEAD, POST")


def test_a_failure_of_the_server_is_one_line_without_its_reason(client, monkeypatch):
    def fail(rows):
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(client.app.state.service._batchers["sampler"], "_run", fail)
    response = client.get("/sample")
    refused(response, 500, "the server failed")
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "secret" not in response.text
    assert 'vae_requests_total{route="/sample",status="500"} 1.0' in client.get("/metrics").text
