"""Where the machines of a training wait for one another.

torch would wait inside its own library, which no signal ends, and which prints a line for every address that it tries.
So they meet here first, on the port that torch takes next: it finds all of them ready.
"""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.errors import UserError, one_line

SECONDS = 600.0
"""How long machines wait for the last of them."""

_LOOK_AGAIN = 0.2  # seconds
_TO_ANSWER = 5.0  # seconds to connect, and then to say who one is
_UNKNOWN_GUESTS = 64  # at most so many who have not said who they are
_LONGEST_WORD = 32  # bytes; so few arrive together
_WAIT, _ALL_ARE_HERE, _TAKEN, _OTHER_COUNT = b"wait\n", b"all\n", b"taken\n", b"count\n"


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
    host, _, port = endpoint.rpartition(":")
    end = time.monotonic() + seconds
    if node > 0:
        _visit(endpoint, (host, int(port)), f"{node} of {nodes}", end)
        return
    try:
        listener = _listener(int(port))
    except OSError as error:
        raise no_meeting(endpoint, one_line(error)) from None
    with listener:
        _receive(endpoint, _Reception(listener, nodes), end)


def no_meeting(endpoint: str, reason: str) -> UserError:
    """What to say of machines that do not find each other."""
    return UserError(
        f"train: no meeting at {endpoint} ({reason}); expected the MASTER_ADDR of the machine with NODE_RANK 0, a "
        "MASTER_PORT that is free there, and all machines to start within 10 minutes"
    )


@dataclass
class _Reception:
    """The first machine's side: who has come, and who has said which machine it is. No call waits."""

    listener: socket.socket
    nodes: int
    unknown: dict[socket.socket, float] = field(default_factory=dict)
    """Those that have said nothing yet, and until when they may."""
    present: dict[int, socket.socket] = field(default_factory=dict)

    def look(self) -> None:
        """See who has come, spoken or left."""
        with suppress(OSError):  # nobody has come, or no more can be let in
            while len(self.unknown) < _UNKNOWN_GUESTS:
                guest, _ = self.listener.accept()
                guest.setblocking(False)
                self.unknown[guest] = time.monotonic() + _TO_ANSWER
        for node, guest in list(self.present.items()):
            if _heard(guest) is not None:  # it has left, or does not know how to wait
                self.present.pop(node).close()
        for guest, until in list(self.unknown.items()):
            word = _heard(guest)
            if word is not None or time.monotonic() > until:
                del self.unknown[guest]
                self._seat(guest, word or b"")

    def missing(self) -> list[str]:
        """The machines that are not here."""
        return [str(node) for node in range(1, self.nodes) if node not in self.present]

    def say(self, word: bytes) -> None:
        """Tell all who are present, and let them go."""
        for guest in self.present.values():
            with guest, suppress(OSError):  # of one that is gone since: torch will miss it
                guest.sendall(word)

    def close(self) -> None:
        """Send all away."""
        for guest in (*self.unknown, *self.present.values()):
            guest.close()

    def _seat(self, guest: socket.socket, word: bytes) -> None:
        """Add to those who are present one that has said who it is, or turn it away."""
        node, _, count = word.decode("ascii", "replace").strip().partition(" of ")
        answer = b""
        if node.isdecimal() and count.isdecimal():
            if int(count) != self.nodes or not 0 < int(node) < self.nodes:
                answer = _OTHER_COUNT
                print(f"train: machine {node} has train.nodes {count}, and this one {self.nodes}", flush=True)
            else:
                answer = _TAKEN if int(node) in self.present else _WAIT
        with suppress(OSError):
            guest.sendall(answer)
            if answer == _WAIT:
                self.present[int(node)] = guest
                return
        guest.close()


def _receive(endpoint: str, reception: _Reception, end: float) -> None:
    told = False
    try:
        reception.look()
        while missing := reception.missing():
            those = f"machine{'s' if len(missing) > 1 else ''} {', '.join(missing)} of {reception.nodes}"
            if time.monotonic() > end:
                raise no_meeting(endpoint, f"{those} did not come")
            if not told:
                print(f"train: at {endpoint}, waiting for {those}", flush=True)
                told = True
            time.sleep(_LOOK_AGAIN)
            reception.look()
        reception.say(_ALL_ARE_HERE)
    finally:
        reception.close()


def _visit(endpoint: str, address: tuple[str, int], who: str, end: float) -> None:
    told = reason = ""
    while time.monotonic() < end:
        whom, reason = "the first machine", "nobody listens there"
        with (
            suppress(OSError),
            socket.create_connection(address, timeout=_TO_ANSWER) as connection,
            connection.makefile("rb") as words,
        ):
            reason = "what listens there is no first machine, or trains already"
            connection.sendall(f"{who}\n".encode())
            answer = words.readline(_LONGEST_WORD)
            if answer == _WAIT:
                whom, reason = "the others", "others did not come"
                told = _tell(endpoint, whom, told)
                connection.settimeout(max(_LOOK_AGAIN, end - time.monotonic()))
                answer = words.readline(_LONGEST_WORD)
            if answer == _ALL_ARE_HERE:
                time.sleep(2 * _LOOK_AGAIN)  # until torch listens there, or it prints that nobody does
                return
            if answer == _TAKEN:
                raise no_meeting(endpoint, f"this is {who}, and another machine is the same one")
            if answer == _OTHER_COUNT:
                raise no_meeting(endpoint, f"this is {who}, and the first has another train.nodes")
        told = _tell(endpoint, whom, told)
        time.sleep(_LOOK_AGAIN)
    raise no_meeting(endpoint, reason)


def _tell(endpoint: str, whom: str, told: str) -> str:
    """Say for whom this machine waits, where that is another than it was told; gives whom."""
    if whom != told:
        print(f"train: at {endpoint}, waiting for {whom}", flush=True)
    return whom


def _listener(port: int) -> socket.socket:
    """On all addresses of this machine, as torch will; no call of it waits."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port))
    listener.setblocking(False)
    return listener


def _heard(guest: socket.socket) -> bytes | None:
    """What it has said since; nothing where it has left, None where it has not said anything."""
    try:
        return guest.recv(_LONGEST_WORD)
    except BlockingIOError:
        return None
    except OSError:
        return b""
