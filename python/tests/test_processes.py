"""Processes: workers, reloads, deaths, and what a new generation has to prove before it serves."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from harness import COMMAND, Server

APP = """
import os

VERSION = {version}

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [f"{{VERSION}}".encode()]
"""


def write(directory: Path, version: int, more: str = "") -> None:
    (directory / "site_app.py").write_text(APP.format(version=version) + dedent(more))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path, 0)
    return tmp_path


@pytest.fixture
def start(project: Path) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def serve(*flags: str) -> Server:
        server = Server("run", "site_app", "--listen", "127.0.0.1:0", *flags, cwd=project)
        running.append(server.__enter__())
        return server

    yield serve
    for server in running:
        server.stop()


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds} s"
        time.sleep(0.02)


class Load:
    """Clients that keep their connections, and some that do not, until told to stop."""

    def __init__(self, server: Server, clients: int = 4) -> None:
        self._server = server
        self._over = threading.Event()
        self.failures: list[str] = []
        self.answers: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keeps: bool) -> None:
        connection = None
        while not self._over.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read().decode()
                if answer.status == 200:
                    self.answers.append(body)
                else:
                    self.failures.append(f"{answer.status} {body}")
                if not keeps or answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = None


def test_workers_share_a_socket(start: Callable[..., Server]) -> None:
    server = start("--workers", "3")

    def pids() -> set[str]:
        return {httpx.get(server.base, trust_env=False).headers["x-pid"] for _ in range(10)}

    seen: set[str] = set()

    def all_seen() -> bool:
        seen.update(pids())
        return len(seen) == 3

    until(all_seen)
    assert str(server.process.pid) not in seen


def test_a_reload_loses_nothing(start: Callable[..., Server], project: Path) -> None:
    server = start("--workers", "2")
    with Load(server) as load:
        for version in range(1, 6):
            write(project, version)
            server.process.send_signal(signal.SIGHUP)
            until(lambda version=version: load.answers[-20:].count(str(version)) == 20)  # type: ignore[misc]
    assert load.failures == []
    assert {int(answer) for answer in load.answers} == set(range(6))


@pytest.mark.parametrize(
    ("more", "flags", "said"),
    [
        ("def broken(:\n", (), "SyntaxError"),
        ("raise RuntimeError('no shelf')\n", (), "no shelf"),
        ("import time\ntime.sleep(600)\n", ("--start-timeout", "2s"), "2 s"),
    ],
    ids=["syntax", "import", "hangs"],
)
def test_a_new_generation_that_fails_leaves_the_old(
    start: Callable[..., Server], project: Path, more: str, flags: tuple[str, ...], said: str
) -> None:
    server = start(*flags)
    with Load(server, clients=2) as load:
        write(project, 1, more)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the old generation goes on")
        assert said in server.output()
        write(project, 2)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: load.answers[-1] == "2")
    assert load.failures == []
    assert set(load.answers) == {"0", "2"}


def test_readiness_is_asked_before_a_generation_serves(start: Callable[..., Server], project: Path) -> None:
    answers = """
        def application(environ, start_response):
            status = "503 Not Yet" if environ["PATH_INFO"] == "/ready" else "200 OK"
            start_response(status, [])
            return [b"1"]
        """
    server = start("--ready", "/ready", "--start-timeout", "5s")
    write(project, 1, answers)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("the old generation goes on", 30)
    assert "/ready answers 503" in server.output()
    assert httpx.get(server.base, trust_env=False).text == "0"


def test_a_first_start_that_fails_ends_the_program(project: Path) -> None:
    write(project, 0, "raise RuntimeError('no shelf')\n")
    command = [*COMMAND, "run", "site_app", "--listen", "127.0.0.1:0", "--workers", "2"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no shelf" in ended.stderr
    assert "site_app.py" in ended.stderr


def test_a_worker_that_dies_is_replaced_at_once(start: Callable[..., Server]) -> None:
    server = start("--workers", "2")

    def pid() -> str:
        try:
            return httpx.get(server.base, trust_env=False).headers["x-pid"]
        except httpx.TransportError:
            return ""

    for _ in range(3):
        victim = int(pid())
        os.kill(victim, signal.SIGKILL)
        until(lambda: len({pid() for _ in range(12)} - {""}) == 2)
    assert server.output().count("SIGKILL") == 3


def test_a_recycled_worker_is_not_missed(start: Callable[..., Server], project: Path) -> None:
    config = """
        listen = "127.0.0.1:0"
        [apps.site]
        wsgi = "site_app"
        recycle = { requests = 300, jitter = "10%" }
        [sites."*"]
        "/" = "site"
        """
    (project / "hawksbill.toml").write_text(dedent(config))
    with Server("run", cwd=project) as server, Load(server) as load:
        server.wait_for(r"is replaced: .*requests(?s:.)*is replaced: .*requests", 20)
    assert load.failures == []


def test_a_worker_that_hangs_is_replaced(start: Callable[..., Server], project: Path) -> None:
    hangs = """
        import threading

        def application(environ, start_response, plain=application):
            if environ["PATH_INFO"] == "/hangs":
                threading.Event().wait()
            return plain(environ, start_response)
        """
    write(project, 0, hangs)
    server = start("--timeout", "1s", "--drain", "1s")
    first = httpx.get(server.base, trust_env=False).headers["x-pid"]
    with Load(server, clients=2) as load:
        assert httpx.get(f"{server.base}/hangs", trust_env=False, timeout=30).status_code == 504
        server.wait_for(r"hangs and is replaced: GET /hangs")
        until(lambda: httpx.get(server.base, trust_env=False).headers["x-pid"] != first)
    assert load.failures == []
    # Its stack is in the log.
    assert "threading.Event().wait()" in server.output() or "in application" in server.output()


def test_no_worker_outlives_its_supervisor(start: Callable[..., Server]) -> None:
    server = start()
    worker = int(httpx.get(server.base, trust_env=False).headers["x-pid"])
    server.process.kill()
    server.process.wait(10)

    def is_gone() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        # Nobody but the first process of the machine is left to take its status.
        return "(zombie)" in Path(f"/proc/{worker}/status").read_text()

    until(is_gone)


def test_the_environment_of_an_application_is_its_own(project: Path) -> None:
    shown = """
        def application(environ, start_response):
            start_response("200 OK", [])
            return [f"{os.environ.get('COLOUR')} {os.getuid()}".encode()]
        """
    write(project, 0, shown)
    config = """
        listen = "127.0.0.1:0"
        [apps.site]
        wsgi = "site_app"
        env = { COLOUR = "green" }
        limits = { files = 500 }
        [sites."*"]
        "/" = "site"
        """
    (project / "hawksbill.toml").write_text(dedent(config))
    with Server("run", cwd=project, env={"COLOUR": "red"}) as server:
        assert httpx.get(server.base, trust_env=False).text == f"green {os.getuid()}"


def test_an_application_has_a_group_of_its_own(project: Path) -> None:
    """A group and not a user: the Python that runs the tests may be one that only its owner can read."""
    shown = """
        def application(environ, start_response):
            start_response("200 OK", [])
            return [f"{os.getgid()} {os.getgroups()}".encode()]
        """
    write(project, 0, shown)
    command = ["run", "site_app", "--listen", "127.0.0.1:0", "--group", "65534"]
    if os.getuid() != 0:
        ended = subprocess.run([*COMMAND, *command], cwd=project, capture_output=True, text=True, timeout=60)
        assert "cannot set the groups" in ended.stderr
        return
    with Server(*command, cwd=project) as server:
        assert httpx.get(server.base, trust_env=False).text == "65534 [65534]"


def test_check_says_which_processes_there_will_be(project: Path) -> None:
    command = [*COMMAND, "check", "site_app", "--workers", "3"]
    checked = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert "processes site_app: workers=3 (each worker is a whole gateway" in checked.stdout
