"""What a test watches while a gateway runs: its processes, its clients, and that something comes to be so."""

from __future__ import annotations

import http.client
import json
import random
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from harness import Ask, Server, good, unix_client

if TYPE_CHECKING:
    from typing_extensions import Self

PATIENCE = 60.0
"""Seconds: a machine that is busy with other things is slow, and still right. Only who fails waits it out."""


def until(what: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Waits until it is so.

    What depends on several things has to be asked of one answer: between two answers everything may change.
    """
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds} s"
        time.sleep(0.02)


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A port of the loopback that nobody has, for whoever has to know it before it is bound.

    None of those that the kernel gives to whoever asks for any: until it is bound it would give this one too.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    while True:
        port = random.SystemRandom().randrange(10_000, max(first, 20_000))
        with socket.socket(family) as probe, suppress(OSError):
            # As a server would bind it: what connections of a former one have left is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port


def report(ask: Ask) -> dict[str, Any]:
    """What `hawksbill status` knows, of one moment."""
    found: dict[str, Any] = json.loads(good(ask("status", "--json")))
    return found


def processes(ask: Ask, pool: str = "shop", state: str = "serving") -> list[dict[str, Any]]:
    """Those of a pool that are in a state."""
    return [one for one in report(ask)["pools"][pool]["processes"] if one["state"] == state]


def pids(ask: Ask, pool: str = "shop", state: str = "serving") -> set[int]:
    return {one["pid"] for one in processes(ask, pool, state)}


def until_whole_again(ask: Ask, ended: Iterable[int], pool: str = "shop", workers: int = 2) -> None:
    """Waits until so many serve, none of them one of those that ended."""

    def whole() -> bool:
        serving = pids(ask, pool)
        return len(serving) == workers and serving.isdisjoint(ended)

    until(whole)


def settled(ask: Ask, workers: int = 2, pool: str = "shop") -> bool:
    """Whether one generation with a preloader is there, whole, and nothing of another."""
    states = sorted(one["state"] for one in report(ask)["pools"][pool]["processes"])
    return states == ["preloaded", *["serving"] * workers]


def preloader(ask: Ask) -> int:
    """The process that the workers of the shop are forked from."""
    (found,) = pids(ask, state="preloaded")
    return found


class Load:
    """Clients that ask until they are told to stop: every other one keeps its connection."""

    def __init__(
        self, server: Server, clients: int = 4, paths: tuple[str, ...] = ("/",), keep: bool | None = None
    ) -> None:
        self._port = server.port
        self._over = threading.Event()
        self.failures: list[str] = []
        """What broke, or the status and text of what was not a 200."""
        self.answers: list[str] = []
        self._threads = [
            threading.Thread(
                target=self._ask, args=(paths[n % len(paths)], n % 2 == 0 if keep is None else keep)
            )
            for n in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, more: int = 20) -> None:
        """Waits for so many answers from now on."""
        wanted = len(self.answers) + more
        until(lambda: len(self.answers) >= wanted)

    def _ask(self, path: str, keeps: bool) -> None:
        connection = None
        # With a moment between two requests: clients are not to take the time of those whom they ask.
        while not self._over.wait(0.002):
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
                began = time.monotonic()
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read().decode()
                if answer.status == 200:
                    self.answered(body, time.monotonic() - began)
                else:
                    self.failures.append(f"{answer.status} {body}")
                if not keeps or answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = None
        if connection is not None:
            connection.close()

    def answered(self, body: str, took: float) -> None:
        """Takes note of an answer, and how many seconds it took."""
        self.answers.append(body)


class Measured(Load):
    """Clients that keep their connections: how many answers a second they get, and how long each takes."""

    def __init__(self, server: Server, clients: int = 3) -> None:
        super().__init__(server, clients, keep=True)
        self._seen: deque[tuple[float, float]] = deque(maxlen=100_000)

    def answered(self, body: str, took: float) -> None:
        self._seen.append((time.monotonic(), took))

    def lately(self, seconds: float = 5.0) -> tuple[float, float]:
        """Answers a second, and the median of how long they took in seconds."""
        since = time.monotonic() - seconds
        took = [took for ended, took in list(self._seen) if ended >= since]
        return len(took) / seconds, statistics.median(took or [0.0])


def is_near(one: float, other: float, part: float = 0.2) -> bool:
    return abs(one - other) <= part * other


def socket_of(runtime: Path) -> Path:
    """The control socket of the one gateway there."""
    (path,) = (runtime / "hawksbill").glob("*.sock")
    return path


def control(path: Path) -> httpx.Client:
    """A client of a control socket."""
    return unix_client(path)
