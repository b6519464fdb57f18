"""Processes: what a tree of them has used, what the cores did, and a server from its start to its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20.0
STOP_SECONDS = 5.0

HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The connection preface with empty SETTINGS (RFC 9113, section 3.4)."""


class Failed(Exception):
    """A server or a load did not do what it was there for; the text says what."""


@dataclass(frozen=True)
class Process:
    """What `/proc/PID/stat` says of a process."""

    pid: int
    parent: int
    session: int
    seconds: float
    """User and system time, children that have ended included."""


def processes() -> Iterator[Process]:
    """All processes that there are."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        # It may have ended since.
        with suppress(OSError):
            # The name, in parentheses, may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            seconds = sum(map(int, fields[11:15])) / TICKS
            yield Process(int(entry.name), int(fields[1]), int(fields[3]), seconds)


def tree(root: int) -> list[Process]:
    """A session's leader, its session, and whoever descends from these."""
    everyone = list(processes())
    pids: set[int] = {process.pid for process in everyone if process.session == root}
    while more := {process.pid for process in everyone if process.parent in pids} - pids:
        pids |= more
    return [process for process in everyone if process.pid in pids]


def cpu_seconds(root: int) -> float:
    """User and system time of a tree."""
    return sum(process.seconds for process in tree(root))


@dataclass(frozen=True)
class InRam:
    """Bytes in RAM of a tree."""

    pss: int
    """What n processes share counts 1/n each."""
    rss: int
    """What they share counts for each."""


def in_ram(root: int) -> InRam:
    """What a tree has in RAM."""
    sums = {"Pss:": 0, "Rss:": 0}
    for process in tree(root):
        with suppress(OSError):
            for line in (PROC / str(process.pid) / "smaps_rollup").read_text().splitlines():
                name, *values = line.split()
                if name in sums:
                    sums[name] += int(values[0]) * 1024
    return InRam(pss=sums["Pss:"], rss=sums["Rss:"])


def pss(root: int) -> int:
    """Bytes in RAM of a tree; what n processes share counts 1/n each."""
    return in_ram(root).pss


def busy_seconds(cores: set[int]) -> float:
    """How long these cores have worked since the machine started, for whomever; stolen time included."""
    total = 0.0
    for line in (PROC / "stat").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _wait, interrupt, soft, steal = map(int, values[:8])
            total += (user + nice + system + interrupt + soft + steal) / TICKS
    return total


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started within runs on this core; `None`: on any."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class RunningServer:
    """A server that serves on entry and whose tree has ended on exit."""

    def __init__(
        self,
        words: Sequence[str],
        port: int,
        core: int | None,
        cwd: Path,
        env: Mapping[str, str],
        http2: bool = False,
    ) -> None:
        self._words = words
        self._core = core
        self._cwd = cwd
        self._env = env
        self._http2 = http2
        self.port = port
        self.start_seconds = 0.0
        """From its start to its first answer."""

    def __enter__(self) -> RunningServer:
        self._output = tempfile.TemporaryFile()
        self._since = time.perf_counter()
        try:
            with pinned(self._core):
                self._process = subprocess.Popen(
                    self._words,
                    cwd=self._cwd,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    start_new_session=True,
                )
        except OSError as error:
            raise Failed(f"{self._words[0]} cannot be started: {error}") from error
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that was started; it leads the tree's session."""
        return self._process.pid

    def ended(self) -> str | None:
        """How it ended, and the last of what it said; `None`: it runs."""
        status = self._process.poll()
        return None if status is None else f"it ended with status {status}: {self._said()}"

    def check(self) -> None:
        """Raises `Failed` if it has ended."""
        if told := self.ended():
            raise Failed(told)

    def stop(self) -> None:
        """Asks the tree to end, and makes it end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Whoever of its session has outlived it.
        for process in tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    def _wait(self) -> None:
        while time.perf_counter() - self._since < START_SECONDS:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                # With nothing said of closing, which one peer does not survive.
                probe.sendall(HTTP2_HELLO if self._http2 else b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if probe.recv(64):
                    self.start_seconds = time.perf_counter() - self._since
                    return
            time.sleep(0.005)
        raise Failed(f"it gave no answer within {START_SECONDS:.0f} s: {self._said()}")

    def _said(self) -> str:
        self._output.seek(0)
        text = self._output.read().decode(errors="replace").strip()
        return text[-300:] or "it said nothing"
