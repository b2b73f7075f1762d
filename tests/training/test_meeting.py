import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import UserError
from pipeline.training.meeting import meet

TOO_LONG = 60.0  # seconds; a meeting that comes about takes one


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def machine(port):
    """Starts machine `node` of so many in a thread; the future is done once all have met."""
    with ThreadPoolExecutor(8) as threads:
        yield lambda node, nodes, seconds=TOO_LONG: threads.submit(meet, f"127.0.0.1:{port}", node, nodes, seconds)


def connected(port):
    """A connection to the first machine, which is about to listen."""
    end = time.monotonic() + TOO_LONG
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TOO_LONG)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_machines_meet_in_whatever_order_they_come_and_leave_the_port_free(machine, port, order):
    waiting = [machine(node, 3) for node in order]
    assert [future.result(TOO_LONG) for future in waiting] == [None] * 3
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_nobody_goes_on_before_the_last_is_there(machine):
    waiting = [machine(node, 3) for node in (0, 1)]
    with pytest.raises(TimeoutError):
        waiting[0].result(1.5)
    assert not waiting[1].done()
    waiting.append(machine(2, 3))
    assert [future.result(TOO_LONG) for future in waiting] == [None] * 3


def test_the_first_machine_tells_who_did_not_come(machine, port):
    waiting = machine(0, 4, seconds=3)
    with connected(port) as second:
        second.sendall(b"2 of 4\n")
        with pytest.raises(
            UserError, match=r"^train: no meeting at 127\.0\.0\.1:\d+ \(machines 1, 3 of 4 did not come\)"
        ):
            waiting.result(TOO_LONG)


def test_without_the_first_machine_another_tells_so(machine):
    with pytest.raises(UserError, match="the first machine is not there"):
        machine(1, 2, seconds=1).result(TOO_LONG)


def test_one_that_has_left_again_is_waited_for(machine, port):
    first = machine(0, 2)
    with connected(port) as gone:
        gone.sendall(b"1 of 2\n")
        gone.shutdown(socket.SHUT_WR)
    assert not first.done()
    assert machine(1, 2).result(TOO_LONG) is None
    assert first.result(TOO_LONG) is None


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\x00", b"1\n", b"-1 of 2\n", b"1 of two\n"])
def test_who_says_something_else_is_turned_away_and_the_meeting_goes_on(machine, port, said):
    first = machine(0, 2)
    with connected(port) as stranger:
        stranger.sendall(said)
        assert stranger.recv(1) == b""
    assert machine(1, 2).result(TOO_LONG) is None
    assert first.result(TOO_LONG) is None


def test_two_machines_of_one_number_are_told_of(machine, port):
    first = machine(0, 3)
    with connected(port) as second:
        second.sendall(b"1 of 3\n")
        with pytest.raises(UserError, match=r"\(this is 1 of 3, and another machine is the same one\)"):
            machine(1, 3).result(TOO_LONG)
    others = machine(1, 3), machine(2, 3)
    assert [future.result(TOO_LONG) for future in (first, *others)] == [None] * 3


@pytest.mark.parametrize("nodes", [2, 4])
def test_machines_with_another_count_are_told_of(machine, nodes):
    first = machine(0, 3)
    with pytest.raises(UserError, match=rf"\(this is 1 of {nodes}, and the first has another train.nodes\)"):
        machine(1, nodes).result(TOO_LONG)
    others = machine(1, 3), machine(2, 3)
    assert [future.result(TOO_LONG) for future in (first, *others)] == [None] * 3


@pytest.mark.parametrize("node", [0, 1])
def test_a_signal_ends_the_wait(node, port):
    code = """
from pipeline.errors import run_stage
from pipeline.training.launch import launch
run_stage(lambda: launch(["-c", "pass"], devices=1, nodes=2))
"""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(node)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | meeting, **pipes) as waiting:
        assert "waiting for" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.communicate(timeout=TOO_LONG) == ("", "stopped: SIGTERM\n")
    assert waiting.returncode == 128 + signal.SIGTERM
