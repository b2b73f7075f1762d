from dataclasses import replace

import pytest


def test_metadata_says_what_the_model_is(client):
    said = client.get("/metadata").json()
    assert (said["latent_dim"], said["image_shape"], said["mlflow_run"]) == (3, [8, 8, 1], "8f14e45f")
    assert set(said["graphs"]) >= {"sampler", "decoder", "encoder"}
    assert said["max_images"] == 64


def test_metadata_says_how_many_nats_each_latent_dimension_carries(start, sampler):
    said = start().get("/metadata").json()["latent_kl"]
    assert len(said) == 3
    assert said == list(sampler.metadata.latent_kl)
    sampler.metadata = replace(sampler.metadata, latent_kl=None)  # of a plain auto-encoder
    assert start().get("/metadata").json()["latent_kl"] is None


def test_metrics_count_requests_by_template_and_images(client):
    client.get("/sample?count=5")
    client.get("/sample?count=0")
    client.get("/a/path/of/the/clients/own")
    text = client.get("/metrics").text
    assert 'vae_requests_total{route="/sample",status="200"} 1.0' in text
    assert 'vae_requests_total{route="/sample",status="422"} 1.0' in text
    assert 'vae_requests_total{route="unmatched",status="404"} 1.0' in text
    assert 'vae_rows_total{graph="sampler"} 5.0' in text
    assert 'vae_batch_rows_bucket{graph="sampler",le="8.0"} 1.0' in text
    assert 'vae_queue_rows{graph="sampler"} 0.0' in text
    assert "clients/own" not in text


@pytest.mark.parametrize("route", ["/health", "/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_is_answered(client, route):
    assert client.get(route).status_code == 200
