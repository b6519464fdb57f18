"""Processes: workers, reloads, deaths, and what a new generation has to prove before it serves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from harness import COMMAND, Server, descendants, fetch, runs
from sites import write
from watching import Load, until


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


def test_workers_share_a_socket(start: Callable[..., Server]) -> None:
    server = start("--workers", "3")

    def pids() -> set[str]:
        return {fetch(server.base).headers["x-pid"] for _ in range(10)}

    seen: set[str] = set()

    def all_seen() -> bool:
        seen.update(pids())
        return len(seen) == 3

    until(all_seen)
    assert str(server.process.pid) not in seen


def test_a_reload_loses_nothing(start: Callable[..., Server], project: Path) -> None:
    server = start("--workers", "2")
    with Load(server) as load:
        load.goes_on()
        for version in range(1, 4):
            write(project, version)
            server.process.send_signal(signal.SIGHUP)
            until(lambda version=version: load.answers[-20:].count(str(version)) == 20)  # type: ignore[misc]
    assert load.failures == []
    assert {int(answer) for answer in load.answers} == set(range(4))


TIMED = """
listen = "127.0.0.1:0"
[apps.site]
wsgi = "site_app"
start_timeout = "{timeout}"
[sites."*"]
"/" = "site"
"""


@pytest.mark.parametrize(
    ("more", "timeout", "said"),
    [
        ("def broken(:\n", "1m", "SyntaxError"),
        ("raise RuntimeError('no shelf')\n", "1m", "no shelf"),
        ("import time\ntime.sleep(600)\n", "1s", "1 s: it is still importing the application"),
    ],
    ids=["syntax", "import", "hangs"],
)
def test_a_new_generation_that_fails_leaves_the_old(
    project: Path, more: str, timeout: str, said: str
) -> None:
    config = project / "hawksbill.toml"
    config.write_text(TIMED.format(timeout="1m"))
    with Server("run", cwd=project) as server, Load(server, clients=2) as load:
        load.goes_on()
        write(project, 1, more)
        # Only what is not to start has little time for it.
        config.write_text(TIMED.format(timeout=timeout))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the old generation goes on")
        server.wait_for(said)
        assert server.output().count("Traceback") <= 1
        write(project, 2)
        config.write_text(TIMED.format(timeout="1m"))
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
    server.wait_for("the old generation goes on")
    server.wait_for("it was not ready after 5 s: /ready of application site_app answers 503")
    assert fetch(server.base).text == "0"


def test_a_first_start_that_fails_ends_the_program(project: Path) -> None:
    write(project, 0, "raise RuntimeError('no shelf')\n")
    command = [*COMMAND, "run", "site_app", "--listen", "127.0.0.1:0", "--workers", "2"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "no shelf" in ended.stderr
    assert "site_app.py" in ended.stderr
    # Once is enough.
    assert ended.stderr.count("Traceback") == 1


def test_a_worker_that_dies_is_replaced_at_once(start: Callable[..., Server]) -> None:
    server = start("--workers", "2")

    def pid() -> str:
        try:
            return fetch(server.base).headers["x-pid"]
        except httpx.TransportError:
            return ""

    def two_serve(ended: set[str]) -> bool:
        serving = {pid() for _ in range(12)} - {""}
        return len(serving) == 2 and serving.isdisjoint(ended)

    ended: set[str] = set()
    for _ in range(3):
        until(partial(two_serve, ended))
        victim = pid()
        os.kill(int(victim), signal.SIGKILL)
        ended.add(victim)
    until(partial(two_serve, ended))
    server.wait_for(r"(?s)(SIGKILL.*){3}")
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
        server.wait_for(r"is replaced: .*requests(?s:.)*is replaced: .*requests")
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
    # Not so short that a request of the others could be late by itself.
    server = start("--timeout", "2s", "--drain", "1s")
    first = fetch(server.base).headers["x-pid"]
    with Load(server, clients=2) as load:
        assert fetch(f"{server.base}/hangs").status_code == 504
        server.wait_for(r"hangs and is replaced: GET /hangs")
        until(lambda: fetch(server.base).headers["x-pid"] != first)
    assert load.failures == []
    # Its stack is in the log.
    server.wait_for(r'^ +File ".*site_app\.py", line \d+, in application$')
    # It would have ten seconds beyond the drain time to end by itself, and never will.
    with suppress(ProcessLookupError):
        os.kill(int(first), signal.SIGKILL)


@contextmanager
def in_the_background() -> Iterator[None]:
    """What is started here ignores what the background of a script ignores, and blocks another signal."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in former.items():
            signal.signal(number, handler)


def test_processes_begin_with_the_usual_signals(project: Path) -> None:
    shown = """
        def application(environ, start_response):
            start_response("200 OK", [])
            return [open("/proc/self/status", "rb").read()]
        """
    write(project, 0, shown)
    config = """
        listen = "127.0.0.1:0"
        [apps.site]
        wsgi = "site_app"
        [services.nap]
        command = "sleep 1000"
        [sites."*"]
        "/" = "site"
        """
    (project / "hawksbill.toml").write_text(dedent(config))

    def signals(status: str) -> tuple[int, int]:
        """Those that are ignored, and those that are blocked: as in /proc/PID/status.

        The first 31: the two after them are the C library's own, and its posix_spawn ignores them.
        """
        lines = dict(line.split(":", 1) for line in status.splitlines())
        usual = (1 << 31) - 1
        return int(lines["SigIgn"], 16) & usual, int(lines["SigBlk"], 16) & usual

    with in_the_background():
        server = Server("run", cwd=project)
        server.__enter__()
    try:
        supervisor = Path(f"/proc/{server.process.pid}/status").read_text()
        assert signals(supervisor)[0] & 1 << signal.SIGQUIT - 1, "the test's own signals did not arrive"
        naps: list[str] = []

        def naps_now() -> bool:
            # It begins as the launcher.
            naps.clear()
            for pid in descendants(server.process.pid):
                with suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    naps.extend([status] if status.startswith("Name:\tsleep\n") else [])
            return len(naps) == 1

        until(naps_now)
        assert signals(naps[0]) == (0, 0)
        worker = signals(fetch(server.base).text)
        # What Python itself ignores is its own affair.
        assert not worker[0] & (1 << signal.SIGQUIT - 1 | 1 << signal.SIGINT - 1)
        assert not worker[1] & 1 << signal.SIGWINCH - 1
    finally:
        server.stop()


def test_no_worker_outlives_its_supervisor(start: Callable[..., Server]) -> None:
    server = start()
    worker = int(fetch(server.base).headers["x-pid"])
    server.process.kill()
    server.process.wait(10)
    # Nobody but the first process of the machine is left to take its status.
    until(lambda: not runs(worker))


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
        assert fetch(server.base).text == f"green {os.getuid()}"


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
        assert fetch(server.base).text == "65534 [65534]"


def test_check_says_which_processes_there_will_be(project: Path) -> None:
    command = [*COMMAND, "check", "site_app", "--workers", "3"]
    checked = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert "processes site_app: workers=3 (each worker is a whole gateway" in checked.stdout
