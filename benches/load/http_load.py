"""HTTP/1.1 load where wrk is missing: `python -m load.http_load ORDER`.

Answers may have a length, be chunked, or end with the connection.
"""

from __future__ import annotations

import re

from .client import Conversation, Order, main

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close\r", re.IGNORECASE)
KEEP = re.compile(rb"\r\nconnection: *keep-alive\r", re.IGNORECASE)


class Http(Conversation):
    """One request after the other."""

    def __init__(self, request: bytes, size: int) -> None:
        self.request = request
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._buffer = b""
        self._in_body = False
        self._chunked = False
        self._skip = 0
        """Bytes of the body, or of a chunk, that are still to come."""
        self._seen = 0
        self._until_close = False

    def feed(self, data: bytes) -> bool:
        """Takes what has come; says whether the answer is whole."""
        if not self._in_body:
            data = self._head(self._buffer + data)
            if not self._in_body:
                return False
        whole = self._chunks(data) if self._chunked else self._counted(data)
        if whole:
            self._finish()
        return whole

    def end(self) -> bool:
        """Says whether the close ends an answer."""
        if not self._until_close:
            return False
        self.closes = True
        self._finish()
        return True

    def _head(self, data: bytes) -> bytes:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            self._buffer = data
            return b""
        if not re.match(rb"HTTP/1\.[01] 200 ", head + b" "):
            raise ValueError(f"the answer is {head[:40]!r}")
        self._in_body, self._buffer = True, b""
        head += b"\r\n"
        self.closes = bool(CLOSE.search(head)) or (head.startswith(b"HTTP/1.0") and not KEEP.search(head))
        if length := LENGTH.search(head):
            self._skip = int(length[1])
        elif CHUNKED.search(head):
            self._chunked = True
        else:
            self._until_close = True
        return rest

    def _counted(self, data: bytes) -> bool:
        self._seen += len(data)
        return not self._until_close and self._seen >= self._skip

    def _chunks(self, data: bytes) -> bool:
        """Steps over chunks; each is counted with the line end that follows it."""
        data = self._buffer + data
        at = 0
        while True:
            step = min(self._skip, len(data) - at)
            at += step
            self._skip -= step
            line_end = data.find(b"\r\n", at)
            if self._skip or line_end < 0:
                self._buffer = data[at:]
                return False
            length = int(data[at:line_end].partition(b";")[0], 16)
            if length == 0:
                # No trailers are asked for: an empty line follows.
                self._buffer = data[at:]
                return data[line_end + 2 : line_end + 4] == b"\r\n"
            self._seen += length
            self._skip = length + 2
            at = line_end + 2

    def _finish(self) -> None:
        seen = self._seen
        self._reset()
        if seen < self._size:
            raise ValueError(f"the answer has {seen} bytes, not {self._size}")


def make(order: Order) -> Http:
    """The conversation of an order."""
    return Http(order.request.encode("latin-1"), order.size)


if __name__ == "__main__":
    main(make)
