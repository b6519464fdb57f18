"""Applications that do not answer in time, one path for each way; other paths are answered at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Environ = MutableMapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

FOR_EVER = 6.0
"""Longer than the timeout by far, and no longer than a stopping server waits for a call."""

ended: list[str] = []
"""How requests ended that were given up."""


def stubborn_view() -> None:
    """Does not return while a test waits."""
    time.sleep(FOR_EVER)


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/stubborn` hangs, `/slow` takes two seconds, `/begun` takes them within its answer."""
    path = environ["PATH_INFO"]
    if path == "/stubborn":
        stubborn_view()
    if path == "/slow":
        time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/begun":
        return _blocks()
    return [b"at once"]


def _blocks() -> Iterable[bytes]:
    yield b"begun, "
    time.sleep(2)
    yield b"ended"


async def patient_view() -> None:
    """Waits for what never comes."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ended.append("CancelledError")
        raise


def computing_view() -> None:
    """Keeps the event loop from turning."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        pass


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """`/patient` waits for ever, `/computing` holds the loop up, `/slow` and `/begun` as above."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    path = scope["path"]
    if path == "/patient":
        await patient_view()
    if path == "/computing":
        computing_view()
    if path == "/slow":
        await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200})
    if path == "/begun":
        await asyncio.sleep(2)
    body = " ".join(ended) if path == "/ended" else "at once"
    await send({"type": "http.response.body", "body": body.encode()})
