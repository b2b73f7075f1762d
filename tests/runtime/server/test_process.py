import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from pipeline.errors import UserError
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.run import listen, serve

SERVE = """
import gc, sys
from pipeline.runtime import Sampler
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.run import serve
from pipeline.runtime.server.settings import Settings
app = create_app(Sampler(sys.argv[1], "cpu"), Settings(header_seconds=0.3, drain_seconds=20))
batcher = app.state.service._batchers["decoder"]
run = batcher._run
batcher._run = lambda rows: (print("running", flush=True), sys.stdin.readline(), run(rows))[2]
serve(app, "127.0.0.1", 0, lambda address: print(address, gc.get_freeze_count(), sep="\\n", flush=True))
assert not {"torch", "mlflow", "dvc", "onnx"} & set(sys.modules)
"""


@pytest.fixture
def process(mlp):
    """A server in a process of its own; its decoder waits for a line on stdin."""
    command = [sys.executable, "-c", SERVE, str(mlp.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        running.address = running.stdout.readline().strip()
        running.frozen = int(running.stdout.readline())
        yield running
        running.kill()


def status(url, data=None):
    request = urllib.request.Request(url, data, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_stop_lets_accepted_requests_finish_and_refuses_new_ones(process):
    found = []
    slow = threading.Thread(target=lambda: found.append(status(f"{process.address}/decode", b'{"z": [[0, 0, 0]]}')))
    slow.start()
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGTERM)
    while status(f"{process.address}/ready") == 200:
        time.sleep(0.01)
    assert status(f"{process.address}/sample") == 503
    assert status(f"{process.address}/health") == 200
    process.stdin.write("go on\n")
    process.stdin.flush()
    slow.join(20)
    assert found == [200]
    assert process.wait(20) == 0


def test_a_client_that_sends_its_headers_slowly_is_cut_off(process):
    host, port = process.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        with pytest.raises(ConnectionResetError):
            if client.recv(1) == b"":
                raise ConnectionResetError
    assert status(f"{process.address}/health") == 200


def test_a_client_that_goes_away_leaves_the_server_working(process):
    host, port = process.address.removeprefix("http://").split(":")
    body = b'{"z": [[0, 0, 0]]}'
    head = f"POST /decode HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(head.encode() + body)
        assert process.stdout.readline() == "running\n"
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert status(f"{process.address}/sample?count=3") == 200


def test_an_answer_waits_for_no_acknowledgement():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_collections_of_garbage_leave_the_code_of_the_server_alone(process):
    assert process.frozen > 10_000


def test_an_address_in_use_is_one_line(sampler):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: cannot be listened on"):
            serve(create_app(sampler), "127.0.0.1", port, print)


def vae(*arguments, **environment):
    command = [sys.executable, "-m", "pipeline.cli", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def test_beyond_loopback_a_token_is_needed(mlp):
    line = "error: host is 0.0.0.0, which others can reach; expected VAE_TOKEN to be set to a secret\n"
    assert vae("--model", str(mlp.folder), "--host", "0.0.0.0") == (1, "", line)  # noqa: S104


def test_a_missing_extra_is_answered_with_the_command_that_installs_it(mlp, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('none', name='fastapi')")
    line = (
        "error: vae serve needs fastapi, which is not installed; install it with: pip install 'vae-pipeline[serve]'\n"
    )
    assert vae("--model", str(mlp.folder), PYTHONPATH=str(tmp_path)) == (1, "", line)
