"""Runs the WebSocket cases of the Autobahn test suite against a server.

The suite itself is a Python 2 program; its cases are short classes that say what to send and what must come
back. They are read from its source archive as they are, and this file is the client under them: the
handshake, frames and permessage-deflate, written from RFC 6455 and RFC 7692, with nothing of the server's
codec in it.

In Python 2 a string is a string of bytes. Here it is text whose characters are the bytes (latin-1).
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import itertools
import os
import re
import struct
import sys
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

VERSION = "25.10.1"
PYTHON_3 = (
    # No order of bases begins with `object`.
    ("(object, Case, )", "(Case, )"),
    ("xrange(", "range("),
    ("len(self.payload) / ", "len(self.payload) // "),
)
"""What else differs between the two languages in the text of the cases."""

DROP_SECONDS = 2.0
"""How long the server may take to close the connection after the close handshake."""
CASE_SECONDS = 60.0


def octets(value: str | bytes) -> bytes:
    """The bytes of a Python 2 string."""
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


class Offer:
    """`PerMessageDeflateOffer`: what the client puts into the handshake."""

    def __init__(self, requestNoContextTakeover: bool = False, requestMaxWindowBits: int = 0) -> None:
        self.requestNoContextTakeover = requestNoContextTakeover
        self.requestMaxWindowBits = requestMaxWindowBits

    def __str__(self) -> str:
        words = ["permessage-deflate", "client_no_context_takeover", "client_max_window_bits"]
        if self.requestNoContextTakeover:
            words.append("server_no_context_takeover")
        if self.requestMaxWindowBits:
            words.append(f"server_max_window_bits={self.requestMaxWindowBits}")
        return "; ".join(words)


class Utf8Validator:
    """As the suite uses it: (valid so far, ends on a character)."""

    def reset(self) -> None:
        """Each text is given whole."""

    def validate(self, text: str) -> tuple[bool, bool]:
        """Judges a Python 2 string."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(octets(text))
        except UnicodeDecodeError:
            return False, False
        return True, not decoder.getstate()[0]


class Client:
    """One connection under one case, with the names that the cases call."""

    STATE_CLOSED, STATE_OPEN = 0, 3
    CLOSE_STATUS_CODE_NORMAL = 1000
    CLOSE_STATUS_CODE_PROTOCOL_ERROR = 1002
    CLOSE_STATUS_CODE_INVALID_PAYLOAD = 1007

    def __init__(self, kind: type[Any]) -> None:
        self.factory = types.SimpleNamespace(isServer=False)
        self.state = self.STATE_CLOSED
        self.connectionWasOpen = self.closedByMe = self.wasClean = self.droppedByMe = self.failedByMe = False
        self.remoteCloseCode: int | None = None
        self.remoteCloseReason: str | None = None
        self.localCloseReason: str | None = None
        self.perMessageCompressionOffers: list[Offer] = []
        self.perMessageCompressionAccept: Any = None
        self._perMessageCompress: dict[str, str] | None = None
        self.autoFragmentSize = 0
        self.createWirelog = False
        self.trafficStats = None
        self.txFrameStats: dict[int, int] = {0: 0, 1: 0}
        self._closing = self._closed_by_peer = False
        self._parts: list[bytes] = []
        self._first: tuple[int, int] | None = None
        self._deflate: Any = None
        self._inflate: Any = None
        self._binary = False
        self._begun = False
        self.case = kind(self)

    async def run(self, port: int, path: str) -> None:
        """The whole connection."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        await self._handshake(path)
        self.state, self.connectionWasOpen = self.STATE_OPEN, True
        self._timers: list[asyncio.TimerHandle] = []
        try:
            self.case.onOpen()
            while True:
                await self._frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.state = self.STATE_CLOSED
            self.wasClean = self._closing and self._closed_by_peer and not self.droppedByMe
            for timer in self._timers:
                timer.cancel()
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()
        self.case.onConnectionLost(self.failedByMe)

    async def _handshake(self, path: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: autobahn.test", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self.perMessageCompressionOffers:
            lines.append(f"Sec-WebSocket-Extensions: {', '.join(map(str, self.perMessageCompressionOffers))}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        assert head.startswith("HTTP/1.1 101 "), head
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        accepted = headers.get("sec-websocket-extensions")
        if accepted:
            assert self.perMessageCompressionOffers, f"accepted without an offer: {accepted}"
            name, *words = (word.strip() for word in accepted.split(";"))
            assert name == "permessage-deflate", accepted
            self._perMessageCompress = {
                key: value for key, _, value in (word.partition("=") for word in words)
            }

    # Arriving frames

    async def _frame(self) -> None:
        first, second = await self._reader.readexactly(2)
        fin, rsv, opcode, length = first >> 7, first >> 4 & 7, first & 15, second & 127
        assert not second & 128, "the server masked a frame"
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        payload = await self._reader.readexactly(length)
        if opcode >= 8:
            assert (fin, rsv, length < 126) == (1, 0, True), "the server sent an impossible control frame"
            self._control(opcode, payload)
            return
        if opcode:
            assert self._first is None, "the server began a message within a message"
            self._first = (opcode, rsv)
        else:
            assert self._first is not None, "the server continued no message"
        compressible = opcode and self._perMessageCompress is not None
        assert rsv in ((0, 4) if compressible else (0,)), "the server set reserved bits"
        self._parts.append(payload)
        if fin:
            self._message()

    def _message(self) -> None:
        assert self._first is not None
        opcode, rsv = self._first
        data = b"".join(self._parts)
        self._first, self._parts = None, []
        if rsv:
            assert self._perMessageCompress is not None
            bits = int(self._perMessageCompress.get("server_max_window_bits") or 15)
            if self._inflate is None or "server_no_context_takeover" in self._perMessageCompress:
                self._inflate = zlib.decompressobj(-bits)
            data = self._inflate.decompress(data + b"\x00\x00\xff\xff")
        if self.state == self.STATE_OPEN:
            self.case.onMessage(data, opcode == 2)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            if self.state == self.STATE_OPEN:
                self.sendFrame(10, payload)
                self.case.onPing(payload.decode("latin-1"))
        elif opcode == 10:
            self.case.onPong(payload.decode("latin-1"))
        else:
            assert opcode == 8, f"the server sent opcode {opcode}"
            self._closed_by_peer = True
            if payload:
                (self.remoteCloseCode,) = struct.unpack("!H", payload[:2])
                self.remoteCloseReason = payload[2:].decode("utf-8")
            if not self._closing:
                self._closing = True
                self.sendFrame(8, payload)
            self.case.onClose(True, self.remoteCloseCode, self.remoteCloseReason)
            # RFC 6455, 7.1.1: the server closes the connection first.
            self._later(DROP_SECONDS, self._drop)

    # What the cases call

    def sendFrame(
        self,
        opcode: int,
        payload: str | bytes = b"",
        fin: bool = True,
        rsv: int = 0,
        mask: Any = None,
        payload_len: int | None = None,
        chopsize: int | None = None,
        sync: bool = False,
    ) -> None:
        """One frame, of any kind, in pieces of `chopsize`."""
        data = octets(payload)
        if payload_len is not None:
            data = bytes(itertools.islice(itertools.cycle(data), payload_len)) if payload_len else b""
        head = self._head(opcode, len(data), fin, rsv)
        frame = head + self._masked(data, 0)
        for at in range(0, len(frame), chopsize or len(frame)):
            self._writer.write(frame[at : at + (chopsize or len(frame))])

    def _head(self, opcode: int, length: int, fin: bool, rsv: int = 0) -> bytes:
        self._mask = os.urandom(4)
        first = bool(fin) << 7 | rsv << 4 | opcode
        if length < 126:
            size = struct.pack("!B", 128 | length)
        elif length < 1 << 16:
            size = struct.pack("!BH", 128 | 126, length)
        else:
            size = struct.pack("!BQ", 128 | 127, length)
        return bytes([first]) + size + self._mask

    def _masked(self, data: bytes, at: int) -> bytes:
        mask = self._mask[at % 4 :] + self._mask[: at % 4]
        key = (mask * (len(data) // 4 + 1))[: len(data)]
        return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")

    def sendMessage(self, payload: str | bytes, isBinary: bool = False, **_: Any) -> None:
        """A message, compressed if that was agreed, in fragments of `autoFragmentSize`."""
        data, rsv = octets(payload), 0
        if self._perMessageCompress is not None:
            data, rsv = self._compressed(data), 4
        size = self.autoFragmentSize or max(len(data), 1)
        starts = range(0, max(len(data), 1), size)
        for at in starts:
            block, last = data[at : at + size], at == starts[-1]
            self.sendFrame(0 if at else 1 + isBinary, block, fin=last, rsv=0 if at else rsv)
            self.txFrameStats[0 if len(block) == size else 1] += 1

    def _compressed(self, data: bytes) -> bytes:
        assert self._perMessageCompress is not None
        bits = int(self._perMessageCompress.get("client_max_window_bits") or 15)
        if self._deflate is None or "client_no_context_takeover" in self._perMessageCompress:
            self._deflate = zlib.compressobj(wbits=-bits)
        whole: bytes = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return whole.removesuffix(b"\x00\x00\xff\xff")

    def beginMessage(self, isBinary: bool = False) -> None:
        """The first frame of a message comes next."""
        self._binary, self._begun = isBinary, False

    def beginMessageFrame(self, length: int) -> None:
        """The head of a frame whose payload comes in pieces."""
        self._writer.write(self._head(0 if self._begun else 1 + self._binary, length, fin=False))
        self._begun, self._sent = True, 0

    def sendMessageFrameData(self, payload: str | bytes, sync: bool = False) -> None:
        """A piece of the payload."""
        data = octets(payload)
        self._writer.write(self._masked(data, self._sent))
        self._sent += len(data)

    def endMessage(self) -> None:
        """The last frame, empty."""
        self.sendFrame(0)

    def sendClose(self, code: int | None = None, reason: str | None = None) -> None:
        """A close, unless there has been one."""
        if self.state == self.STATE_OPEN and not self._closing:
            self.localCloseReason = reason
            self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: Any = None, isReply: bool = False) -> None:
        """A close frame with any code."""
        reason = reasonUtf8 or b""
        payload = struct.pack("!H", code) + octets(reason) if code is not None else b""
        self._closing = self.closedByMe = True
        self.sendFrame(8, payload)

    def enableWirelog(self, _: bool) -> None:
        """The suite's log of octets."""

    def continueLater(self, delay: float, step: Callable[[], None], tag: Any = None) -> None:
        """Goes on with the case after a while."""
        self._later(delay, step)

    def killAfter(self, delay: float) -> None:
        """Drops the connection after a while."""
        self._later(delay, self._fail)

    def closeAfter(self, delay: float) -> None:
        """Begins the closing handshake after a while."""
        self._later(delay, self.sendClose)

    def _later(self, delay: float, step: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay, step))

    def _fail(self) -> None:
        self.failedByMe = True
        self._drop()

    def _drop(self) -> None:
        self.droppedByMe = True
        self._writer.transport.abort()
        self._reader.feed_eof()


@contextmanager
def python_2(tree: Path) -> Iterator[None]:
    """The names that the cases import and Python 3 or this client has in other places."""
    package = tree / "autobahntestsuite"
    stand_ins: dict[str, dict[str, Any]] = {
        "autobahn": {},
        "autobahn.websocket": {},
        "autobahn.websocket.protocol": {"WebSocketProtocol": Client},
        "autobahn.websocket.utf8validator": {"Utf8Validator": Utf8Validator},
        "autobahn.websocket.compress": {"PerMessageDeflateOffer": Offer},
        "binascii": dict.fromkeys(("b2a_hex", "hexlify"), lambda value: octets(value).hex()),
        "pkg_resources": {"resource_filename": lambda _, name: str(package / name)},
    }
    known = dict(sys.modules)
    for name, values in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(values)
    sys.path.insert(0, str(package / "case"))
    try:
        yield
    finally:
        sys.path.remove(str(package / "case"))
        for name in sys.modules.keys() - known.keys():
            del sys.modules[name]
        sys.modules.update(known)


def load(tree: Path) -> dict[str, type[Any]]:
    """All cases of the suite, by number ("1.2.3"), from the tree of its source archive."""
    folder = tree / "autobahntestsuite" / "case"
    for path in folder.glob("*.py"):
        # The one statement of Python 2 that Python 3 cannot read says how a module does as a program.
        text = re.sub(r"^(\s+)print\b.*$", r"\1pass", path.read_text("latin-1"), flags=re.MULTILINE)
        for old, new in PYTHON_3:
            text = text.replace(old, new)
        # In Python 2 the characters of a literal are the bytes of the file.
        path.write_text(text, "utf-8")
    scope: dict[str, Any] = {}
    listing = (folder / "__init__.py").read_text("latin-1")
    # The suite imports case 9.9.1 and does not list it; it would need Twisted.
    listing = listing.replace("from case9_9_1 import *", "")
    with python_2(tree):
        exec(compile(listing, "cases", "exec"), scope)
        base = sys.modules["case"].Case
    base.compare = lambda _, one, other: same(one) == same(other)
    return {kind.__name__[4:].replace("_", "."): kind for kind in scope["Cases"]}


def same(events: Any) -> Any:
    """Events with every string as bytes, so that text and bytes of Python 2 compare as they did."""
    if isinstance(events, (list, tuple)):
        return [same(one) for one in events]
    return octets(events) if isinstance(events, (str, bytes)) else events


async def play(kind: type[Any], port: int, path: str) -> str:
    """Plays one case: an empty text, or what was wrong."""
    client = Client(kind)
    case = client.case
    try:
        await asyncio.wait_for(client.run(port, path), CASE_SECONDS)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    good = (case.OK, case.NON_STRICT, case.INFORMATIONAL)
    if case.behavior not in good:
        return f"{case.behavior}: {case.result}; received {case.received!r:.300}"
    if case.behaviorClose not in (case.OK, case.INFORMATIONAL):
        return (
            f"close: {case.behaviorClose}: {case.resultClose}; the server's code was {client.remoteCloseCode}"
        )
    return ""
