"""Deaths by kill -9: what each costs, what takes over, and what is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from harness import Ask, Server, descendants, fetch, runs, unix_client
from watching import Load, free_port, pids, processes, until, until_whole_again

pytestmark = pytest.mark.once

APP = """
import os

HERE = os.path.dirname(os.path.abspath(__file__))

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open(HERE + "/begun", "w").close()
        # Until somebody opens the other end.
        with open(HERE + "/gate") as gate:
            gate.read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]
"""

CONFIG = """
listen = ["127.0.0.1:{port}", "unix:{socket}"]
front = {front}
drain = "5m"
[apps.shop]
wsgi = "main"
workers = 2
threads = 4
[services.nap]
command = "sleep 1000"
[sites."*"]
"/" = "shop"
"""

BOTH = pytest.mark.parametrize("front", [False, True], ids=["fused", "front"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


Run = Callable[..., Server]


@pytest.fixture
def run(start: Callable[..., Server], project: Path, runtime: Path) -> Run:
    """Starts a gateway with two workers and a service; the same address is for whoever takes over."""
    same = free_port()

    def run(front: bool, port: int = same, path: Path = runtime / "web.sock", env: Path = runtime) -> Server:
        text = CONFIG.format(port=port, socket=path, front=str(front).lower())
        (project / "hawksbill.toml").write_text(text)
        return start("run", cwd=project, env={"XDG_RUNTIME_DIR": str(env)}, listeners=2)

    return run


class Slow:
    """A request that is under way until it is let go."""

    def __init__(self, server: Server, project: Path) -> None:
        self.result: str | None = None
        """The text of the answer, or what broke."""
        self._gate = project / "gate"
        self._url = f"{server.base}/slow"
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        until((project / "begun").exists)

    def _ask(self) -> None:
        try:
            self.result = fetch(self._url, timeout=300).text
        except httpx.TransportError as error:
            self.result = type(error).__name__

    def let_go(self) -> None:
        with self._gate.open("w"):
            pass

    def end(self) -> str | None:
        """How it ended."""
        self._thread.join()
        return self.result


def stands_still(pid: int) -> bool:
    """Whether all threads are stopped: a signal reaches one, and the others work until that one has run."""
    stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(") ")[2][0] == "T" for stat in stats)


def private(runtime: Path, pid: int) -> list[Path]:
    """Where the sockets between the front and the applications are."""
    places = (Path("/run"), runtime)
    return [found for place in places for found in place.glob(f"hawksbill-{pid}*")]


def at_socket(path: Path) -> str:
    """What is answered at a Unix socket."""
    with unix_client(path) as client:
        return client.get("http://hawksbill/").text


def test_killed_workers_leave_no_sockets(run: Run, ask: Ask) -> None:
    server = run(front=True)
    ended: set[int] = set()
    for _ in range(5):
        victim = min(pids(ask))
        os.kill(victim, signal.SIGKILL)
        ended.add(victim)
        until_whole_again(ask, ended)
    paths = [Path(process["info"]["path"]) for process in processes(ask)]
    until(lambda: sorted(paths[0].parent.iterdir()) == sorted(paths))
    server.wait_for(r"(?s)(SIGKILL.*){5}")
    assert server.output().count("SIGKILL") == 5


def test_a_front_that_is_killed_takes_its_connections_only(run: Run, ask: Ask, project: Path) -> None:
    server = run(front=True)
    workers = pids(ask)
    slow = Slow(server, project)
    with Load(server, clients=2, keep=False) as load:
        load.goes_on()
        for _ in range(3):
            (front,) = pids(ask, "front")
            os.kill(front, signal.SIGKILL)
            load.goes_on()
            until_whole_again(ask, {front}, "front", workers=1)
    # Each client has one request under way at most.
    assert len(load.failures) <= 2 * 3, load.failures
    assert not any(failure[:3].isdigit() or "Refused" in failure for failure in load.failures), load.failures
    assert slow.end() in ("RemoteProtocolError", "ReadError")
    # The worker is at it still, and would be waited for.
    slow.let_go()
    assert pids(ask) == workers


def test_connections_that_no_front_has_accepted_are_served_by_the_next(run: Run, ask: Ask) -> None:
    server = run(front=True)
    (front,) = pids(ask, "front")
    # It accepts nothing any more, and what comes waits in the socket's queue.
    os.kill(front, signal.SIGSTOP)
    until(lambda: stands_still(front))
    waiting = [server.connect() for _ in range(20)]
    for connection in waiting:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    os.kill(front, signal.SIGKILL)
    for connection in waiting:
        with connection, connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


@BOTH
def test_a_supervisor_that_is_killed_leaves_no_orphan_and_is_replaced(
    run: Run, ask: Ask, project: Path, runtime: Path, front: bool
) -> None:
    server = run(front)
    until(lambda: len(pids(ask, "nap")) == 1)
    (nap,) = pids(ask, "nap")
    started = descendants(server.process.pid)
    slow = Slow(server, project)
    with Load(server, clients=2, keep=False) as load:
        load.goes_on()
        # Nothing but the supervisor: its processes see that it is gone.
        server.process.kill()
        server.process.wait(10)
        successors: list[Server] = []

        def starts() -> bool:
            # Until they have seen it the address is in use.
            with suppress(AssertionError):
                successors.append(run(front))
            return bool(successors)

        # A service ends at once, and the socket is free while a request is still under way.
        until(starts)
        until(lambda: not runs(nap))
        (successor,) = successors
        assert successor.base == server.base
        load.goes_on()
        assert any(runs(pid) for pid in started)
        assert slow.result is None
        slow.let_go()
        assert slow.end() == "answered"
        until(lambda: not any(runs(pid) for pid in started))
        assert len(pids(ask)) == 2
    # What the former one has left does not disturb this one: it still answers at its sockets.
    assert at_socket(runtime / "web.sock") == "answered"
    assert successor.stop() == 0
    assert private(runtime, server.process.pid) == []


def test_the_directories_of_the_dead_are_swept(run: Run, runtime: Path) -> None:
    former = run(front=True)
    assert len(private(runtime, former.process.pid)) == 1
    left = descendants(former.process.pid)
    former.process.kill()
    former.process.wait()
    until(lambda: not any(map(runs, left)))
    # It is there still, unless any other gateway of this machine has begun meanwhile.
    server = run(front=True)
    assert private(runtime, former.process.pid) == []
    # Its own are there, also for those who start later, and after an upgrade.
    own = private(runtime, server.process.pid)
    assert len(own) == 1
    server.process.send_signal(signal.SIGUSR2)
    server.wait_for("the new generation serves")
    run(front=True, port=0, path=runtime / "other.sock", env=runtime / "other")
    assert private(runtime, server.process.pid) == own
    assert fetch(server.base).text == "answered"
    assert server.stop() == 0
    assert private(runtime, server.process.pid) == []
