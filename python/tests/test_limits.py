"""Many connections, large bodies in little memory."""

from __future__ import annotations

import hashlib
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness import APPS, Server
from watching import until

pytestmark = pytest.mark.once

KIBIBYTE = 2**10
MEBIBYTE = 2**20
SMALL = MEBIBYTE
LARGE = 640 * MEBIBYTE
SLACK = 8 * MEBIBYTE


def test_a_thousand_connections_at_once_are_served(asgi_probe: Server, wsgi_probe: Server) -> None:
    for server in (wsgi_probe, asgi_probe):
        request = b"GET /echo HTTP/1.1\r\nHost: many.test\r\nContent-Length: 0\r\n\r\n"
        with ExitStack() as stack, selectors.DefaultSelector() as ready:
            connections = [stack.enter_context(server.connect()) for _ in range(1000)]
            # All are open before the first asks, and none closes before the last is answered.
            for connection in connections:
                connection.sendall(request)
                ready.register(connection, selectors.EVENT_READ)
            waiting = set(connections)
            while waiting:
                events = ready.select(timeout=60)
                assert events, f"{len(waiting)} connections were not answered"
                for key, _ in events:
                    answer = key.fileobj
                    assert isinstance(answer, socket.socket)
                    assert answer.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
                    ready.unregister(answer)
                    waiting.discard(answer)


@pytest.mark.parametrize("probe", ["wsgi_probe", "asgi_probe"])
def test_a_thousand_connections_that_wait_hold_little_memory(probe: str) -> None:
    request = b"GET /echo HTTP/1.1\r\nHost: many.test\r\n\r\n"
    with (
        Server("run", f"{probe}:application", "--dir", APPS, "--listen", "127.0.0.1:0") as server,
        ExitStack() as stack,
    ):

        def hold(count: int) -> list[socket.socket]:
            connections = [stack.enter_context(server.connect()) for _ in range(count)]
            for connection in connections:
                connection.sendall(request)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
            return connections

        hold(10)
        before = server.memory()
        held = hold(1000)
        # They go to rest, and then the memory goes back to the system.
        until(lambda: (server.memory() - before) / len(held) <= 8 * KIBIBYTE)
        for connection in held:
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


BLOCK = bytes(range(256)) * 256


def _blocks(size: int) -> Iterator[bytes]:
    for _ in range(size // len(BLOCK)):
        yield BLOCK


def _digest(size: int) -> str:
    digest = hashlib.sha256()
    for block in _blocks(size):
        digest.update(block)
    return digest.hexdigest()


def _up(server: Server, size: int, http2: bool) -> None:
    with server.client(http2=http2) as client:
        # A generator has no length, so HTTP/1.1 sends it in chunks.
        answer = client.post("/digest", content=_blocks(size))
    assert answer.status_code == 200
    assert answer.json()["length"] == size
    assert answer.json()["sha256"] == _digest(size)


def _down(server: Server, size: int, http2: bool) -> None:
    received = 0
    with (
        server.client(http2=http2) as client,
        client.stream("GET", f"/bytes?size={size}&piece=65536") as answer,
    ):
        for block in answer.iter_raw():
            received += len(block)
    assert received == size


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("direction", [_up, _down], ids=["up", "down"])
@pytest.mark.parametrize("probe", ["wsgi_probe", "asgi_probe"])
def test_a_large_body_takes_no_more_memory_than_a_small_one(
    probe: str, direction: object, http2: bool
) -> None:
    assert callable(direction)
    with Server("run", f"{probe}:application", "--dir", APPS, "--listen", "127.0.0.1:0") as server:
        direction(server, SMALL, http2)
        small = server.peak()
        server.forget_peak()
        direction(server, LARGE, http2)
        large = server.peak()
    assert large - small <= SLACK, f"{(large - small) / MEBIBYTE:.1f} MiB more"
