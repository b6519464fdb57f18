"""A preloaded application under load, whatever is done to it: no request fails, and nothing grows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import Ask, Server, descendants, good, runs
from sites import Answers
from sites import write_who as write
from watching import Load, pids, preloader, settled, until

CONFIG = """
listen = "127.0.0.1:0"
front = {front}

[apps.shop]
wsgi = "wsgi"
dir = "one"
workers = 2
preload = true
recycle = {{ requests = {requests}, jitter = "20%" }}

[sites."*"]
"/" = "shop"
"""

CLIENTS = 4
NEVER = 1_000_000_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two versions of one project, each in its directory."""
    for version, name in enumerate(["one", "two"], start=1):
        (tmp_path / name).mkdir()
        write(tmp_path / name, version)
    return tmp_path


Serve = Callable[..., Server]


@pytest.fixture(params=["false", "true"], ids=["fused", "front"])
def serve(
    request: pytest.FixtureRequest, start: Callable[..., Server], project: Path, runtime: Path
) -> Serve:
    def serve(requests: int = NEVER) -> Server:
        config = CONFIG.format(front=request.param, requests=requests)
        (project / "hawksbill.toml").write_text(config)
        return start("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})

    return serve


def gone(ask: Ask, pid: int, state: str) -> bool:
    return not runs(pid) and pid not in pids(ask, state=state)


def replaced(server: Server) -> int:
    """How many workers have been recycled."""
    return server.output().count("is replaced: ")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_changes_lose_nothing(serve: Serve, ask: Ask) -> None:
    server = serve()
    answers = Answers(server)
    with Load(server, CLIENTS) as load:
        for _ in range(2):
            good(ask("deploy", "shop", "--dir", "two", "--probation", "0.2s"))
            assert answers.ask() == "2"
            load.goes_on()
            assert "serves again" in good(ask("rollback", "shop"))
            # Nothing is started and nobody waited for: whoever serves hears of it at about this time.
            until(lambda: answers.ask() == "1")
            load.goes_on()
            good(ask("reload"))
            assert answers.ask() == "1"
            load.goes_on()
            assert f"serves (pid {server.process.pid})" in good(ask("upgrade"))
            assert answers.ask() == "1"
            load.goes_on()
    assert load.failures == []
    until(lambda: settled(ask))
    # Each worker was forked: whoever has answered is not the process that has imported.
    whole = {tuple(answer.split()[:2]) for answer in load.answers}
    assert whole
    assert all(importer != worker for importer, worker in whole)
    # No former process is left.
    rest = {int(pid) for pair in whole for pid in pair} - pids(ask) - {preloader(ask)}
    assert len(rest) > 10
    until(lambda: not [pid for pid in rest if runs(pid)])
    until(lambda: not [pid for pid in descendants(server.process.pid) if not runs(pid)])


def test_recycling_loses_nothing_and_nothing_grows(serve: Serve, ask: Ask) -> None:
    server = serve(requests=60)
    origin = preloader(ask)

    def size() -> int:
        until(lambda: settled(ask))
        resident = Path(f"/proc/{origin}/statm").read_text().split()[1]
        return int(resident) * os.sysconf("SC_PAGE_SIZE")

    with Load(server, CLIENTS) as load:
        until(lambda: replaced(server) >= 4, 120)
    before, files, held = size(), open_files(origin), open_files(server.process.pid)
    with Load(server, CLIENTS) as more:
        until(lambda: replaced(server) >= 12, 240)
    after = size()
    assert load.failures + more.failures == []
    assert preloader(ask) == origin
    assert after <= before + 1_000_000, f"the preloader has grown from {before} to {after}"
    until(lambda: open_files(origin) <= files and open_files(server.process.pid) <= held)


def test_reloads_leave_nothing(serve: Serve, ask: Ask) -> None:
    server = serve()

    def reloaded(times: int) -> int:
        for _ in range(times):
            good(ask("reload"))
        until(lambda: settled(ask))
        Answers(server).until_all(pids(ask))
        return server.memory()

    before, held = reloaded(2), open_files(server.process.pid)
    after = reloaded(3)
    assert after < before * 1.1, f"{before} {after}"
    until(lambda: open_files(server.process.pid) <= held)


def test_the_death_of_the_preloader_is_nobodys_loss(serve: Serve, ask: Ask) -> None:
    server = serve()
    with Load(server, CLIENTS) as load:
        for count in range(3, 5):
            before, origin = pids(ask), preloader(ask)
            os.kill(origin, signal.SIGKILL)
            until(partial(gone, ask, origin, "preloaded"))
            assert pids(ask) == before
            # It is missed when there is one more worker to be forked.
            good(ask("scale", "shop", str(count)))
            until(partial(settled, ask, count))
            assert before < pids(ask)
            assert preloader(ask) != origin
    assert load.failures == []


def test_a_killed_worker_costs_what_it_was_at(serve: Serve, ask: Ask) -> None:
    server = serve()
    origin = preloader(ask)
    for _ in range(3):
        victim = min(pids(ask))
        with Load(server, CLIENTS) as load:
            load.goes_on(50)
            os.kill(victim, signal.SIGKILL)
            until(partial(gone, ask, victim, "serving"))
            until(partial(settled, ask))
            load.goes_on(50)
        # One request, or connection, of each client at most.
        assert len(load.failures) <= CLIENTS, load.failures
    assert preloader(ask) == origin
