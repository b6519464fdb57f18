"""A pytest plugin by which Starlette's test client, and so FastAPI's, speaks to a running Hawksbill.

Each client gets a gateway that hosts its application as a live object; requests and WebSockets go to it over
sockets, and the lifespan is the gateway's. What the in-memory client can do and a socket cannot is kept
beside the socket: an exception of the application is raised in the test that caused it.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import starlette.testclient
from hawksbill import Gateway, StartError
from starlette.testclient import (  # type: ignore[attr-defined]
    WebSocketDenialResponse,
    httpx,
)
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

TAG = b"x-test-request"
SCHEME = b"x-forwarded-proto"
"""A test that asks for https is served as a trusted proxy's request would be."""
END_SECONDS = 2.0
"""How long an application may run on after its answer."""

counts = {"requests": 0, "WebSockets": 0}
"""What has gone over sockets."""

_stack = ExitStack()
_tags = itertools.count(1)


class Call:
    """One request as the application's side saw it."""

    def __init__(self) -> None:
        self.tag = str(next(_tags)).encode()
        self.begun = False
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def settle(self, raises: bool = True) -> None:
        """Waits for the application's end, if it was called at all, and raises what it raised."""
        assert not self.begun or self.ended.wait(END_SECONDS), (
            "the application went on after the exchange was over"
        )
        if raises and self.error is not None:
            raise self.error


class Hosted:
    """An application behind a gateway."""

    def __init__(self, app: Any, root_path: str, lifespan: bool) -> None:
        self._app, self._root_path, self._lifespan = app, root_path, lifespan
        self.calls: dict[bytes, Call] = {}
        self.startup_error: BaseException | None = None
        gateway = Gateway(listen="127.0.0.1:0", trusted_proxies=["127.0.0.1/32"])
        gateway.site("*").route("/", self._application)
        try:
            self._running = gateway.start()
        except StartError:
            if self.startup_error is not None:
                raise self.startup_error from None
            raise
        self.port = self._running.port

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if not self._lifespan:
                raise RuntimeError("this client was not entered, and so has no lifespan")
            try:
                await self._app(scope, receive, send)
            except BaseException as error:
                self.startup_error = error
                raise
            return
        tags = [value for name, value in scope["headers"] if name == TAG]
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (TAG, SCHEME)]
        if self._root_path:
            scope["root_path"] = self._root_path
        call = self.calls[tags[0]]
        call.begun = True
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            call.error = error
            raise
        finally:
            call.ended.set()

    def call(self) -> Call:
        """Announces a request."""
        call = Call()
        self.calls[call.tag] = call
        return call

    def stop(self) -> None:
        """Ends the gateway, and with it the lifespan."""
        self._running.stop()


class SocketTransport(httpx.BaseTransport):
    """In place of the transport that calls the application."""

    def __init__(
        self, app: Any, *, raise_server_exceptions: bool = True, root_path: str = "", **_: Any
    ) -> None:
        self._app, self._root_path = app, root_path
        self._raises = raise_server_exceptions
        self._hosted: Hosted | None = None
        self._sockets = httpx.HTTPTransport()

    def host(self, lifespan: bool = False) -> Hosted:
        """The gateway, started if there is none yet."""
        if self._hosted is None:
            self._hosted = Hosted(self._app, self._root_path, lifespan)
            _stack.callback(self.stop)
        return self._hosted

    def stop(self) -> None:
        """Ends the gateway, if there is one."""
        self._sockets.close()
        hosted, self._hosted = self._hosted, None
        if hosted is not None:
            hosted.stop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request to the gateway, with the Host that the test named."""
        hosted = self.host()
        call = hosted.call()
        if request.url.scheme in ("ws", "wss"):
            session: Any = WebSocketSession(hosted, call, request)
            raise starlette.testclient._Upgrade(session)
        counts["requests"] += 1
        headers = [*request.headers.raw, (TAG, call.tag)]
        if request.url.scheme == "https":
            headers.append((SCHEME, b"https"))
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=hosted.port)
        asked = httpx.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        try:
            answer = self._sockets.handle_request(asked)
            body = b"".join(answer.stream)  # type: ignore[arg-type]
            answer.close()
        except httpx.TransportError:
            # The application failed after its answer had begun, and the server cut the connection.
            call.settle(self._raises)
            raise
        call.settle(self._raises)
        received = [pair for pair in answer.headers.raw if pair[0].lower() not in (b"date", b"connection")]
        return httpx.Response(
            answer.status_code, headers=received, stream=httpx.ByteStream(body), request=request
        )


class WebSocketSession:
    """In place of the session that calls the application."""

    def __init__(self, hosted: Hosted, call: Call, request: httpx.Request) -> None:
        self._hosted, self._call = hosted, call
        self._url, self._headers = request.url, request.headers
        self._open = ExitStack()
        self.accepted_subprotocol: str | None = None
        self.extra_headers: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> WebSocketSession:
        counts["WebSockets"] += 1
        own = ("host", "connection", "upgrade", "user-agent")
        names = [
            (name, value)
            for name, value in self._headers.multi_items()
            if name not in own and not name.startswith("sec-websocket-")
        ]
        offered = self._headers.get("sec-websocket-protocol", "")
        protocols = [Subprotocol(name.strip()) for name in offered.split(",") if name.strip()]
        try:
            connecting = connect(
                str(self._url.copy_with(scheme="ws")),
                sock=socket.create_connection(("127.0.0.1", self._hosted.port)),
                additional_headers=[*names, (TAG.decode(), self._call.tag.decode())],
                user_agent_header=self._headers.get("user-agent"),
                subprotocols=protocols or None,
            )
            self._socket: ClientConnection = self._open.enter_context(connecting)
        except InvalidStatus as refused:
            self._call.settle()
            answer = refused.response
            if answer.status_code == 403 and not answer.body:
                raise WebSocketDisconnect(1000) from None
            raise WebSocketDenialResponse(
                answer.status_code,
                headers=list(answer.headers.raw_items()),
                content=bytes(answer.body or b""),
            ) from None
        self.accepted_subprotocol = self._socket.subprotocol
        assert self._socket.response is not None
        self.extra_headers = [
            (name.encode(), value.encode())
            for name, value in self._socket.response.headers.raw_items()
            if name.lower() not in ("upgrade", "connection", "date") and not name.lower().startswith("sec-")
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._call.settle()

    def send(self, message: dict[str, Any]) -> None:
        """Sends what the ASGI message says."""
        if message["type"] == "websocket.disconnect":
            self.close(message.get("code", 1000), message.get("reason"))
        elif message.get("text") is not None:
            self._socket.send(message["text"])
        else:
            self._socket.send(message["bytes"])

    def send_text(self, data: str) -> None:
        """A text message."""
        self._socket.send(data)

    def send_bytes(self, data: bytes) -> None:
        """A binary message."""
        self._socket.send(data)

    def send_json(self, data: Any, mode: str = "text") -> None:
        """JSON, as text or as bytes."""
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        self._socket.send(text if mode == "text" else text.encode())

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        """A close."""
        self._socket.close(code, reason or "")

    def receive(self) -> dict[str, Any]:
        """What arrives, as the ASGI message that the application sent."""
        try:
            data = self._socket.recv(timeout=END_SECONDS)
        except ConnectionClosed as closed:
            self._call.ended.wait(END_SECONDS)
            if self._call.error is not None:
                raise self._call.error from None
            end = closed.rcvd
            return {
                "type": "websocket.close",
                "code": end.code if end else 1006,
                "reason": end.reason if end else "",
            }
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}

    def _data(self, kind: str) -> Any:
        message = self.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message["reason"])
        return message[kind]

    def receive_text(self) -> str:
        """A text message; WebSocketDisconnect at a close."""
        text: str = self._data("text")
        return text

    def receive_bytes(self) -> bytes:
        """A binary message; WebSocketDisconnect at a close."""
        data: bytes = self._data("bytes")
        return data

    def receive_json(self, mode: str = "text") -> Any:
        """JSON, from text or from bytes."""
        return json.loads(self._data("text" if mode == "text" else "bytes"))


def enter(client: Any) -> Any:
    """`with client:` is a gateway with a lifespan."""
    client._transport.stop()
    client._transport.host(lifespan=True)
    return client


def leave(client: Any, *_: object) -> None:
    """The end of `with client:`."""
    hosted = client._transport._hosted
    client._transport.stop()
    if hosted is not None and hosted.startup_error is not None:
        raise hosted.startup_error


def pytest_configure() -> None:
    """Puts all of it in."""
    client: Any = starlette.testclient.TestClient
    starlette.testclient._TestClientTransport = SocketTransport  # type: ignore[assignment, misc]
    client.__enter__, client.__exit__ = enter, leave


@pytest.fixture(autouse=True)
def gateways() -> Iterator[None]:
    """Ends the gateways of a test with it."""
    yield
    _stack.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how much there was, so that a run without sockets is noticed."""
    terminalreporter.write_line(
        f"over sockets: {counts['requests']} requests, {counts['WebSockets']} WebSockets"
    )
