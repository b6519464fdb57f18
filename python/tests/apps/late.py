"""Applications that do not answer in time, one path for each way; other paths are answered at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

Environ = MutableMapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

FOR_EVER = 60.0
"""Longer than the timeout by far."""

BEYOND = 1.3
"""Somewhat longer than the timeout of a second."""

ended: list[str] = []
"""How requests ended that were given up."""


hanging: list[str] = []
"""The stubborn calls that are under way."""


def stubborn_view() -> None:
    """Does not return while a test waits."""
    hanging.append("stubborn")
    print("a view is stubborn")
    # A stopping server waits for a call: the test is over when this file is there.
    until, over = time.monotonic() + FOR_EVER, Path(os.environ["LATE_OVER"])
    while time.monotonic() < until and not over.exists():
        time.sleep(0.01)
    hanging.pop()


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/stubborn` hangs, `/slow` takes longer than a second, `/begun` takes it within its answer.

    `/hanging` says how many hang.
    """
    path = environ["PATH_INFO"]
    if path == "/stubborn":
        stubborn_view()
    if path == "/slow":
        time.sleep(BEYOND)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/begun":
        return _blocks()
    return [str(len(hanging)).encode() if path == "/hanging" else b"at once"]


def _blocks() -> Iterable[bytes]:
    yield b"begun, "
    time.sleep(BEYOND)
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
    end = time.monotonic() + 2
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
        await asyncio.sleep(BEYOND)
    await send({"type": "http.response.start", "status": 200})
    if path == "/begun":
        await asyncio.sleep(BEYOND)
    body = " ".join(ended) if path == "/ended" else "at once"
    await send({"type": "http.response.body", "body": body.encode()})
