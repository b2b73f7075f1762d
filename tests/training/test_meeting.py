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

    def start(node, nodes, seconds=TOO_LONG, host="127.0.0.1"):
        return threads.submit(meet, f"{host}:{port}", node, nodes, seconds)

    with ThreadPoolExecutor(8) as threads:
        yield start


def connected(port):
    """A connection to the first machine, which is about to listen."""
    end = time.monotonic() + TOO_LONG
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TOO_LONG)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.01)


def seated(port, word):
    """A connection that has said which machine it is, and was told to wait."""
    guest = connected(port)
    guest.sendall(word)
    assert guest.recv(32) == b"wait\n"
    return guest


def all_meet(*waiting):
    assert [future.result(TOO_LONG) for future in waiting] == [None] * len(waiting)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_machines_meet_in_whatever_order_they_come_and_leave_the_port_free(machine, port, order):
    all_meet(*(machine(node, 3) for node in order))
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_machines_meet_at_an_address_of_ipv6_too(machine):
    all_meet(machine(0, 3), machine(1, 3, host="::1"), machine(2, 3))


def test_nobody_goes_on_before_the_last_is_there(machine):
    waiting = [machine(node, 3) for node in (0, 1)]
    with pytest.raises(TimeoutError):
        waiting[0].result(1.5)
    assert not waiting[1].done()
    all_meet(*waiting, machine(2, 3))


def test_the_first_machine_tells_who_did_not_come(machine, port):
    waiting = machine(0, 4, seconds=3)
    with (
        seated(port, b"2 of 4\n"),
        pytest.raises(UserError, match=r"^train: no meeting at 127\.0\.0\.1:\d+ \(machines 1, 3 of 4 did not come\)"),
    ):
        waiting.result(TOO_LONG)


def test_a_machine_tells_for_whom_it_waited_in_vain(machine, port, capfd):
    with pytest.raises(UserError, match="nobody listens there"):
        machine(1, 3, seconds=1).result(TOO_LONG)
    first, second = machine(0, 3), machine(1, 3, seconds=2)
    with pytest.raises(UserError, match="others did not come"):
        second.result(TOO_LONG)
    assert f"train: at 127.0.0.1:{port}, waiting for the others" in capfd.readouterr().out.splitlines()
    all_meet(first, machine(1, 3), machine(2, 3))


def test_what_listens_and_is_no_first_machine_is_told_of(machine, port):
    with socket.create_server(("127.0.0.1", port)) as other:
        waiting = machine(1, 2, seconds=1)
        connection, _ = other.accept()
        with connection, pytest.raises(UserError, match="is no first machine, or trains already"):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()
            waiting.result(TOO_LONG)


def test_one_that_has_left_again_is_waited_for(machine, port):
    first = machine(0, 3)
    seated(port, b"1 of 3\n").close()
    with seated(port, b"1 of 3\n"):  # its place is free again
        pass
    second = machine(2, 3)
    with pytest.raises(TimeoutError):
        second.result(1.5)
    all_meet(first, second, machine(1, 3))


def test_one_that_goes_on_talking_has_left(machine, port):
    first = machine(0, 3)
    with seated(port, b"1 of 3\n") as talker:
        talker.sendall(b"and more")
        assert talker.recv(1) == b""
    all_meet(first, machine(1, 3), machine(2, 3))


def test_many_that_come_and_leave_or_say_nothing_keep_nobody_waiting(machine, port):
    first = machine(0, 2)
    silent = [connected(port) for _ in range(80)]
    for connection in silent[:40]:
        connection.close()
    all_meet(first, machine(1, 2))
    for connection in silent[40:]:
        connection.close()


def test_one_that_says_nothing_is_let_go(machine, port, monkeypatch):
    monkeypatch.setattr("pipeline.training.meeting._TO_ANSWER", 0.5)
    first = machine(0, 2)
    with connected(port) as silent:
        assert silent.recv(1) == b""
    all_meet(first, machine(1, 2))


STRANGE = [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\x00", b"1\n", b"-1 of 2\n", b"1 of two\n", b"1 of 2 of 2\n"]


@pytest.mark.parametrize("said", STRANGE)
def test_who_says_something_else_is_turned_away_and_the_meeting_goes_on(machine, port, said):
    first = machine(0, 2)
    with connected(port) as stranger:
        stranger.sendall(said)
        assert stranger.recv(1) == b""
    all_meet(first, machine(1, 2))


def test_two_machines_of_one_number_are_told_of(machine, port):
    first = machine(0, 3)
    with (
        seated(port, b"1 of 3\n"),
        pytest.raises(UserError, match=r"\(this is 1 of 3, and another machine is the same"),
    ):
        machine(1, 3).result(TOO_LONG)
    all_meet(first, machine(1, 3), machine(2, 3))


@pytest.mark.parametrize("nodes", [2, 4])
def test_machines_with_another_count_are_told_of(machine, nodes, capfd):
    first = machine(0, 3)
    with pytest.raises(UserError, match=rf"\(this is 1 of {nodes}, and the first has another train.nodes\)"):
        machine(1, nodes).result(TOO_LONG)
    assert f"train: machine 1 has train.nodes {nodes}, and this one 3" in capfd.readouterr().out.splitlines()
    all_meet(first, machine(1, 3), machine(2, 3))


@pytest.mark.parametrize("said", [b"0 of 2\n", b"2 of 2\n"])
def test_a_number_that_no_other_machine_has_is_turned_away(machine, port, said):
    first = machine(0, 2)
    with connected(port) as stranger:
        stranger.sendall(said)
        assert stranger.recv(32) == b"count\n"
    all_meet(first, machine(1, 2))


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
        try:
            assert "waiting for" in waiting.stdout.readline()
            waiting.send_signal(signal.SIGTERM)
            assert waiting.communicate(timeout=TOO_LONG) == ("", "stopped: SIGTERM\n")
        finally:
            waiting.kill()
    assert waiting.returncode == 128 + signal.SIGTERM
