"""`mlflow models serve` on the champion, as a person starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from pipeline.champion import Figure
from pipeline.runtime import Sampler
from pipeline.tracking.models import log_sampler
from pipeline.tracking.registry import point_alias, register

LONGEST_START_SECONDS = 120
pytestmark = pytest.mark.slow


def test_the_champion_gives_over_http_the_images_of_the_sampler(store, trained, mlp, tmp_path):
    model_id = log_sampler(trained.run_id, mlp.folder / "sampler.onnx")
    figure = Figure("nll_iw", 103.5, "bc87", "bernoulli", "grey", "5000")
    point_alias(register("vae", trained.run_id, model_id, figure, []))
    with serving("models:/vae@champion", tmp_path / "log.txt") as address:
        answer = post(f"{address}/invocations", {"seed": [4, 4, 9], "index": [0, 1, 7], "temperature": [1, 1, 1]})
    images = np.array(answer["predictions"]["images"])
    sampler = Sampler(mlp.folder, "cpu")
    assert np.array_equal(images[:2], sampler.sample(2, seed=4))
    assert np.array_equal(images[2:], sampler.sample(1, seed=9, first=7))
    log = (tmp_path / "log.txt").read_text()
    assert "200 OK" in log
    assert "onnxruntime" not in log  # where there is no GPU, to ask for one prints errors


@contextmanager
def serving(model, log):
    """The address of a server of MLflow's that has loaded the model; it is ended afterwards, with its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = ["models", "serve", "--model-uri", model, "--env-manager", "local", "--host", "127.0.0.1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow starts uvicorn by its name
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *serve, "--port", str(port)],
            env={**os.environ, "PATH": path},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def wait_for(address, server, log):
    end = time.monotonic() + LONGEST_START_SECONDS
    while True:
        try:
            return httpx.get(address, timeout=5).raise_for_status()
        except httpx.HTTPError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


def post(address, inputs):
    return httpx.post(address, json={"inputs": inputs}, timeout=30).raise_for_status().json()
