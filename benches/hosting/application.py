"""What the benches host: each path shows one cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Headers = list[tuple[str, str]]
RawHeaders = list[tuple[bytes, bytes]]
Message = dict[str, Any]

HELLO = b"Hello, world!"
TEN_KILOBYTES = bytes(10 * 1024)
PLAIN = [("Content-Type", "text/plain")]
TWELVE = [(f"X-Answer-{number:02}", f"the value of header number {number}") for number in range(12)]


def wsgi(environ: dict[str, Any], start_response: Callable[[str, Headers], object]) -> list[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
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
