"""The client of examples/triton against `vae serve`, against Triton's server here, and against TRITON_URL."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from explorer import serve_model
from missing import skip_unless_ci
from PIL import Image
from server_process import vae_serve

from pipeline.runtime import Sampler

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLIENT = ROOT / "examples" / "triton" / "client.py"
TRAINED = ROOT / "models" / "export"


@pytest.fixture(scope="module")
def triton_server(triton_environment, tmp_path_factory):
    """Starts Triton's server on a model repository, as a context manager that gives its HOST:PORT."""
    version = sysconfig.get_python_version()
    packages = triton_environment.parents[1] / "lib" / f"python{version}" / "site-packages"
    triton, library = packages / "pytriton" / "tritonserver", find_libpython(version)
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists() or library is None:
        skip_unless_ci("Triton's Python backend needs Linux on x86-64 and Python as a shared library")
    backends = tmp_path_factory.mktemp("backends")
    shutil.copytree(triton / "backends" / "python", backends / "python")
    shutil.copy(stub, backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(HERE / "onnxruntime_backend.py", backends / "onnxruntime" / "model.py")
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{packages / 'nvidia_pytriton.libs'}:{library.parent}",
        "PATH": f"{triton_environment.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
    }

    @contextmanager
    def serve(repository):
        port, log = free_port(), tmp_path_factory.mktemp("triton") / "log"
        regions = f"vae-test-{port}-"
        command = [
            triton / "bin" / "tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--backend-config=onnxruntime,shm-region-prefix-name={regions}",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ]
        with open(log, "w") as file:
            running = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            wait_until_ready(running, f"127.0.0.1:{port}", log)
            yield f"127.0.0.1:{port}"
        finally:
            stop(running, regions)

    return serve


def stop(server, regions):
    """A server that could not load a model leaves its backend's processes behind, with their shared memory."""
    server.terminate()
    server.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{regions}*"):  # noqa: S108
        region.unlink()


def find_libpython(version):
    folder, name = Path(sysconfig.get_config_var("LIBDIR")), f"libpython{version}.so.1.0"
    places = [folder / name, folder / (sysconfig.get_config_var("MULTIARCH") or "") / name]
    return next((place for place in places if place.exists()), None)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until_ready(process, server, log):
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{server}/v2/health/ready", timeout=60):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail(log.read_text())


@pytest.fixture
def ask_models(triton_environment, tmp_path):
    """Sends inputs to each model of a server; returns each one's outputs."""

    def ask(server, inputs):
        for model, rows in inputs.items():
            np.savez(tmp_path / f"{model}.npz", **rows)
        run_there(triton_environment, HERE / "ask_models.py", server, tmp_path)
        return {model: dict(np.load(tmp_path / f"{model}.outputs.npz")) for model in inputs}

    return ask


def run_there(python, *arguments):
    ended = subprocess.run([python, "-I", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert not ended.returncode, ended.stderr
    return ended.stdout


def inputs_for(sampler, n=5):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *sampler.image_shape), dtype=np.uint8)
    return {
        "sampler": {"seed": np.full(n, 7), "index": np.arange(40, 40 + n), "temperature": np.full(n, 0.5, np.float32)},
        "decoder": {"z": rng.standard_normal((n, sampler.latent_dim), np.float32)},
        "encoder": {"images": images},
        "scorer": {"images": images},
    }


def check(answers, sampler, inputs, n=5):
    """Hold the answers to what the files give in this process."""
    drawn, pixels = answers["sampler"], sampler.sample(n, seed=7, first=40, temperature=0.5)
    assert np.abs(drawn["images"].astype(int) - pixels).max() <= 1
    np.testing.assert_allclose(drawn["z"], sampler.latents(n, seed=7, first=40, temperature=0.5), atol=3e-6)
    decoded = np.rint(answers["decoder"]["x"].transpose(0, 2, 3, 1) * 255)
    assert np.abs(decoded - sampler.decode(inputs["decoder"]["z"])).max() <= 1
    mu, logvar = sampler.encode(inputs["encoder"]["images"])
    np.testing.assert_allclose(answers["encoder"]["mu"], mu, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers["encoder"]["logvar"], logvar, rtol=1e-4, atol=1e-5)
    score, error = sampler.score(inputs["scorer"]["images"])
    np.testing.assert_allclose(answers["scorer"]["score"].reshape(n), score, rtol=1e-4)
    np.testing.assert_allclose(answers["scorer"]["error"], error, rtol=1e-4, atol=1e-4)


def test_every_model_of_vae_serve_answers_as_the_files_do(exported, ask_models):
    with vae_serve(exported.folder) as address:
        check_server(address, exported, ask_models)


def test_every_model_of_triton_answers_as_the_files_do(exported, triton_server, ask_models):
    with triton_server(exported.folder / "triton") as address:
        check_server(address, exported, ask_models)


def check_server(address, exported, ask_models):
    sampler = Sampler(exported.folder, "cpu")
    inputs = inputs_for(sampler)
    check(ask_models(address, inputs), sampler, inputs)


@pytest.mark.skipif("TRITON_URL" not in os.environ, reason="TRITON_URL is not set: docs/serving.md starts the server")
def test_a_triton_server_with_its_own_backend_answers_as_the_files_do(ask_models):
    sampler = Sampler(TRAINED, "cpu")
    inputs = inputs_for(sampler)
    check(ask_models(os.environ["TRITON_URL"].removeprefix("http://"), inputs), sampler, inputs)


def test_the_client_draws_a_strip_and_scores_it(conv, triton_environment, tmp_path):
    with vae_serve(conv.folder) as address:
        said = run_there(triton_environment, CLIENT, address, tmp_path / "strip.png", "--seed", "3", "--count", "4")
    strip = np.asarray(Image.open(tmp_path / "strip.png")).astype(int)
    expected = Sampler(conv.folder, "cpu").sample(4, seed=3)
    assert np.abs(strip - np.concatenate(list(expected), axis=1)).max() <= 1
    assert re.fullmatch(r".*strip\.png: 4 images of seed 3, scores -?\d+\.\d to -?\d+\.\d nats\n", said)


@pytest.fixture(scope="module")
def guarded(conv):
    """A server that asks for a token: its address, HOST:PORT."""
    with serve_model(Sampler(conv.folder, "cpu", threads=1), token="secret") as address:  # noqa: S106
        yield address.removeprefix("http://")


@pytest.mark.parametrize(("token", "code"), [("secret", 0), ("wrong", 1), ("", 1)])
def test_the_client_sends_the_token_that_the_environment_holds(guarded, triton_environment, tmp_path, token, code):
    ended = run_client(triton_environment, guarded, tmp_path / "strip.png", "--count", "2", VAE_TOKEN=token)
    assert ended.returncode == code, ended.stderr
    assert (tmp_path / "strip.png").exists() == (code == 0)
    refusal = f"error: {guarded}: [401] expected the header Authorization: Bearer TOKEN\n"
    assert ended.stderr == (refusal if code else "")


def test_the_client_says_in_one_line_what_a_server_lacks_or_that_there_is_none(mlp, triton_environment, tmp_path):
    with serve_model(Sampler(mlp.folder / "sampler.onnx", "cpu", threads=1)) as address:
        server = address.removeprefix("http://")
        ended = run_client(triton_environment, server, tmp_path / "strip.png")
    expected = f"error: {server}: [404] this model has no 'scorer'; expected one of sampler\n"
    assert (ended.returncode, ended.stderr) == (1, expected)
    ended = run_client(triton_environment, server, tmp_path / "strip.png")
    assert (ended.returncode, ended.stderr) == (1, f"error: {server}: Connection refused\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (("--count", "-1"), "--count is -1; expected at least 1"),
        (("--count", "0"), "--count is 0; expected at least 1"),
        (("--seed", "-1"), "--seed is -1; expected 0 to 9223372036854775807"),
        (("--seed", str(2**63)), "--seed is 9223372036854775808; expected 0 to 9223372036854775807"),
    ],
)
def test_the_client_refuses_a_seed_or_a_count_that_is_none(triton_environment, tmp_path, wrong, expected):
    ended = run_client(triton_environment, "127.0.0.1:1", tmp_path / "strip.png", *wrong)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, f"client.py: error: {expected}")


def run_client(python, *arguments, **environment):
    command = [python, "-I", CLIENT, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


def test_the_code_in_the_docs_is_that_of_the_client():
    (code,) = re.findall(r"```python\n(def infer.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    assert code in CLIENT.read_text()
