"""WebSocket load: each connection sends a text message, waits for its echo, and sends it again.

`python -m load.websocket_load ORDER`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket

from .client import Conversation, Order, main

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455, section 1.3, has a server add to the key."""
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole, masked message (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | opcode, 0x80 | length])
    elif length < 1 << 16:
        head = bytes([0x80 | opcode, 0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + length.to_bytes(8, "big")
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + masked


def handshake(connection: socket.socket, port: int, path: str) -> bytes:
    """Opens the WebSocket; gives what has come already of what follows.

    Raises `ValueError` if it is refused.
    """
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n"
    )
    connection.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(4096)
        if not data:
            raise ValueError(f"the WebSocket was refused: {answer[:60]!r}")
        answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    if not head.startswith(b"HTTP/1.1 101") or accept not in head:
        raise ValueError(f"the WebSocket was refused: {head[:60]!r}")
    return rest


class Echo(Conversation):
    """One message after the other."""

    def __init__(self, order: Order) -> None:
        self._order = order
        # Masked once: a fresh mask each time would cost the client more than the server has to do.
        self.request = frame(TEXT, b"x" * order.body)
        self._buffer = b""
        self._length = 0

    def begin(self, connection: socket.socket) -> None:
        """Opens the WebSocket."""
        self._connection = connection
        self._buffer = handshake(connection, self._order.port, self._order.request)

    def feed(self, data: bytes) -> bool:
        """Takes what has come; says whether the echo is whole."""
        data = self._buffer + data if self._buffer else data
        whole = False
        while (parsed := self._frame(data)) is not None:
            whole, data = parsed[0] or whole, parsed[1]
        self._buffer = data
        return whole

    def _frame(self, data: bytes) -> tuple[bool, bytes] | None:
        """Takes one frame off; says whether it ended a message, and what follows.

        `None`: it is not all there.
        """
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            return None
        opcode, rest = data[0] & 0x0F, data[start + length :]
        if opcode == CLOSE:
            raise ValueError("the server closed the WebSocket")
        if opcode == PING:
            self._connection.sendall(frame(PONG, data[start : start + length]))
        if opcode >= CLOSE:
            return False, rest
        self._length += length
        if not data[0] & 0x80:
            return False, rest
        seen, self._length = self._length, 0
        if seen != self._order.body:
            raise ValueError(f"the echo has {seen} bytes, not {self._order.body}")
        return True, rest


if __name__ == "__main__":
    main(Echo)
