"""A small HTTP/2 client over the `h2` library, for what httpx does not do: trailers and extended CONNECT."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType

from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from harness import Server


@dataclass
class Stream:
    """What has arrived on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


class Http2:
    """One connection with prior knowledge."""

    def __init__(self, server: Server) -> None:
        self._host = f"127.0.0.1:{server.port}"
        self._socket = server.connect()
        self._h2 = H2Connection()
        self._streams: dict[int, Stream] = {}
        self.settings: dict[int, int] = {}
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, end: bool = True, /, protocol: str = "", **headers: str) -> int:
        """Begins a request and gives its stream."""
        stream = self._h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", self._host)]
        if protocol:
            pseudo.append((":protocol", protocol))
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self._streams[stream] = Stream()
        self._h2.send_headers(stream, pseudo + named, end_stream=end)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Sends data on a stream."""
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def reset(self, stream: int) -> None:
        """Gives a stream up."""
        self._h2.reset_stream(stream, error_code=8)
        self._flush()

    def headers(self, stream: int) -> dict[str, str]:
        """The response's headers, waited for."""
        while not self._streams[stream].headers:
            self._receive()
        return self._streams[stream].headers

    def exactly(self, stream: int, length: int) -> bytes:
        """The next so many bytes, waited for."""
        state = self._streams[stream]
        while len(state.data) < length:
            assert not state.ended, f"the stream ended after {bytes(state.data)!r}"
            self._receive()
        taken = bytes(state.data[:length])
        del state.data[:length]
        return taken

    def whole(self, stream: int) -> bytes:
        """All that comes until the stream ends."""
        state = self._streams[stream]
        while not state.ended:
            self._receive()
        return bytes(state.data)

    def trailers(self, stream: int) -> dict[str, str]:
        """The trailers of a stream that has ended."""
        return self._streams[stream].trailers

    def setting(self, code: SettingCodes) -> int:
        """A setting of the server's, waited for."""
        while code not in self.settings:
            self._receive()
        return self.settings[code]

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the server closed the connection"
        for event in self._h2.receive_data(data):
            self._note(event)
        self._flush()

    def _note(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            for code, change in event.changed_settings.items():
                self.settings[int(code)] = change.new_value
            return
        stream = self._streams.get(getattr(event, "stream_id", None) or 0, Stream())
        if isinstance(event, ResponseReceived):
            stream.headers = _text(event.headers)
        elif isinstance(event, TrailersReceived):
            stream.trailers = _text(event.headers)
        elif isinstance(event, DataReceived):
            stream.data += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, (StreamEnded, StreamReset)):
            stream.ended = True
            stream.reset = isinstance(event, StreamReset)
            assert not stream.reset or stream.headers, "the stream was reset without an answer"


def _text(headers: object) -> dict[str, str]:
    pairs: list[tuple[bytes, bytes]] = list(headers or [])  # type: ignore[call-overload]
    return {_str(name): _str(value) for name, value in pairs}


def _str(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
