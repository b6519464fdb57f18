"""The first process of a container: it takes orphans in, obeys signals, and leaves nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import Server, children, descendants, fetch, runs
from watching import until

pytestmark = pytest.mark.once

APP = """
import os
import threading

VERSION = {version}
HERE = os.path.dirname(os.path.abspath(__file__))

def double_fork():
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            # Ends when somebody opens the other end.
            os.execlp("sh", "orphan", "-c", ": < " + HERE + "/door")
        os._exit(0)
    os.waitpid(child, 0)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        double_fork()
    elif environ["PATH_INFO"] == "/slow":
        open(HERE + "/begun", "w").close()
        with open(HERE + "/gate") as gate:
            gate.read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{VERSION}} {{os.getppid()}}".encode()]
"""

CONFIG = """
listen = "127.0.0.1:0"
front = {front}
drain = "5m"

[apps.shop]
wsgi = "site_app"
threads = 4

[sites."*"]
"/" = "shop"

[services.nap]
command = "sleep 600"
"""


def write(project: Path, version: int) -> None:
    (project / "site_app.py").write_text(APP.format(version=version))


@pytest.fixture(params=["false", "true"], ids=["fused", "front"])
def server(
    request: pytest.FixtureRequest, start: Callable[..., Server], tmp_path: Path, runtime: Path
) -> Server:
    write(tmp_path, 1)
    (tmp_path / "hawksbill.toml").write_text(CONFIG.format(front=request.param))
    os.mkfifo(tmp_path / "door")
    os.mkfifo(tmp_path / "gate")
    through = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    if os.geteuid() != 0:
        through += ["--user", "--map-root-user"]
    return start("run", cwd=tmp_path, env={"XDG_RUNTIME_DIR": str(runtime)}, through=through)


def first(server: Server) -> int:
    """Its number out here; inside it is 1."""
    return descendants(server.process.pid)[0]


def ask(server: Server, path: str) -> str:
    response = fetch(server.base + path, timeout=120)
    assert response.status_code == 200
    return response.text


def orphans(server: Server) -> list[int]:
    def is_one(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"orphan\0")
        except OSError:
            return False

    return [pid for pid in children(first(server)) if is_one(pid)]


def open_up(fifo: Path) -> None:
    """Lets the one who waits there go on, or is about to."""
    with fifo.open("w"):
        pass


def wait_gone(pid: int) -> None:
    """Waits until not even its corpse is left."""
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_orphans_are_taken_in_and_reaped(server: Server, tmp_path: Path) -> None:
    assert ask(server, "/") == "1 1"
    before = children(first(server))
    for turn in (1, 2):
        ask(server, "/orphan")
        until(lambda: len(orphans(server)) == 1)
        [orphan] = orphans(server)
        open_up(tmp_path / "door")
        wait_gone(orphan)
        # A program that is tried out is a child too, whose end somebody else waits for.
        write(tmp_path, 2)
        os.kill(first(server), signal.SIGUSR2)
        server.wait_for(rf"(?s)(the new generation serves.*){{{turn}}}")
        assert ask(server, "/") == "2 1"
    until(lambda: len(children(first(server))) == len(before))
    os.kill(first(server), signal.SIGTERM)
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_drains_and_leaves_nothing(server: Server, tmp_path: Path, name: str) -> None:
    ask(server, "/orphan")
    until(lambda: len(orphans(server)) == 1)
    [orphan] = orphans(server)
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(ask(server, "/slow")))
    client.start()
    until((tmp_path / "begun").exists)
    all_of_it = descendants(server.process.pid)
    os.kill(first(server), getattr(signal, name))
    server.wait_for(f"{name}: no new connections, finishing the requests under way")
    assert runs(first(server))
    assert answers == []
    open_up(tmp_path / "gate")
    client.join(60)
    assert answers == ["1 1"]
    assert server.process.wait(60) == 0
    assert orphan in all_of_it
    until(lambda: not any(map(runs, all_of_it)))


def test_a_second_signal_is_obeyed_at_once(server: Server, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def client() -> None:
        try:
            response = fetch(server.base + "/slow", timeout=120)
            outcomes.append(str(response.status_code))
        except httpx.HTTPError:
            outcomes.append("cut")

    thread = threading.Thread(target=client)
    thread.start()
    until((tmp_path / "begun").exists)
    all_of_it = descendants(server.process.pid)
    for word in ("no new connections", "connections are cut now"):
        os.kill(first(server), signal.SIGTERM)
        server.wait_for(word)
    assert server.process.wait(60) == 0
    thread.join(60)
    # A front has the time to say that nobody answers.
    assert outcomes in (["cut"], ["502"])
    until(lambda: not any(map(runs, all_of_it)))
