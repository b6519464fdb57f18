"""Many connections, large bodies in little memory."""

from __future__ import annotations

import hashlib
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import APPS, Server

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
                events = ready.select(timeout=30)
                assert events, f"{len(waiting)} connections were not answered"
                for key, _ in events:
                    answer = key.fileobj
                    assert isinstance(answer, socket.socket)
                    assert answer.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
                    ready.unregister(answer)
                    waiting.discard(answer)


def _peak(server: Server) -> int:
    """The most memory that the process has had in RAM, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def _reset(server: Server) -> None:
    """Makes the kernel forget the peak so far."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


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
        small = _peak(server)
        _reset(server)
        direction(server, LARGE, http2)
        large = _peak(server)
    assert large - small <= SLACK, f"{(large - small) / MEBIBYTE:.1f} MiB more"
