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
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PRINT_SECONDS = 60.0
LIFE_SECONDS = 1800.0
"""After this a server is killed, whatever the test still wanted of it."""


class Server:
    """A process `hawksbill ARGUMENTS`, listening on a free port of the loopback.

    Use it as a context manager: on entry it serves, on exit it has ended.

    `cwd` is a directory without a package `hawksbill`, so that `-m hawksbill` finds the
    installed one; a checkout's own has no compiled part.

    `interpreter` are flags of Python, or a debugger that goes before the command.

    `through` is a command that becomes this one at its end; `wake` is called once it has
    been started, for one that waits for something from outside first.
    """

    def __init__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = TESTS,
        listeners: int = 1,
        interpreter: Sequence[str] = (),
        through: Sequence[str | Path] = (),
        wake: Callable[[], object] | None = None,
    ) -> None:
        self._arguments: Sequence[str | Path] = arguments
        # A developer's own settings of the server are none of a test's.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
        # People read what tests look for. And what Python has compiled it takes for a file that was changed
        # within the same second and is as long as before: tests change files so.
        usual = {"HAWKSBILL_LOG_FORMAT": "text", "PYTHONDONTWRITEBYTECODE": "1"}
        self._env = {**kept, **usual, **(env or {})}
        self._cwd = cwd
        self._listeners = listeners
        self._through = through
        self._command = [sys.executable, *interpreter, "-m", "hawksbill"]
        self.wake = wake
        self._lines: list[str] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(
            [*map(str, self._through), *self._command, *map(str, self._arguments)],
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
            if self.wake is not None:
                self.wake()
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

    def wait_for(self, pattern: str, seconds: float = PRINT_SECONDS) -> re.Match[str]:
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
            # Nothing is encrypted, and who loads the certificates of all authorities takes 20 ms for it.
            verify=False,
        )

    def connect(self) -> socket.socket:
        """A TCP connection to the first address."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def _processes(self) -> list[Path]:
        """What `/proc` has of the supervisor and of all that it has started."""
        return [Path(f"/proc/{pid}") for pid in (self.process.pid, *descendants(self.process.pid))]

    def memory(self) -> int:
        """The bytes that all processes have in RAM, of shared pages their share."""
        return sum(_bytes(process / "smaps_rollup", "Pss") for process in self._processes())

    def peak(self) -> int:
        """The most bytes that each process has had in RAM, all together."""
        return sum(_bytes(process / "status", "VmHWM") for process in self._processes())

    def forget_peak(self) -> None:
        """Makes the kernel count the peaks anew."""
        for process in self._processes():
            (process / "clear_refs").write_text("5")

    def ended(self, seconds: float = 60.0) -> int:
        """Waits until it has ended by itself and all that it printed has been read; gives its exit status."""
        status = self.process.wait(seconds)
        # Whoever still has its standard output has to end too.
        self._reader.join(seconds)
        assert not self._reader.is_alive(), f"{self!r} has ended, and somebody has its output still"
        return status

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


def fetch(url: str, headers: Mapping[str, str] | None = None, timeout: float = 60) -> httpx.Response:
    """Asks once, over a connection of its own; see `Server.client` for what that leaves out."""
    return httpx.get(url, headers=headers, timeout=timeout, trust_env=False, verify=False)


def unix_client(path: Path) -> httpx.Client:
    """A client of the HTTP server at a Unix socket."""
    transport = httpx.HTTPTransport(uds=str(path), verify=False, trust_env=False)
    return httpx.Client(base_url="http://hawksbill", transport=transport, timeout=60, trust_env=False)


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


def _bytes(file: Path, name: str) -> int:
    """A number of a file in `/proc` that says it in kB; of a process that has just ended it is 0."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def descendants(pid: int) -> list[int]:
    """All processes that descend from one, its children first."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """The processes that one has started and not taken leave of; of one that has ended there are none."""
    found: list[int] = []
    # A thread may end while this looks at it.
    with suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found
