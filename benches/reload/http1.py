"""Clients that speak HTTP/1.1, by hand: a library would ask again, or hide where a connection ended."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from random import Random

from .clients import Attempt, Client, Target
from .tally import IDLE_CLOSED, STREAM_ENDED, Reset, Tally, Truncated, Who, Wrong, same

UPLOAD = Random(10).randbytes(10_000_000)
DIGEST = hashlib.sha256(UPLOAD).hexdigest()
FILLER = "." * 1000
HEAD_LIMIT = 1 << 16


@dataclass
class Head:
    """The beginning of an answer."""

    status: int
    fields: dict[str, str]

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this answer."""
        return "close" in self.fields.get("connection", "").lower()


class Connection:
    """One connection. Whoever calls bounds the time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.opened = time.monotonic()
        self.used = self.opened
        """When the last answer came."""
        self.port: int = writer.get_extra_info("sockname")[1]
        self.pid: int | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connects."""
        began = time.monotonic()
        self = cls(*await asyncio.open_connection("127.0.0.1", port, limit=HEAD_LIMIT))
        self.opened = began
        return self

    def has_ended(self) -> bool:
        """Whether the other side is known to have closed."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def ends(self) -> bytes:
        """Waits until the other side closes; what came instead."""
        try:
            return await self._reader.read(1)
        except OSError:
            return b""

    async def send(self, path: str, body: bytes = b"", method: str = "GET") -> None:
        """Sends a request."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode())
        if body:
            self._writer.write(body)
        try:
            await self._writer.drain()
        except OSError:
            # An answer may have come before the connection ended; reading tells.
            if self._reader.at_eof():
                raise

    async def head(self) -> Head:
        """The head of the answer."""
        try:
            text = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Truncated(f"the head ends after {error.partial[-40:]!r}") from None
            raise Reset("the connection ended before the answer") from None
        except asyncio.LimitOverrunError:
            raise Wrong("a head without an end") from None
        first, *lines = text.decode("latin-1").rstrip("\r\n").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Wrong(f"no status line: {first[:80]!r}")
        pairs = (line.partition(":") for line in lines)
        return Head(int(words[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def body(self, head: Head) -> bytes:
        """The whole body of the answer."""
        try:
            if (length := head.fields.get("content-length")) is not None:
                return await self._reader.readexactly(int(length))
            if head.fields.get("transfer-encoding", "").lower() == "chunked":
                parts = []
                while part := await self._chunk():
                    parts.append(part)
                return b"".join(parts)
            return await self._reader.read()
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Truncated(f"the body ends early: {error}") from None

    async def chunk(self) -> bytes:
        """The next chunk of a body; nothing at its end."""
        try:
            return await self._chunk()
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Truncated(f"the body ends in the middle: {error}") from None

    async def _chunk(self) -> bytes:
        size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await self._reader.readexactly(size + 2)
        return data[:-2]

    def close(self) -> None:
        """Closes."""
        self._writer.close()


class Http1(Client):
    """Asks on one connection."""

    def __init__(self, target: Target, tally: Tally, pace: float) -> None:
        super().__init__(target, tally, pace)
        self.connection: Connection | None = None

    def drop(self) -> None:
        """Lets go of the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    async def connected(self) -> Connection:
        """The connection, a new one if there is none."""
        if self.connection is None:
            self.connection = await asyncio.wait_for(Connection.open(self.target.port), self.target.patience)
        found = self.connection
        self.attempt = Attempt(opened=found.opened, port=found.port, pid=found.pid)
        return found

    async def whole(self, path: str, body: bytes = b"") -> list[str]:
        """A request and its answer, as lines, the first of which has been read."""
        connection = await self.connected()
        method = "POST" if body else "GET"

        async def exchange() -> tuple[Head, bytes]:
            await connection.send(path, body, method)
            head = await connection.head()
            return head, await connection.body(head)

        head, answer = await asyncio.wait_for(exchange(), self.target.patience)
        connection.used = time.monotonic()
        if head.closes:
            self.drop()
        if head.status != 200:
            raise Wrong(f"status {head.status}", head.status)
        first, *lines = answer.decode("latin-1").split("\n")
        connection.pid = self.heard(first).pid
        return lines

    def has_rested(self) -> None:
        """Notices that the connection was closed while nothing was under way."""
        if self.connection is None or not self.connection.has_ended():
            return
        ended = self.connection
        self.attempt = Attempt(opened=ended.opened, began=ended.used, port=ended.port, pid=ended.pid)
        self.drop()
        if not self.target.versions.is_due(ended.opened):
            raise Wrong("an idle connection was closed before the deadline")
        self.tally.apart[IDLE_CLOSED] += 1


class KeepAlive(Http1):
    """One connection for all requests, as long as the server keeps it."""

    kind = "HTTP/1.1, keep-alive"

    async def ask(self) -> None:
        """One request."""
        self.has_rested()
        lines = await self.whole(self.target.path)
        if lines != [FILLER]:
            raise Wrong(f"another body: {str(lines)[:60]}")
        self.tally.good(self.attempt.began)


class NewConnection(KeepAlive):
    """A connection for each request."""

    kind = "HTTP/1.1, new connections"

    async def ask(self) -> None:
        """One request."""
        try:
            await super().ask()
        finally:
            self.drop()


class Upload(Http1):
    """Bodies of 10 MB."""

    kind = "uploads of 10 MB"

    async def ask(self) -> None:
        """One upload."""
        self.has_rested()
        lines = await self.whole(f"{self.target.path}upload", UPLOAD)
        if lines != [DIGEST]:
            raise Wrong(f"another digest: {lines}")
        self.tally.good(self.attempt.began)


class Idle(Http1):
    """Asks once, then rests until the server closes. At the end it asks again, if it still may."""

    kind = "idle connections"

    async def ask(self) -> None:
        """One connection."""
        await self.whole(self.target.path)
        self.tally.good(self.attempt.began)
        connection = self.connection
        if connection is None:
            return
        over = asyncio.ensure_future(self.over.wait())
        ends = asyncio.ensure_future(connection.ends())
        try:
            await asyncio.wait([over, ends], return_when=asyncio.FIRST_COMPLETED)
            if ends.done():
                if ends.result():
                    raise Wrong("something came that nobody had asked for")
                self.has_rested()
        finally:
            over.cancel()
            ends.cancel()
            await asyncio.wait([over, ends])

    async def leave(self) -> None:
        """Asks once more where the connection is still open."""
        if self.connection is not None and not self.connection.has_ended():
            await self.counted(self.once_more())
        self.drop()

    async def once_more(self) -> None:
        """The last request."""
        await self.whole(self.target.path)
        self.tally.good(self.attempt.began)


class Events(Http1):
    """Reads a stream of numbered events for as long as it lasts."""

    kind = "event streams"

    async def ask(self) -> None:
        """One stream."""
        connection = await self.connected()
        await asyncio.wait_for(connection.send(f"{self.target.path}events"), self.target.patience)
        head = await asyncio.wait_for(connection.head(), self.target.patience)
        if head.status != 200:
            self.drop()
            raise Wrong(f"status {head.status}", head.status)
        before: Who | None = None
        number = 0
        while not self.over.is_set():
            self.attempt.began = began = time.monotonic()
            try:
                event = await asyncio.wait_for(connection.chunk(), self.target.patience)
            except Truncated:
                self.ended()
                return
            if not event:
                self.ended()
                return
            before = self._event(event.decode(), before, number)
            number += 1
            self.tally.good(began)
        self.drop()

    def _event(self, text: str, before: Who | None, number: int) -> Who:
        line, _, count = text.removeprefix("data: ").strip().rpartition(" ")
        found = self.heard(line) if before is None else same(line, before)
        if count != str(number):
            raise Wrong(f"event {count} instead of {number}")
        return found

    def ended(self) -> None:
        """Counts the end of a stream."""
        opened = self.attempt.opened
        self.drop()
        if not self.target.versions.is_due(opened):
            raise Truncated("the stream ended before the deadline")
        self.tally.apart[STREAM_ENDED] += 1
