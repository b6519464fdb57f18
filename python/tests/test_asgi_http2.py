"""WebSockets over HTTP/2 (RFC 8441), by way of `apps/asgi_probe.py`: frames by hand in streams of `h2`."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator

import pytest
from h2.settings import SettingCodes
from harness import Server
from http2 import Http2

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@pytest.fixture
def connection(asgi_probe: Server) -> Iterator[Http2]:
    """A connection to the probe whose settings have arrived."""
    with Http2(asgi_probe) as connection:
        assert connection.setting(SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1
        yield connection


class Socket:
    """A WebSocket in a stream."""

    def __init__(self, connection: Http2, path: str, **headers: str) -> None:
        self.connection = connection
        version = {"sec_websocket_version": "13"}
        self.stream = connection.ask("CONNECT", path, False, protocol="websocket", **version, **headers)
        self.headers = connection.headers(self.stream)

    def send(self, kind: int, payload: bytes) -> None:
        """Sends one short frame, masked with zeros."""
        assert len(payload) < 126
        self.connection.send(self.stream, bytes([0x80 | kind, 0x80 | len(payload), 0, 0, 0, 0]) + payload)

    def receive(self) -> tuple[int, bytes]:
        """The next frame: its kind and what is in it."""
        first, length = self.connection.exactly(self.stream, 2)
        if length == 126:
            (length,) = struct.unpack("!H", self.connection.exactly(self.stream, 2))
        return first & 0x0F, self.connection.exactly(self.stream, length)


def test_messages_go_both_ways_on_several_streams(connection: Http2) -> None:
    sockets = [Socket(connection, "/ws") for _ in range(3)]
    assert {socket.headers[":status"] for socket in sockets} == {"200"}
    assert "sec-websocket-accept" not in sockets[0].headers
    for number, socket in enumerate(sockets):
        socket.send(TEXT, f"turtle {number}".encode())
    for number, socket in enumerate(sockets):
        assert socket.receive() == (TEXT, f"turtle {number}".encode())
    sockets[0].send(PING, b"there?")
    assert sockets[0].receive() == (PONG, b"there?")
    sockets[0].send(CLOSE, struct.pack("!H", 1000))
    assert sockets[0].receive() == (CLOSE, struct.pack("!H", 1000))
    assert connection.whole(sockets[0].stream) == b""
    sockets[1].send(TEXT, b"still here")
    assert sockets[1].receive() == (TEXT, b"still here")


def test_the_scope_says_http_2(connection: Http2) -> None:
    socket = Socket(connection, "/ws/scope?a=b", sec_websocket_protocol="one, two")
    kind, text = socket.receive()
    scope = json.loads(text)
    values = {key: scope[key]["value"] for key in ("type", "http_version", "scheme", "path", "query_string")}
    assert kind == TEXT
    assert values == {
        "type": "websocket",
        "http_version": "2",
        "scheme": "ws",
        "path": "/ws/scope",
        "query_string": "a=b",
    }
    assert scope["subprotocols"]["value"] == ["one", "two"]
    assert "method" not in scope


def test_subprotocols_and_compression_are_agreed_on(connection: Http2) -> None:
    offered = {"sec_websocket_protocol": "one, two", "sec_websocket_extensions": "permessage-deflate"}
    headers = Socket(connection, "/ws/subprotocol", **offered).headers
    assert headers["sec-websocket-protocol"] == "two"
    assert headers["sec-websocket-extensions"].startswith("permessage-deflate")


@pytest.mark.parametrize(("path", "status"), [("/ws/reject", "403"), ("/ws/deny", "401")])
def test_a_websocket_is_refused_with_a_response(connection: Http2, path: str, status: str) -> None:
    socket = Socket(connection, path)
    assert socket.headers[":status"] == status
    assert connection.whole(socket.stream) == (b"who are you?" if status == "401" else b"")


def test_a_stream_that_is_given_up_is_a_disconnect_with_1006(asgi_probe: Server, connection: Http2) -> None:
    mark = uuid.uuid4().hex
    socket = Socket(connection, f"/ws/track?id={mark}")
    assert socket.headers[":status"] == "200"
    connection.reset(socket.stream)
    with asgi_probe.client() as client:
        for _ in range(250):
            seen = client.get("/gone", params={"id": mark}).json()
            if seen:
                break
    assert seen[-1]["code"] == 1006
    other = Socket(connection, "/ws")
    other.send(TEXT, b"on")
    assert other.receive() == (TEXT, b"on")


def test_connect_is_for_websockets_only(connection: Http2) -> None:
    stream = connection.ask("CONNECT", "/", False, protocol="connect-udp")
    assert connection.headers(stream)[":status"] == "405"
