"""The applications that are measured, without a framework: `wsgi` and `asgi` answer the same paths alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

HELLO = b"Hello, world!"
TEN_KILOBYTES = b"x" * (10 * 1024)
BLOCK = b"x" * (64 * 1024)
BLOCKS = 160
"""Of these, a stream has: 10 MB."""
ROW = b"x" * 99 + b"\n"
ROWS = 1000
PAUSE = 0.010
"""Seconds that `/sleep` takes."""

Headers = list[tuple[str, str]]
RawHeaders = list[tuple[bytes, bytes]]
Message = Mapping[str, Any]


class Reader(Protocol):
    """The part of `wsgi.input` that is used."""

    def read(self, size: int) -> bytes:
        """Gives at most so many bytes."""


def headers_of(body: bytes) -> Headers:
    """The headers of a plain answer."""
    return [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]


def raw(headers: Headers) -> RawHeaders:
    """Headers as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers]


# Made once, so that the application costs next to nothing.
FIXED = {"/": HELLO, "/large": TEN_KILOBYTES}
FIXED_HEADERS = {path: headers_of(body) for path, body in FIXED.items()}
FIXED_RAW = {path: raw(headers) for path, headers in FIXED_HEADERS.items()}


def blocks(block: bytes, count: int) -> Iterator[bytes]:
    """A stream, block by block."""
    for _ in range(count):
        yield block


STREAMS = {"/stream": (BLOCK, BLOCKS), "/rows": (ROW, ROWS)}
"""What is sent so often, one by one."""


def wsgi(environ: dict[str, Any], start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    body = FIXED.get(path)
    if body is not None:
        start_response("200 OK", list(FIXED_HEADERS[path]))
        return [body]
    if path == "/echo":
        reader: Reader = environ["wsgi.input"]
        body = reader.read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", headers_of(body))
        return [body]
    if path == "/sleep":
        time.sleep(PAUSE)
        start_response("200 OK", list(FIXED_HEADERS["/"]))
        return [HELLO]
    if path in STREAMS:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return blocks(*STREAMS[path])
    start_response("404 Not Found", headers_of(b""))
    return [b""]


async def asgi(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The ASGI application; a WebSocket is an echo."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
            else:
                await send({"type": "websocket.send", "text": text})
        return
    path = scope["path"]
    status, body, headers = 200, FIXED.get(path), FIXED_RAW.get(path)
    if path == "/echo":
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        headers = raw(headers_of(body))
    elif path == "/sleep":
        await asyncio.sleep(PAUSE)
        body, headers = HELLO, FIXED_RAW["/"]
    elif path in STREAMS:
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        await send(start)
        for block in blocks(*STREAMS[path]):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    elif body is None:
        status, body, headers = 404, b"", raw(headers_of(b""))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
