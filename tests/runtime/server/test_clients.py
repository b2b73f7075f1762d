"""Clients that are slow, endless, too many, or gone before they are answered, over real connections."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress

import pytest
from server_process import server_process

IN_CHUNKS = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
DECODE = b'{"z": [[0, 0, 0], [0, 0, 0]]}'


@pytest.fixture
def server(mlp, request):
    with server_process(mlp.folder, **getattr(request, "param", {})) as running:
        yield running


def with_settings(**settings):
    return pytest.mark.parametrize("server", [settings], indirect=True, ids=[next(iter(settings))])


def connect(server, receive_buffer=None):
    host, port = server.address.split(":")
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(20)
    client.connect((host, int(port)))
    return client


def ask(path, body=None, length=None):
    """The bytes of a request; `length` is what its head says of its body."""
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n"
    return f"{head}\r\n".encode() + (body or b"")


def read_answer(client):
    """(status, body) of one answer."""
    with client.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = dict(line.decode().lower().strip().split(": ", 1) for line in iter(file.readline, b"\r\n"))
        return status, file.read(int(headers["content-length"]))


def answer_of(server, path):
    with connect(server) as client:
        client.sendall(ask(path))
        return read_answer(client)


def metric(server, name):
    text = answer_of(server, "/metrics")[1].decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def read_rest(client):
    """All that still comes, until the connection ends or is reset."""
    parts = []
    with suppress(ConnectionResetError):
        while parts[-1:] != [b""]:
            parts.append(client.recv(2**16))
    return b"".join(parts)


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end


@with_settings(header_seconds=0.3)
def test_a_client_that_sends_its_headers_slowly_is_cut_off(server):
    with connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert read_rest(client) == b""
    with connect(server) as client:  # the same goes for the second request of a connection
        client.sendall(ask("/health") + b"GET /health HTTP/1.1\r\n")
        assert read_answer(client)[0] == 200
        assert read_rest(client) == b""
    assert answer_of(server, "/health")[0] == 200


@with_settings(header_seconds=0.1)
def test_what_follows_the_headers_has_a_time_of_its_own(server):
    with connect(server) as client:
        client.sendall(ask("/decode", DECODE))
        server.wait_for_run()
        time.sleep(0.3)
        server.go_on()
        assert read_answer(client)[0] == 200


@with_settings(body_seconds=0.3)
def test_a_client_that_sends_its_body_slowly_is_refused(server):
    with connect(server) as client:
        client.sendall(ask("/decode", b"{", length=100))
        assert read_answer(client) == (408, b'{"error":"the body was not here within 0.3 s"}')
        assert client.recv(1) == b""


@with_settings(send_seconds=0.3, max_images=50_000, max_connections=1)
def test_a_client_that_reads_its_answer_slowly_is_cut_off(server):
    with connect(server, receive_buffer=4096) as client:
        client.sendall(ask("/sample?count=50000").replace(b"\r\n\r\n", b"\r\nAccept: application/json\r\n\r\n"))
        head = client.recv(1000)  # the answer has begun, and fills the buffers between the two
        until(lambda: answer_of(server, "/health")[0] == 200)  # the one connection is free again
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        assert len(read_rest(client)) < length


@with_settings(max_head_bytes=10_000)
@pytest.mark.parametrize("part", [b"GET /" + b"x" * 20_000, b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 3000])
def test_headers_without_an_end_are_refused(server, part):
    with connect(server) as client:
        client.sendall(part)
        assert read_answer(client) == (431, b'{"error": "the request\'s head has more than 10000 bytes"}')


def ask_in_chunks(chunks, host="127.0.0.1"):
    """The bytes of a request whose body has no length; what `chunks` lacks at its end may still come."""
    return f"POST /decode HTTP/1.1\r\nHost: {host}\r\n{IN_CHUNKS}\r\n".encode() + chunks


@with_settings(max_head_bytes=10_000)
@pytest.mark.parametrize("part", [b"X-A: b\r\n" * 3000, b"X-A: " + b"b" * 20_000])
def test_trailers_without_an_end_are_refused(server, part):
    with connect(server) as client:
        client.sendall(ask_in_chunks(b"1\r\n{\r\n"))
        time.sleep(0.2)  # a read that holds a part of the body says nothing of the trailers
        client.sendall(b"0\r\n" + part)
        assert read_answer(client) == (431, b'{"error": "the request\'s trailers have more than 10000 bytes"}')
        assert read_rest(client) == b""


def test_a_trailer_is_no_header_of_the_request(server):
    with connect(server) as client:
        client.sendall(ask_in_chunks(b"2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\n\r\n"))
        assert read_answer(client) == (422, b'{"error":"the body names []; expected z alone"}')


@with_settings(max_head_bytes=1000)
def test_chunks_are_not_counted_as_a_head(server):
    with connect(server) as client:
        client.sendall(ask_in_chunks(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"))
        assert read_answer(client)[0] == 422
        client.sendall(ask("/health"))
        assert read_answer(client)[0] == 200


ANOTHER_HOST = (421, b'{"error":"Host is \'evil.example\'; expected one of 127.0.0.1, localhost, [::1]"}')


@pytest.mark.parametrize(("begun", "rest"), [(b"", b"1\r\nx\r\n"), (b"0\r\n", b"X-A: b\r\n")])
def test_a_refused_request_whose_body_does_not_end_is_answered_and_cut_off(server, begun, rest):
    with connect(server) as client:
        client.sendall(ask_in_chunks(begun, host="evil.example"))
        assert read_answer(client) == ANOTHER_HOST
        with suppress(BrokenPipeError, ConnectionResetError):
            until(lambda: time.sleep(0.05) or client.sendall(rest))  # never true: it ends with the connection


def test_the_answer_to_a_refused_request_outlives_the_body_that_follows_it(server):
    with connect(server) as client:
        client.sendall(ask("/decode", b"", length=3_000_000).replace(b"127.0.0.1", b"evil.example"))
        time.sleep(0.2)
        client.sendall(b"x" * 3_000_000)
        assert read_answer(client) == ANOTHER_HOST
        assert read_rest(client) == b""


def test_a_refused_request_without_a_body_keeps_its_connection(server):
    with connect(server) as client:
        for _ in range(2):
            client.sendall(ask("/sample").replace(b"127.0.0.1", b"evil.example"))
            assert read_answer(client) == ANOTHER_HOST


@with_settings(header_seconds=0.3)
def test_empty_lines_after_an_answer_are_the_beginning_of_a_head(server):
    with connect(server) as client:
        client.sendall(ask("/health"))
        assert read_answer(client)[0] == 200
        client.sendall(b"\r\n")
        assert read_rest(client) == b""


@with_settings(max_head_bytes=1000)
def test_the_length_of_a_body_is_not_that_of_the_head(server):
    with connect(server) as client:
        for _ in range(3):
            client.sendall(ask("/decode", b"x" * 5000))
            assert read_answer(client)[0] == 422


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_refused_in_one_line(server, nonsense):
    with connect(server) as client:
        client.sendall(nonsense)
        assert read_answer(client) == (400, b'{"error": "the request is not HTTP/1.1"}')


@with_settings(max_connections=3)
def test_a_connection_too_many_is_told_so_and_the_others_go_on(server):
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(server)) for _ in range(3)]
        for client in clients:
            client.sendall(ask("/health"))
            assert read_answer(client)[0] == 200
        with connect(server) as fourth:
            fourth.sendall(ask("/health"))
            status, body = read_answer(fourth)
            assert (status, json.loads(body)) == (503, {"error": "3 connections are open already"})
            assert fourth.recv(1) == b""
        clients[0].sendall(ask("/health"))
        assert read_answer(clients[0])[0] == 200
        clients.pop().close()
        until(lambda: answer_of(server, "/health")[0] == 200)


def test_what_a_client_that_left_had_asked_for_is_not_computed(server):
    with connect(server) as first, connect(server) as last:
        first.sendall(ask("/decode", DECODE))
        server.wait_for_run()
        with connect(server) as leaving:
            leaving.sendall(ask("/decode", DECODE))
            last.sendall(ask("/decode", DECODE))
            until(lambda: metric(server, 'vae_queue_rows{graph="decoder"}') == 4)
        until(lambda: metric(server, 'vae_requests_total{route="/decode",status="499"}') == 1)
        server.go_on()
        server.wait_for_run()
        server.go_on()
        assert [read_answer(client)[0] for client in (first, last)] == [200, 200]
    assert metric(server, 'vae_rows_total{graph="decoder"}') == 4


def test_a_client_that_leaves_while_its_request_is_computed_leaves_the_server_working(server):
    with connect(server) as client:
        client.sendall(ask("/decode", DECODE))
        server.wait_for_run()
    server.go_on()
    assert answer_of(server, "/sample?count=3")[0] == 200
