from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from pipeline.runtime import Sampler
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.settings import Settings


@pytest.fixture
def sampler(mlp):
    return Sampler(mlp.folder, "cpu", batch_size=16)


@pytest.fixture
def start(sampler):
    """A client of a server with these settings."""
    clients = []

    def starting(address="127.0.0.1", model=sampler, **settings):
        app = create_app(model, replace(Settings(max_images=64), **settings))
        client = TestClient(app, base_url="http://127.0.0.1", client=(address, 5000), raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield starting
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start):
    return start()
