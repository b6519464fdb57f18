"""A slow request delays nobody whom a free thread could serve.

All threads of an application but one sleep for five seconds; meanwhile the rest answers at once, on other
connections and on other HTTP/2 streams of the very connection on which the sleepers wait.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable

import h2.connection
import h2.events
import pytest
from harness import APPS, Server

THREADS = 4
SLEEP_SECONDS = 5
ROUNDS = 5
ROUND_SECONDS = 0.8
"""All rounds together end well before the sleep does."""
LIMIT_SECONDS = 0.05


class Http1:
    """Requests that each wait on a connection of their own; those read to the end share one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: list[socket.socket] = []
        self._shared = server.connect()

    def begin(self, path: str) -> None:
        """Sends a request and does not wait."""
        self._waiting.append(self._server.connect())
        self._waiting[-1].sendall(self._request(path))

    def ask(self, path: str) -> None:
        """Sends a request and waits for its whole answer."""
        self._shared.sendall(self._request(path))
        answer = b""
        while not answer.endswith(b"wsgi probe\n"):
            block = self._shared.recv(65536)
            assert block, answer
            answer += block
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def ended(self) -> bool:
        """Whether an answer to what was begun has come."""
        for waiting in self._waiting:
            waiting.setblocking(False)
            try:
                waiting.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            return True
        return False

    def close(self) -> None:
        """Closes all connections."""
        for one in (self._shared, *self._waiting):
            one.close()

    @staticmethod
    def _request(path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: probe.test\r\n\r\n".encode()


class Http2:
    """Requests that are all streams of one connection, by a client without cleverness of its own."""

    def __init__(self, server: Server) -> None:
        self._socket = server.connect()
        self._http2 = h2.connection.H2Connection()
        self._http2.initiate_connection()
        self._begun: set[int] = set()
        self._over: set[int] = set()

    def begin(self, path: str) -> None:
        """Sends a request and does not wait."""
        self._begun.add(self._send(path))

    def ask(self, path: str) -> None:
        """Sends a request and waits for its whole answer."""
        stream = self._send(path)
        while stream not in self._over:
            block = self._socket.recv(65536)
            assert block, "the server closed the connection"
            for event in self._http2.receive_data(block):
                if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                    assert (b":status", b"200") in event.headers
                if isinstance(event, h2.events.DataReceived):
                    length = event.flow_controlled_length
                    self._http2.acknowledge_received_data(length, event.stream_id)
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self._over.add(event.stream_id)
            self._socket.sendall(self._http2.data_to_send())

    def ended(self) -> bool:
        """Whether an answer to what was begun has come."""
        return bool(self._begun & self._over)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _send(self, path: str) -> int:
        stream = self._http2.get_next_available_stream_id()
        names = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "probe.test"}
        self._http2.send_headers(stream, list(names.items()), end_stream=True)
        self._socket.sendall(self._http2.data_to_send())
        return stream


def percentile_99(samples: list[float]) -> float:
    """The 99th percentile."""
    return sorted(samples)[max(round(len(samples) * 0.99) - 1, 0)]


def delays(client: Http1 | Http2) -> list[float]:
    """The 99th percentile of each round while the sleepers sleep."""
    client.ask("/")
    for _ in range(THREADS - 1):
        client.begin(f"/sleep?seconds={SLEEP_SECONDS}")
    time.sleep(0.3)
    rounds = []
    for _ in range(ROUNDS):
        samples = []
        end = time.perf_counter() + ROUND_SECONDS
        while (began := time.perf_counter()) < end:
            client.ask("/")
            samples.append(time.perf_counter() - began)
        rounds.append(percentile_99(samples))
    assert not client.ended(), f"a request waited until a sleeper woke; p99 of the rounds in s: {rounds}"
    return rounds


@pytest.mark.parametrize("kind", [Http1, Http2], ids=["connections", "streams"])
def test_sleepers_do_not_delay_the_others(start: Callable[..., Server], kind: type[Http1 | Http2]) -> None:
    for attempt in (1, 2):
        options = ("--threads", str(THREADS), "--dir", APPS, "--listen", "127.0.0.1:0")
        client = kind(start("run", "wsgi_probe:application", *options))
        try:
            rounds = delays(client)
        finally:
            client.close()
        shown = ", ".join(f"{value * 1000:.1f}" for value in rounds)
        print(f"attempt {attempt}: p99 of each round in ms: {shown}")
        # The median: what else the machine does during one round is not the server's.
        if statistics.median(rounds) < LIMIT_SECONDS:
            return
    pytest.fail(f"twice delayed beyond {LIMIT_SECONDS * 1000:.0f} ms; p99 of each round in ms: {shown}")
