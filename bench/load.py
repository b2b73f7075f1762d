"""A load generator for one HTTP server on loopback: closed loops over connections that stay open."""

import json
import random
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

LONGEST_SECONDS = 600
_MOST_READ = 2**18

Note = Callable[[int, float, float], bool]
"""Hears the status, when the request was sent and when its answer was here; says whether to ask again."""


@dataclass
class Answers:
    """What a load found."""

    seconds: float = 0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


def get(address: str, path: str, accept: str = "*/*") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n".encode()


def post(address: str, path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def for_seconds(address: str, requests: Sequence[bytes], clients: int, seconds: float, warm_up: float) -> Answers:
    """Send requests, drawn by chance, for `warm_up` and then for `seconds`, which alone are counted."""
    found = Answers(seconds)
    begin = time.perf_counter() + warm_up

    def note(status: int, sent: float, now: float) -> bool:
        if sent >= begin and now <= begin + seconds:
            found.latencies.append(now - sent)
        found.statuses[status] += 1
        return now < begin + seconds

    _load(address, requests, clients, note)
    _refuse_failures(found)
    return found


def by_count(
    address: str, requests: Sequence[bytes], clients: int, count: int, any_status: bool = False, patience: float = 0
) -> Answers:
    """Send so many requests, drawn by chance; for `patience` seconds a server may refuse to be connected to."""
    found, start = Answers(), time.perf_counter()
    left = count - clients

    def note(status: int, sent: float, now: float) -> bool:
        nonlocal left
        found.latencies.append(now - sent)
        found.statuses[status] += 1
        left -= 1
        return left >= 0

    _load(address, requests, clients, note, patience)
    found.seconds = time.perf_counter() - start
    if not any_status:
        _refuse_failures(found)
    return found


def _refuse_failures(found: Answers) -> None:
    if set(found.statuses) != {200}:
        raise SystemExit(f"error: answered {dict(found.statuses)}; expected 200 alone")


class _Client:
    """Sends a request, waits for the whole answer, and sends the next for as long as `note` says so.

    The time of an answer runs from before its request is sent until its last byte has been read here.
    """

    def __init__(self, connection: socket.socket, draw: Callable[[], bytes], note: Note) -> None:
        self._connection, self._draw, self._note = connection, draw, note
        self.send()

    def send(self) -> None:
        self._answer, self._missing = b"", -1
        self._sent = time.perf_counter()
        self._connection.sendall(self._draw())

    def read(self) -> bool:
        """Take what is here; False once there is nothing more to ask."""
        data = self._connection.recv(_MOST_READ)
        if not data:
            raise ConnectionError("the server closed a connection")
        if self._missing < 0:
            self._answer += data
            head, end, body = self._answer.partition(b"\r\n\r\n")
            if not end:
                return True
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._missing, data = int(length), body
        self._missing -= len(data)
        if self._missing:
            return True
        more = self._note(int(self._answer[9:12]), self._sent, time.perf_counter())
        if more:
            self.send()
        return more


def _load(address: str, requests: Sequence[bytes], clients: int, note: Note, patience: float = 0) -> None:
    """One thread waits for all connections at once: it shares the cores with the server, and is to take little."""
    drawing = random.Random(0)  # noqa: S311
    give_up = time.monotonic() + LONGEST_SECONDS
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        for connection in [opened.enter_context(_connect(address, patience)) for _ in range(clients)]:
            client = _Client(connection, lambda: drawing.choice(requests), note)
            selector.register(connection, selectors.EVENT_READ, client)
        while selector.get_map():
            if time.monotonic() > give_up:
                raise SystemExit(f"error: the load took more than {LONGEST_SECONDS} s")
            for key, _ in selector.select(1):
                if not key.data.read():
                    selector.unregister(key.fileobj)


def _connect(address: str, patience: float) -> socket.socket:
    host, _, port = address.partition(":")
    give_up = time.monotonic() + patience
    while True:
        try:
            connection = socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise SystemExit(f"error: no server at {address}") from None
            time.sleep(0.2)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
