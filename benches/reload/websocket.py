"""A WebSocket client that hears its own messages again."""

from __future__ import annotations

import asyncio
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from .clients import Attempt, Client, Target
from .tally import CLOSED_1012, Reset, Tally, Who, Wrong, same

RESTARTS = 1012
"""The service restarts: come again (IANA's registry of close codes)."""
ABNORMAL = 1006
"""The connection ended without a close frame (RFC 6455, section 7.1.5)."""


class Echo(Client):
    """One connection for as long as it lasts."""

    kind = "WebSocket echo"

    def __init__(self, target: Target, tally: Tally, pace: float) -> None:
        super().__init__(target, tally, pace)
        self.websocket: ClientConnection | None = None

    def drop(self) -> None:
        """Cuts the connection."""
        if self.websocket is not None:
            self.websocket.transport.abort()
            self.websocket = None

    async def leave(self) -> None:
        """Closes the connection as the protocol has it."""
        if self.websocket is not None:
            await self.counted(asyncio.wait_for(self.websocket.close(), self.target.patience))

    async def ask(self) -> None:
        """One WebSocket."""
        self.websocket = websocket = await self._connected()
        before: Who | None = None
        number = 0
        try:
            while not self.over.is_set():
                self.attempt.began = began = time.monotonic()
                await asyncio.wait_for(websocket.send(str(number)), self.target.patience)
                echo = await asyncio.wait_for(websocket.recv(), self.target.patience)
                line, _, text = str(echo).partition("\n")
                before = self.heard(line) if before is None else same(line, before)
                if text != str(number):
                    raise Wrong(f"the echo of {number} is {text[:80]!r}")
                number += 1
                self.tally.good(began)
                await asyncio.sleep(self.pace)
        except ConnectionClosed as error:
            self._closed(error)

    async def _connected(self) -> ClientConnection:
        patience = self.target.patience
        self.attempt = Attempt()
        url = f"ws://127.0.0.1:{self.target.port}{self.target.path}socket"
        try:
            opening = connect(
                url, proxy=None, open_timeout=patience, close_timeout=patience, ping_interval=None
            )
            websocket = await asyncio.wait_for(opening, patience)
        except InvalidStatus as error:
            raise Wrong(f"status {error.response.status_code}", error.response.status_code) from error
        except InvalidMessage as error:
            raise Reset(f"{error}: {error.__cause__!r}") from error
        except InvalidHandshake as error:
            raise Wrong(str(error)) from error
        self.attempt.port = websocket.local_address[1]
        return websocket

    def _closed(self, error: ConnectionClosed) -> None:
        code = error.rcvd.code if error.rcvd else ABNORMAL
        if code == ABNORMAL:
            raise Reset("the WebSocket ended without a close frame") from error
        if code != RESTARTS:
            raise Wrong(f"the WebSocket was closed with {code}") from error
        if not self.target.versions.is_due(self.attempt.opened):
            raise Wrong("the WebSocket was closed with 1012 before the deadline") from error
        self.tally.apart[CLOSED_1012] += 1
        self.websocket = None
