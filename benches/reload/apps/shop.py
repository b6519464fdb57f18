"""An application whose answers say which code they come from and which process gave them.

The project that is served has it beside two modules of one line each, `version` and `part`, which name the
same version: an answer that names two comes from two generations of the code.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from part import PART  # type: ignore[import-not-found]
from version import VERSION  # type: ignore[import-not-found]

WHO = f"{VERSION} {PART} {os.getpid()}"
FILLER = "." * 1000
DELAY = float(os.environ.get("RELOAD_DELAY", "0.005"))
"""Seconds that an answer takes, so that at any time some are under way."""
TICK = 0.05
"""Seconds between two events."""
BLOCK = 1 << 16

if Path(__file__).with_name("crashes").exists():
    # It serves for a moment, as one does that cannot reach its database.
    threading.Timer(0.3, os._exit, (1,)).start()


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """`/` and `/upload`."""
    if environ["PATH_INFO"].endswith("/upload"):
        seen = hashlib.sha256()
        while block := environ["wsgi.input"].read(BLOCK):
            seen.update(block)
        body = f"{WHO}\n{seen.hexdigest()}".encode()
    else:
        time.sleep(DELAY)
        body = f"{WHO}\n{FILLER}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


Message = dict[str, Any]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """`/`, `/upload`, `/events` and a WebSocket that says again what it hears."""
    if scope["type"] == "lifespan":
        for done in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await receive()
            await send({"type": done})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{WHO}\n{message['text']}"})
    elif scope["path"].endswith("/events"):
        await events(receive, send)
    elif scope["path"].endswith("/upload"):
        seen, more = hashlib.sha256(), True
        while more:
            message = await receive()
            seen.update(message.get("body", b""))
            more = message.get("more_body", False)
        await answer(send, f"{WHO}\n{seen.hexdigest()}")
    else:
        await asyncio.sleep(DELAY)
        await answer(send, f"{WHO}\n{FILLER}")


async def answer(send: Callable[[Message], Awaitable[None]], text: str) -> None:
    """A whole answer."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def events(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Numbered events until the client leaves."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    leaves = asyncio.ensure_future(left(receive))
    number = 0
    try:
        while not leaves.done():
            event = f"data: {WHO} {number}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
            number += 1
            await asyncio.wait([leaves], timeout=TICK)
    finally:
        leaves.cancel()


async def left(receive: Callable[[], Awaitable[Message]]) -> None:
    """Waits until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
