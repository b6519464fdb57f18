"""Runs a real Hawksbill process for a test and tells where it listens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import httpx

TESTS = Path(__file__).resolve().parent
APPS = TESTS / "apps"
DOMAINS = TESTS.parent.parent / "examples" / "domains"

READY = re.compile(r"^hawksbill: listening on (?P<url>\S+)", re.MULTILINE)
"""What the server prints, once for each address, when it serves there."""

COMMAND = [sys.executable, "-m", "hawksbill"]
START_SECONDS = 30.0
STOP_SECONDS = 15.0
LIFE_SECONDS = 1800.0
"""After this a server is killed, whatever the test still wanted of it."""


class Server:
    """A process `hawksbill ARGUMENTS`, listening on a free port of the loopback.

    Use it as a context manager: on entry it serves, on exit it has ended.

    `cwd` is a directory without a package `hawksbill`, so that `-m hawksbill` finds the
    installed one; a checkout's own has no compiled part.
    """

    def __init__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = TESTS,
        listeners: int = 1,
    ) -> None:
        self._arguments: Sequence[str | Path] = arguments
        # A developer's own settings of the server are none of a test's.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
        # People read what tests look for.
        self._env = {**kept, "HAWKSBILL_LOG_FORMAT": "text", **(env or {})}
        self._cwd = cwd
        self._listeners = listeners
        self._lines: list[str] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, self._arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
            env=self._env,
            # Its own process group, so that whatever it started can be ended with it.
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._watchdog = threading.Timer(LIFE_SECONDS, self._kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            self.urls = self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            print(f"--- output of {self}\n{self.output()}", file=sys.stderr)

    def __repr__(self) -> str:
        return f"hawksbill {' '.join(map(str, self._arguments))}"

    @property
    def port(self) -> int:
        """The port of the first TCP address."""
        for url in self.urls:
            port = urlsplit(url).port
            if port is not None:
                return port
        raise AssertionError(f"{self!r} listens on no TCP port: {self.urls}")

    @property
    def base(self) -> str:
        """The URL of the first TCP address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        """What the process has printed so far, standard output and error together."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, seconds: float = 10.0) -> re.Match[str]:
        """Waits until the output matches; fails with the output if it never does."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = re.search(pattern, "".join(self._lines), re.MULTILINE)
                if found:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    printed = "".join(self._lines)
                    raise AssertionError(f"{self!r} did not print {pattern!r}:\n{printed}")
                self._changed.wait(left)

    def client(self, host: str | None = None, http2: bool = False) -> httpx.Client:
        """An httpx client that connects here and names `host` in every request.

        Names under .localhost do not resolve everywhere, so the address is dialled and
        the name sent in Host (`:authority` in HTTP/2, spoken with prior knowledge).
        """
        headers = {"Host": f"{host}:{self.port}"} if host else {}
        return httpx.Client(
            base_url=self.base,
            headers=headers,
            http1=not http2,
            http2=http2,
            timeout=60,
            trust_env=False,
        )

    def connect(self) -> socket.socket:
        """A TCP connection to the first address."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self) -> int:
        """Asks it to end, makes it end, and gives its exit status."""
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self!r} did not end on SIGTERM", file=sys.stderr)
        self._kill()
        status = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        return status

    def _kill(self) -> None:
        # No such group means that all of it has ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _wait_ready(self) -> list[str]:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with self._changed:
                urls = [match["url"] for match in READY.finditer("".join(self._lines))]
                if len(urls) >= self._listeners:
                    return urls
                left = deadline - time.monotonic()
                self._changed.wait(min(max(left, 0.0), 0.2))
            if self.process.poll() is not None:
                self._reader.join(STOP_SECONDS)
                raise AssertionError(f"{self!r} ended with {self.process.returncode}:\n{self.output()}")
            if left <= 0:
                raise AssertionError(f"{self!r} did not serve within {START_SECONDS} s:\n{self.output()}")


Ask = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a command that asks a gateway: the fixture `ask`."""


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def bad(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return done.stderr


def runs(pid: int) -> bool:
    """Whether a process runs; a corpse does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def descendants(pid: int) -> list[int]:
    """All processes that descend from one, its children first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found
