"""What a service manager is told (`sd_notify(3)`), and that it can always end the service."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Ask, Server, bad, descendants, fetch, good, runs
from sites import write
from watching import until

pytestmark = pytest.mark.once

CONFIG = """
listen = "127.0.0.1:0"
front = true

[apps.shop]
wsgi = "site_app"
dir = "one"

[sites."*"]
"/" = "shop"
"""

READY = "READY=1\nSTATUS=serving"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for version, name in enumerate(["one", "two"], start=1):
        (tmp_path / name).mkdir()
        write(tmp_path / name, version)
    (tmp_path / "hawksbill.toml").write_text(CONFIG)
    return tmp_path


class Manager:
    """A service manager's ear: each datagram, and who sent it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(60)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.senders: set[int] = set()

    def hear(self) -> str:
        said, credentials, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
        [(_, _, sender)] = credentials
        self.senders.add(struct.unpack("3i", sender)[0])
        return said.decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, runtime: Path) -> Iterator[Manager]:
    manager = Manager(str(runtime / "notify") if request.param == "path" else f"@{uuid.uuid4()}")
    yield manager
    manager.close()


def microseconds() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.fixture
def server(start: Callable[..., Server], project: Path, runtime: Path, manager: Manager) -> Server:
    env = {"XDG_RUNTIME_DIR": str(runtime), "NOTIFY_SOCKET": manager.name}
    return start("run", cwd=project, env=env)


def test_everything_that_happens_is_told_and_nothing_else(
    server: Server, ask: Ask, project: Path, manager: Manager
) -> None:
    assert manager.hear() == READY
    assert fetch(server.base).text == "1"

    def loads() -> None:
        """A configuration is loaded, between two notifications."""
        reloading = manager.hear()
        prefix, _, at = reloading.rpartition("=")
        assert prefix == "RELOADING=1\nMONOTONIC_USEC"
        assert began <= int(at) <= microseconds()
        assert manager.hear() == READY

    began = microseconds()
    server.process.send_signal(signal.SIGHUP)
    loads()
    began = microseconds()
    write(project / "one", 1, "raise RuntimeError('no shelf')")
    bad(ask("reload"))
    loads()
    write(project / "one", 1)
    began = microseconds()
    good(ask("deploy", "shop", "--dir", project / "two", "--probation", "0s", "--keep", "5m"))
    loads()
    # Nothing is loaded for these.
    good(ask("rollback", "shop"))
    good(ask("scale", "shop", "2"))
    config = (project / "hawksbill.toml").read_text()
    (project / "hawksbill.toml").write_text(config + "listne = 1\n")
    bad(ask("upgrade"))
    (project / "hawksbill.toml").write_text(config)
    # The program that has taken over loads it.
    began = microseconds()
    good(ask("upgrade"))
    loads()
    good(ask("stop"))
    assert manager.hear() == "STOPPING=1"
    assert server.ended() == 0
    # The main process has never been another one.
    assert manager.senders == {server.process.pid}


def test_a_start_that_is_broken_off_is_told(
    start: Callable[..., Server], project: Path, runtime: Path, manager: Manager
) -> None:
    slow = f"import time; open({str(project / 'begun')!r}, 'w').close(); time.sleep(600)"
    write(project / "one", 1, slow)
    env = {"XDG_RUNTIME_DIR": str(runtime), "NOTIFY_SOCKET": manager.name}
    server = Server("run", cwd=project, env=env)

    def end() -> None:
        until((project / "begun").exists)
        server.process.send_signal(signal.SIGTERM)

    server.wake = end
    with pytest.raises(AssertionError, match="SIGTERM before the applications had started"):
        server.__enter__()
    assert manager.hear() == "STOPPING=1"


def trials(server: Server) -> list[int]:
    """The programs that are tried out now."""

    def is_one(pid: int) -> bool:
        try:
            return b"HAWKSBILL_RESUME_TRIAL=1" in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    return [pid for pid in descendants(server.process.pid) if is_one(pid)]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_program_on_trial_holds_nothing_up(
    start: Callable[..., Server], project: Path, runtime: Path, name: str
) -> None:
    manager = Manager(str(runtime / "notify"))
    env = {"XDG_RUNTIME_DIR": str(runtime), "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"}
    server = start("run", cwd=project, env=env)
    assert manager.hear() == READY
    config = project / "hawksbill.toml"
    # Who reads it waits for somebody who writes.
    config.unlink()
    os.mkfifo(config)
    server.process.send_signal(signal.SIGUSR2)
    until(lambda: trials(server) != [])
    [trial] = trials(server)
    for _ in range(5):
        while manager.hear() != "WATCHDOG=1":
            pass
    assert trials(server) == [trial]
    assert fetch(server.base).text == "1"
    server.process.send_signal(getattr(signal, name))
    assert server.ended() == 0
    assert not runs(trial)
    assert "the supervisor was told to end" in server.output()
    heard = manager.hear()
    while heard == "WATCHDOG=1":
        heard = manager.hear()
    assert heard == "STOPPING=1"
    manager.close()
