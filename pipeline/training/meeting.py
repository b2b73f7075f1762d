"""Where the machines of a training wait for one another.

torch would wait inside its own library, which no signal ends, and which prints a line for every address that it tries.
So they meet here first, on the port that torch takes next: it finds all of them ready.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

from pipeline.errors import UserError, one_line

SECONDS = 600.0
"""How long machines wait for the last of them."""

_LOOK_AGAIN = 0.5  # seconds
_TO_ANSWER = 5.0  # seconds that one that has connected has to say who it is, or to leave
_LONGEST_WORD = 32  # bytes; so few arrive together
_ALL_ARE_HERE, _TAKEN, _OTHERS = b"all\n", b"taken\n", b"others\n"


def meet(endpoint: str, node: int, nodes: int, seconds: float = SECONDS) -> None:
    """Return once all `nodes` machines are here; the first listens, the others come to it.

    Args:
        endpoint: the first machine's, HOST:PORT as the others know it; the port is free before and after.
        node: 0, 1, ...: which one this is.
        nodes: how many there are.
        seconds: how long to wait.

    Raises:
        UserError: some did not come, the port is in use, or the machines do not agree on who and how many they are.
    """
    end = time.monotonic() + seconds
    if node == 0:
        _receive(endpoint, nodes, end)
    else:
        _visit(endpoint, f"{node} of {nodes}", end)


def no_meeting(endpoint: str, reason: str) -> UserError:
    """What to say of machines that do not find each other."""
    return UserError(
        f"train: no meeting at {endpoint} ({reason}); expected the MASTER_ADDR of the machine with NODE_RANK 0, a "
        "MASTER_PORT that is free there, and all machines to start within 10 minutes"
    )


def _receive(endpoint: str, nodes: int, end: float) -> None:
    present: dict[int, socket.socket] = {}
    told = False
    with ExitStack() as opened:
        try:
            listener = opened.enter_context(_listener(_address(endpoint)[1]))
        except OSError as error:
            raise no_meeting(endpoint, one_line(error)) from None
        listener.settimeout(_LOOK_AGAIN)
        for visitor in _visitors(listener, end):
            if visitor is not None:
                opened.enter_context(closing(visitor))
                _seat(visitor, present, nodes)
            present = {node: guest for node, guest in present.items() if not _has_left(guest)}
            missing = [str(node) for node in range(1, nodes) if node not in present]
            if not missing:
                break
            if not told:
                print(f"train: at {endpoint}, waiting for {_machines(missing)} of {nodes}", flush=True)
                told = True
        else:
            raise no_meeting(endpoint, f"{_machines(missing)} of {nodes} did not come")
        for guest in present.values():
            with suppress(OSError):  # of one that is gone since: torch will miss it
                guest.sendall(_ALL_ARE_HERE)
        for guest in present.values():  # they leave first, so that the port is free at once
            with suppress(OSError):
                guest.recv(1)


def _visit(endpoint: str, who: str, end: float) -> None:
    told = False
    while time.monotonic() < end:
        answer = _ask(_address(endpoint), who, end)
        if answer == _ALL_ARE_HERE:
            time.sleep(_LOOK_AGAIN)  # until torch listens there, or it prints that nobody does
            return
        if answer in (_TAKEN, _OTHERS):
            reason = "another machine is the same one" if answer == _TAKEN else "the first has another train.nodes"
            raise no_meeting(endpoint, f"this is {who}, and {reason}")
        if not told:
            print(f"train: waiting for the first machine at {endpoint}", flush=True)
            told = True
        time.sleep(_LOOK_AGAIN)
    raise no_meeting(endpoint, "the first machine is not there, or others are not")


def _ask(address: tuple[str, int], who: str, end: float) -> bytes:
    """What the first machine says once it has something to say; nothing where it is not there."""
    try:
        with socket.create_connection(address, timeout=_TO_ANSWER) as connection:
            connection.sendall(f"{who}\n".encode())
            connection.settimeout(max(_LOOK_AGAIN, end - time.monotonic()))
            return connection.recv(_LONGEST_WORD)
    except OSError:
        return b""


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def _listener(port: int) -> socket.socket:
    """On all addresses of this machine, as torch will."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _visitors(listener: socket.socket, end: float) -> Iterator[socket.socket | None]:
    """Each that connects; None now and then where nobody does."""
    yield None
    while time.monotonic() < end:
        try:
            visitor, _ = listener.accept()
        except TimeoutError:
            yield None
        else:
            visitor.settimeout(_TO_ANSWER)
            yield visitor


def _seat(visitor: socket.socket, present: dict[int, socket.socket], nodes: int) -> None:
    """Add to those who are present one that says who it is, or turn it away."""
    with suppress(OSError):
        node, _, count = visitor.recv(_LONGEST_WORD).decode("ascii", "replace").strip().partition(" of ")
        if node.isdecimal() and count.isdecimal():
            if int(count) != nodes or not 0 < int(node) < nodes:
                visitor.sendall(_OTHERS)
            elif int(node) in present and not _has_left(present[int(node)]):
                visitor.sendall(_TAKEN)
            else:
                present[int(node)] = visitor
                return
    visitor.close()


def _has_left(guest: socket.socket) -> bool:
    guest.setblocking(False)
    try:
        return guest.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        guest.settimeout(_TO_ANSWER)


def _machines(numbers: list[str]) -> str:
    return f"machine{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
