"""The ASGI application.

- `/`: a page that shows events as they arrive and talks to the WebSocket.
- `/api/status`: how long the application runs and what it has done since, as JSON.
- `/api/digest`: length and SHA-256 of the body that was posted, read as it arrives.
- `/api/bytes?size=N`: N bytes (64 MiB unless told, 1 GiB at most), sent in pieces.
- `/events?count=N&interval=S`: N server-sent events, S seconds apart.
- `/ws`: sends every message back, text as text and bytes as bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

PAGE = Path(__file__).with_name("page.html")
PIECE = 64 * 1024
"""Bytes that `/api/bytes` sends at a time; each piece begins with its number."""


@dataclass
class Counts:
    """What the application has done since it started."""

    events: int = 0
    messages: int = 0
    open_sockets: int = 0
    started: float = field(default_factory=time.monotonic)


class State(TypedDict):
    """The lifespan state, which every request sees as `request.state`."""

    counts: Counts


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    """Makes what all requests share."""
    yield {"counts": Counts()}


async def page(_: Request) -> FileResponse:
    """The page; all of it is in one file."""
    return FileResponse(PAGE, media_type="text/html")


async def status(request: Request) -> JSONResponse:
    """The counts as JSON."""
    counts = asdict(request.state.counts)
    running = time.monotonic() - counts.pop("started")
    return JSONResponse({**counts, "running_seconds": round(running, 3)})


async def digest(request: Request) -> JSONResponse:
    """Length and SHA-256 of the body, of which only one piece is ever held."""
    length, sha256 = 0, hashlib.sha256()
    async for piece in request.stream():
        length += len(piece)
        sha256.update(piece)
    return JSONResponse({"length": length, "sha256": sha256.hexdigest()})


async def some_bytes(request: Request) -> StreamingResponse:
    """As many bytes as asked for, announced by Content-Length."""
    size = round(_number(request, "size", usual=64 * 2**20, largest=2**30))

    async def pieces() -> AsyncIterator[bytes]:
        for offset in range(0, size, PIECE):
            piece = f"{offset // PIECE:015}\n".encode().ljust(PIECE, b".")
            yield piece[: size - offset]

    return StreamingResponse(
        pieces(),
        media_type="application/octet-stream",
        headers={"Content-Length": str(size)},
    )


async def events(request: Request) -> StreamingResponse:
    """Numbered events with the time at which each was sent."""
    count = round(_number(request, "count", usual=10, largest=1000))
    interval = _number(request, "interval", usual=0.3, largest=60)
    counts: Counts = request.state.counts

    async def stream() -> AsyncIterator[str]:
        for number in range(1, count + 1):
            if number > 1:
                await asyncio.sleep(interval)
            sent = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            counts.events += 1
            yield f"id: {number}\ndata: {json.dumps({'number': number, 'sent': sent})}\n\n"
        # Otherwise EventSource connects again and the count starts anew.
        yield "event: done\ndata: {}\n\n"

    return StreamingResponse(
        stream(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def echo(socket: WebSocket) -> None:
    """Sends every message back until the client leaves."""
    await socket.accept()
    counts: Counts = socket.state.counts
    counts.open_sockets += 1
    try:
        while (message := await socket.receive())["type"] == "websocket.receive":
            counts.messages += 1
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    finally:
        counts.open_sockets -= 1


def _number(request: Request, name: str, usual: float, largest: float) -> float:
    """A number from the query string; 400 if it is none or out of range."""
    text = request.query_params.get(name, str(usual))
    try:
        number = float(text)
    except ValueError:
        number = -1
    # Written so that NaN, which compares false with everything, is refused as well.
    if not 0 <= number <= largest:
        raise HTTPException(400, f"{name} has to be a number from 0 to {largest}")
    return number


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", page),
        Route("/api/status", status),
        Route("/api/digest", digest, methods=["POST"]),
        Route("/api/bytes", some_bytes),
        Route("/events", events),
        WebSocketRoute("/ws", echo),
    ],
)
