"""A load generator for one HTTP server on loopback: closed loops over connections that stay open."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST_SECONDS = 600


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


class _Client(asyncio.Protocol):
    """Sends a request, waits for the whole answer, and sends the next for as long as `note` says so."""

    def __init__(self, draw: Callable[[], bytes], note: Callable[[int, float, float], bool]) -> None:
        self._draw, self._note = draw, note
        self._answer, self._needed = b"", -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._needed < 0 and b"\r\n\r\n" in self._answer:
            head, _, _ = self._answer.partition(b"\r\n\r\n")
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._needed = len(head) + 4 + int(length)
        if 0 <= self._needed <= len(self._answer):
            self._finish(int(self._answer[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a connection"))

    def _send(self) -> None:
        self._answer, self._needed = b"", -1
        self._sent = time.perf_counter()
        self._transport.write(self._draw())

    def _finish(self, status: int) -> None:
        if self._note(status, self._sent, time.perf_counter()):
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()


def _load(
    address: str,
    requests: Sequence[bytes],
    clients: int,
    note: Callable[[int, float, float], bool],
    patience: float = 0,
) -> None:
    host, _, port = address.partition(":")
    drawing = random.Random(0)  # noqa: S311

    def make() -> _Client:
        return _Client(lambda: drawing.choice(requests), note)

    async def running() -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        opened: list[_Client] = []
        while len(opened) < clients:
            try:
                made = await loop.create_connection(
                    lambda: _Client(lambda: drawing.choice(requests), note), host, int(port)
                )
                opened.append(made[1])
            except ConnectionRefusedError:
                if loop.time() > give_up:
                    raise SystemExit(f"error: no server at {address}") from None
                await asyncio.sleep(0.2)
        async with asyncio.timeout(LONGEST_SECONDS):
            await asyncio.gather(*(client.done for client in opened))

    asyncio.run(running())
