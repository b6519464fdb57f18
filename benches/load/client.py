"""A load client of our own: connections that each ask, wait for the answer and ask again.

It stands in where wrk is missing, and for WebSockets, which wrk does not speak. As a program it takes one
argument, an `Order` as JSON, and prints a `Load` as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

PATIENCE = 10.0
"""Seconds to wait for a connection, or for the answer to a handshake."""


@dataclass(frozen=True)
class Order:
    """What a client is to do."""

    port: int
    connections: int
    seconds: float
    request: str
    """What is sent, bytes as Latin-1: a whole request; for WebSockets the path."""
    body: int
    """WebSockets: bytes of a message."""
    size: int
    """At least so many bytes are an answer."""


@dataclass
class Load:
    """What a client saw."""

    requests: int
    seconds: float
    received: int
    """Bytes."""
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""
    errors: int


@dataclass
class Tally:
    """What is counted while the load runs."""

    latencies: list[float] = field(default_factory=list)
    received: int = 0
    errors: int = 0

    def load(self, seconds: float) -> Load:
        """The sums of it."""
        ordered = sorted(self.latencies)

        def quantile(part: float) -> float:
            return ordered[int((len(ordered) - 1) * part)] * 1000 if ordered else 0.0

        return Load(len(ordered), seconds, self.received, quantile(0.5), quantile(0.99), self.errors)


class Conversation(ABC):
    """One connection's side of a protocol."""

    request: bytes
    """What is sent each time."""
    closes = False
    """Whether the connection ends with the answer that was just heard."""

    def begin(self, connection: socket.socket) -> None:  # noqa: B027 - most need none
        """Whatever comes before the first request."""

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Takes what has come; says whether the answer is whole.

        Raises `ValueError` for what is no good answer.
        """

    def end(self) -> bool:
        """Says whether an answer is whole now that the other side has closed."""
        return False


def drive(order: Order, make: Callable[[], Conversation]) -> Load:
    """Runs the load."""
    tally = Tally()
    open_ones: dict[int, tuple[socket.socket, Conversation, float]] = {}
    poll = select.epoll()

    def start() -> None:
        """Opens a connection and asks."""
        connection = socket.create_connection(("127.0.0.1", order.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = make()
        conversation.begin(connection)
        # Blocking, so that a long request goes out whole; it is read only when there is something to read.
        connection.settimeout(None)
        poll.register(connection.fileno(), select.EPOLLIN)
        open_ones[connection.fileno()] = (connection, conversation, time.perf_counter())
        connection.sendall(conversation.request)

    def drop(number: int) -> None:
        """Closes a connection."""
        connection = open_ones.pop(number)[0]
        poll.unregister(number)
        connection.close()

    def hear(number: int) -> None:
        """Reads from a connection, and asks again when the answer is whole."""
        connection, conversation, since = open_ones[number]
        try:
            data = connection.recv(1 << 18)
            tally.received += len(data)
            if conversation.feed(data) if data else conversation.end():
                now = time.perf_counter()
                tally.latencies.append(now - since)
                if not conversation.closes:
                    open_ones[number] = (connection, conversation, now)
                    connection.sendall(conversation.request)
                    return
            elif data:
                return
            else:
                tally.errors += 1
        except (OSError, ValueError):
            tally.errors += 1
        drop(number)
        start()

    begin = time.perf_counter()
    deadline = begin + order.seconds
    try:
        for _ in range(order.connections):
            start()
        while (left := deadline - time.perf_counter()) > 0:
            for number, _ in poll.poll(left):
                hear(number)
        return tally.load(time.perf_counter() - begin)
    finally:
        for number in list(open_ones):
            drop(number)
        poll.close()


def main(make: Callable[[Order], Conversation]) -> None:
    """The program of a client."""
    order = Order(**json.loads(sys.argv[1]))
    try:
        print(json.dumps(asdict(drive(order, lambda: make(order)))))
    except (OSError, ValueError) as error:
        sys.exit(f"the load ended: {error}")
