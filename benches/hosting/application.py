"""What the benches host: each path shows one cost."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

Headers = list[tuple[str, str]]
RawHeaders = list[tuple[bytes, bytes]]
Message = dict[str, Any]

HELLO = b"Hello, world!"
TEN_KILOBYTES = bytes(10 * 1024)
BLOCK = bytes(64 * 1024)
BLOCKS = 10
"""Of these, a stream and the file have."""
FILE = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it is there as long as the benches run
FILE.write(BLOCK * BLOCKS)
FILE.flush()
PLAIN = [("Content-Type", "text/plain")]
TWELVE = [(f"X-Answer-{number:02}", f"the value of header number {number}") for number in range(12)]


def blocks() -> Iterator[bytes]:
    """A stream, block by block."""
    for _ in range(BLOCKS):
        yield BLOCK


def wsgi(environ: dict[str, Any], start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path in ("/stream", "/file"):
        start_response("200 OK", PLAIN)
        if path == "/stream":
            return blocks()
        opened = open(FILE.name, "rb")  # noqa: SIM115 - the server closes it
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened)
        return wrapped
    headers, body = PLAIN, HELLO
    if path == "/headers":
        headers = TWELVE
    elif path == "/large":
        body = TEN_KILOBYTES
    elif path == "/upload":
        body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]


def raw(headers: Headers) -> RawHeaders:
    """Headers as ASGI has them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers]


RAW_PLAIN, RAW_TWELVE = raw(PLAIN), raw(TWELVE)


async def asgi(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    path = scope["path"]
    if path in ("/stream", "/file"):
        await send({"type": "http.response.start", "status": 200, "headers": RAW_PLAIN})
        if path == "/file":
            await send({"type": "http.response.pathsend", "path": FILE.name})
            return
        for block in blocks():
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body"})
        return
    headers, body = RAW_PLAIN, HELLO
    if path == "/headers":
        headers = RAW_TWELVE
    elif path == "/large":
        body = TEN_KILOBYTES
    elif path == "/upload":
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = str(length).encode()
    counted = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, counted]})
    await send({"type": "http.response.body", "body": body})
