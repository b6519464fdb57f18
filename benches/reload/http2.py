"""A client that speaks HTTP/2 with prior knowledge, several streams at once.

By frames, since what matters here is what libraries keep to themselves: which streams a GOAWAY leaves to be
asked elsewhere, and that those before it are still answered.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from .clients import Attempt, Client, Target
from .http1 import FILLER
from .tally import RETRIED, Reset, Tally, Truncated, Wrong

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9
REFUSED_STREAM = 7
"""RFC 9113, section 7: nothing has been done yet."""
NO_ERROR = 0


class NotProcessed(Exception):
    """The server says that it has done nothing for this stream: it may be asked again."""


@dataclass
class Stream:
    """What has come of an answer."""

    done: asyncio.Future[None]
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)


class Http2:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._next = 1
        self._streams: dict[int, Stream] = {}
        self.opened = opened
        self.port: int = writer.get_extra_info("sockname")[1]
        self.pid: int | None = None
        self.goes = False
        """Whether it takes no further streams."""
        writer.write(PREFACE)
        self._send(SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 0}))
        self._task = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, port: int) -> Http2:
        """Connects."""
        began = time.monotonic()
        return cls(*await asyncio.open_connection("127.0.0.1", port), began)

    async def get(self, path: str) -> Stream:
        """Asks, and waits for the whole answer."""
        stream = Stream(asyncio.get_running_loop().create_future())
        number, self._next = self._next, self._next + 2
        self._streams[number] = stream
        pairs = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
        self._send(HeadersFrame(number, self._encoder.encode(pairs), flags=["END_HEADERS", "END_STREAM"]))
        try:
            await stream.done
        finally:
            self._streams.pop(number, None)
        return stream

    def close(self) -> None:
        """Closes, whatever is under way."""
        self._task.cancel()
        self._writer.close()

    def _send(self, *frames: Frame) -> None:
        self._writer.write(b"".join(frame.serialize() for frame in frames))

    async def _read(self) -> None:
        """Reads frames until the connection ends, which is the end of all streams."""
        why: Exception = Reset("the connection ended before the answer")
        try:
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(HEAD)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self._take(frame)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except (HyperframeError, HPACKError, ValueError) as error:
            why = Wrong(f"no HTTP/2: {error!r}")
        finally:
            self.goes = True
            for stream in list(self._streams.values()):
                begun = stream.status is not None and isinstance(why, Reset)
                self._fail(stream, Truncated("the connection ended within the answer") if begun else why)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self._send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, GoAwayFrame):
            self.goes = True
            for number, stream in list(self._streams.items()):
                if frame.error_code != NO_ERROR:
                    self._fail(stream, Wrong(f"GOAWAY with error {frame.error_code}"))
                elif number > frame.last_stream_id:
                    self._fail(stream, NotProcessed())
        elif known := self._streams.get(frame.stream_id):
            self._take_of(known, frame)
        elif isinstance(frame, HeadersFrame):
            # The table of names has to go on, whoever listens.
            self._decoder.decode(frame.data)

    def _take_of(self, stream: Stream, frame: Frame) -> None:
        if isinstance(frame, RstStreamFrame):
            refused = frame.error_code == REFUSED_STREAM
            self._fail(stream, NotProcessed() if refused else Wrong(f"RST_STREAM with {frame.error_code}"))
        elif isinstance(frame, HeadersFrame):
            if "END_HEADERS" not in frame.flags:
                raise ValueError("more header fields than one frame holds")
            for name, value in self._decoder.decode(frame.data):
                if name in (":status", b":status"):
                    stream.status = int(value)
        elif isinstance(frame, DataFrame):
            stream.body += frame.data
            # An answer is far smaller than a stream's window; the connection's is filled again.
            if frame.flow_controlled_length:
                self._send(WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
        if "END_STREAM" in frame.flags and not stream.done.done():
            stream.done.set_result(None)

    @staticmethod
    def _fail(stream: Stream, why: Exception) -> None:
        if not stream.done.done():
            stream.done.set_exception(why)


class Shared:
    """The connection that several clients share."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = asyncio.Lock()
        self._connection: Http2 | None = None
        self._former: list[Http2] = []
        self.users = 0

    async def connection(self) -> Http2:
        """One that takes streams."""
        async with self._lock:
            if self._connection is None or self._connection.goes:
                if self._connection is not None:
                    # Streams of it may still be answered.
                    self._former.append(self._connection)
                    self._connection = None
                self._connection = await Http2.open(self._port)
            return self._connection

    def close(self) -> None:
        """Closes all of them, when its last user leaves."""
        self.users -= 1
        if self.users:
            return
        for connection in (*self._former, self._connection):
            if connection is not None:
                connection.close()
        self._former, self._connection = [], None


class Streams(Client):
    """Asks on a connection that it shares with others."""

    kind = "HTTP/2"

    def __init__(self, target: Target, tally: Tally, pace: float, shared: Shared) -> None:
        super().__init__(target, tally, pace)
        self._shared = shared
        shared.users += 1

    def drop(self) -> None:
        """A connection that is lost says so itself."""

    async def leave(self) -> None:
        """Has nothing under way any more."""
        self._shared.close()

    async def ask(self) -> None:
        """One request, asked again for as long as the server wants it elsewhere."""
        self.attempt = Attempt()
        await asyncio.wait_for(self._until_processed(), self.target.patience)

    async def _until_processed(self) -> None:
        while True:
            connection = await self._shared.connection()
            self.attempt.opened, self.attempt.port = connection.opened, connection.port
            with suppress(NotProcessed):
                stream = await connection.get(self.target.path)
                break
            self.tally.apart[RETRIED] += 1
        if stream.status != 200:
            raise Wrong(f"status {stream.status}", stream.status)
        first, _, filler = stream.body.decode("latin-1").partition("\n")
        self.heard(first)
        if filler != FILLER:
            raise Wrong(f"another body: {filler[:40]!r}")
        self.tally.good(self.attempt.began)
