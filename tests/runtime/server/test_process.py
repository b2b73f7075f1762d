import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

import pytest
from server_process import server_process

from pipeline.errors import UserError
from pipeline.runtime.server.app import create_app
from pipeline.runtime.server.run import listen, serve


@pytest.fixture
def server(mlp):
    with server_process(mlp.folder, drain_seconds=20) as running:
        yield running


def status(server, path, data=None):
    request = urllib.request.Request(f"http://{server.address}{path}", data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@contextmanager
def in_flight(server):
    """A request whose run has begun; gives a list that holds its status once it is answered."""
    found = []

    def ask():
        with suppress(OSError, http.client.HTTPException):
            found.append(status(server, "/decode", b'{"z": [[0, 0, 0]]}'))

    slow = threading.Thread(target=ask)
    slow.start()
    server.wait_for_run()
    yield found
    slow.join(20)
    assert not slow.is_alive()


def stop(server):
    """Send SIGTERM, and wait until the server says that it is stopping."""
    server.process.send_signal(signal.SIGTERM)
    while status(server, "/ready") == 200:
        time.sleep(0.01)


def test_a_stop_lets_accepted_requests_finish_and_refuses_new_ones(server):
    with in_flight(server) as found:
        stop(server)
        assert status(server, "/sample") == 503
        assert status(server, "/health") == 200
        server.go_on()
    assert found == [200]
    assert server.process.wait(20) == 0


def test_a_second_stop_waits_for_nobody(server, capfd):
    with in_flight(server) as found:
        stop(server)
        server.process.send_signal(signal.SIGTERM)
    assert found == [503]
    server.go_on()  # the process still ends the run that it has begun
    assert server.process.wait(20) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_waits_for_no_acknowledgement():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_collections_of_garbage_leave_the_code_of_the_server_alone(server):
    assert server.frozen > 10_000


def test_an_address_in_use_is_one_line(sampler):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^127.0.0.1:{port}: cannot be listened on \(Address already in use\); "):
            serve(create_app(sampler), "127.0.0.1", port, print)


@pytest.mark.parametrize("port", [-1, 2**16])
def test_a_port_that_is_none_is_one_line(port):
    with pytest.raises(UserError, match=f"^port is {port}; expected a whole number from 0 to 65535$"):
        listen("127.0.0.1", port)


def vae(*arguments, **environment):
    command = [sys.executable, "-m", "pipeline.cli", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def test_beyond_loopback_a_token_is_needed(mlp):
    line = "error: host is 0.0.0.0, which others can reach; expected VAE_TOKEN to be set to a secret\n"
    assert vae("--model", str(mlp.folder), "--host", "0.0.0.0") == (1, "", line)  # noqa: S104


def test_a_missing_extra_is_answered_with_the_command_that_installs_it(mlp, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('none', name='fastapi')")
    line = "error: vae serve needs fastapi, which is not installed; install it with: pip install '.[serve]'\n"
    assert vae("--model", str(mlp.folder), PYTHONPATH=str(tmp_path)) == (1, "", line)
