"""`preload = true`: an application is imported once, and its workers are forked from that."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import COMMAND, Ask, Server, descendants, good, runs
from sites import WHO_WSGI, Answers
from sites import write_who as write
from watching import Load, pids, preloader, report, settled, until, until_whole_again

CONFIG = """
listen = "127.0.0.1:0"
front = {front}
[apps.shop]
{app}
workers = {workers}
preload = {preload}
{more}
[sites."*"]
"/" = "shop"
"""

BY_WSGI = 'wsgi = "wsgi"'
BY_DJANGO = 'django = "settings"'


def configure(
    project: Path,
    app: str = BY_WSGI,
    workers: int = 2,
    preload: bool = True,
    front: bool = False,
    more: str = "",
) -> None:
    def word(truth: bool) -> str:
        return str(truth).lower()

    text = CONFIG.format(app=app, workers=workers, preload=word(preload), front=word(front), more=more)
    (project / "hawksbill.toml").write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path)
    configure(tmp_path)
    return tmp_path


def serve(project: Path, runtime: Path) -> Server:
    return Server("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})


SHAPES = {
    "fused": {"app": BY_WSGI, "front": False},
    "front": {"app": BY_WSGI, "front": True},
    "django": {"app": BY_DJANGO, "front": False},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_workers_answer_with_what_was_imported_once(
    project: Path, runtime: Path, ask: Ask, shape: dict[str, Any]
) -> None:
    configure(project, workers=4, **shape)
    with serve(project, runtime) as server:
        workers = pids(ask)
        assert len(workers) == 4
        answers = Answers(server)
        answers.until_all(workers)
        assert answers.workers == workers
        assert answers.importers == {preloader(ask)}
        # They are the supervisor's own, which takes their exit status.
        answers.until_children_of(server.process.pid)
        # Python has given each random numbers of its own.
        assert len(set(answers.numbers)) == len(answers.numbers)
        everything = descendants(server.process.pid)
    until(lambda: not [pid for pid in everything if runs(pid)])


def memory(project: Path, runtime: Path, ask: Ask, preload: bool) -> int:
    """The bytes of all processes together, shared pages counted once, when all workers have answered."""
    configure(project, workers=4, preload=preload)
    with serve(project, runtime) as server:
        answers = Answers(server)
        for _ in range(10):
            answers.until_all(pids(ask))
            answers.workers.clear()
        return server.memory()


def test_workers_share_what_was_imported(project: Path, runtime: Path, ask: Ask) -> None:
    apart = memory(project, runtime, ask, preload=False)
    together = memory(project, runtime, ask, preload=True)
    part = together / apart
    print(f"4 workers, all processes: {apart / 1e6:.1f} MB, preloaded {together / 1e6:.1f} MB, {part:.0%}")
    assert part < 0.85, f"{apart} {together}"


def test_a_dead_worker_is_replaced_by_one_of_the_same_code(project: Path, runtime: Path, ask: Ask) -> None:
    with serve(project, runtime) as server:
        origin, ended = preloader(ask), set[int]()
        # Whatever is there by now, a generation is one version.
        write(project, 1)
        for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
            victim = min(pids(ask))
            os.kill(victim, how)
            ended.add(victim)
            until_whole_again(ask, ended)
        assert preloader(ask) == origin
        answers = Answers(server)
        answers.until_all(pids(ask))
        assert answers.ask() == "0"
        assert answers.importers == {origin}
        # All that ended have been taken leave of.
        until(lambda: not [pid for pid in descendants(server.process.pid) if not runs(pid)])


def test_more_workers_and_recycled_ones_are_forked_too(project: Path, runtime: Path, ask: Ask) -> None:
    configure(project, workers=1, more="recycle = { requests = 20 }")
    with serve(project, runtime) as server:
        origin, first = preloader(ask), pids(ask)
        good(ask("scale", "shop", "3"))

        def three_serve() -> bool:
            serving = pids(ask)
            return len(serving) == 3 and first <= serving

        until(three_serve)
        answers = Answers(server)

        def all_recycled() -> bool:
            for _ in range(20):
                answers.ask()
            return not first & pids(ask)

        until(all_recycled)
        assert preloader(ask) == origin
        assert answers.importers == {origin}


def test_a_reload_under_load_loses_nothing(project: Path, runtime: Path, ask: Ask) -> None:
    with serve(project, runtime) as server:
        origins = {preloader(ask)}
        with Load(server) as load:
            for version in range(1, 3):
                write(project, version)
                good(ask("reload"))
                answers = Answers(server)
                assert {answers.ask() for _ in range(5)} == {str(version)}
                # The one before is kept until nobody can go back to it any more.
                until(lambda: settled(ask))
                origins.add(preloader(ask))
        assert load.failures == []
        assert len(origins) == 3
        imported = {int(answer.split()[0]) for answer in load.answers}
        assert imported <= origins
        until(lambda: {pid for pid in origins if runs(pid)} == {preloader(ask)})


def test_workers_outlive_their_preloader(project: Path, runtime: Path, ask: Ask) -> None:
    with serve(project, runtime) as server:
        before, origin = pids(ask), preloader(ask)
        with Load(server) as load:
            os.kill(origin, signal.SIGKILL)
            server.wait_for("the process that its workers are forked from has ended")
            assert pids(ask) == before
            os.kill(min(before), signal.SIGKILL)
            until_whole_again(ask, {min(before)})
        # Some of the killed worker's own connections broke.
        assert len(load.failures) <= 4
        assert preloader(ask) != origin


REFUSED = {
    "thread": (
        "import threading as t\nt.Thread(target=t.Event().wait, daemon=True, name='clock').start()\n",
        r"the application started a thread while it was imported \(clock\); threads do not .*remove preload",
    ),
    "loop": (
        "import asyncio\nloop = asyncio.new_event_loop()\n",
        r"the application made an event loop \(asyncio\..*_UnixSelectorEventLoop\) while it was imported",
    ),
    "connection": (
        "import socket as s\na = s.create_server(('127.0.0.1', 0))\n"
        "b = s.create_connection(a.getsockname())\n",
        r"the application holds an open connection \(to 127\.0\.0\.1 port \d+\) after it was imported",
    ),
}


@pytest.mark.parametrize(("source", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_survive_a_fork_is_refused(
    project: Path, runtime: Path, ask: Ask, source: str, reason: str
) -> None:
    good_wsgi = (project / "wsgi.py").read_text()
    with serve(project, runtime) as server:
        before = pids(ask)
        (project / "wsgi.py").write_text(good_wsgi + source)
        refused = ask("reload")
        assert refused.returncode == 1
        assert re.search(reason, refused.stderr), refused.stderr
        assert pids(ask) == before
        assert Answers(server).ask() == "0"
    ended = run_to_its_end(project, runtime)
    assert ended.returncode == 1
    assert re.search(reason, ended.stdout), ended.stdout
    assert "hawksbill.toml:4:7: apps.shop" in ended.stdout
    # It is a matter of preloading alone.
    configure(project, preload=False)
    with serve(project, runtime) as server:
        assert Answers(server).ask() == "0"


def run_to_its_end(project: Path, runtime: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
    return subprocess.run(
        [*COMMAND, "run"],
        cwd=project,
        env={**kept, "XDG_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def test_a_database_that_was_looked_at_is_closed(project: Path, runtime: Path, ask: Ask) -> None:
    """Django warns of that itself, and many projects do it."""
    (project / "wsgi.py").write_text(
        WHO_WSGI + "from django.db import connection\nconnection.cursor().execute('select 1')\n"
        "opened = connection\nprint('opened', opened.connection is not None)\n"
    )
    urls = (project / "urls.py").read_text()
    urls = urls.replace("{os.getppid()}", "{os.getppid() if wsgi.opened.connection is None else 0}")
    (project / "urls.py").write_text("import wsgi\n" + urls)
    with serve(project, runtime) as server:
        server.wait_for("opened True")
        answers = Answers(server)
        answers.until_all(pids(ask))
        answers.until_children_of(server.process.pid)


def test_an_import_that_fails_is_told(project: Path, runtime: Path) -> None:
    (project / "urls.py").write_text("raise RuntimeError('no shelf')\n")
    ended = run_to_its_end(project, runtime)
    assert ended.returncode == 1
    assert "RuntimeError: no shelf" in ended.stdout


def test_no_orphan_is_left_when_the_supervisor_is_killed(project: Path, runtime: Path, ask: Ask) -> None:
    with serve(project, runtime) as server:
        everything = [preloader(ask), *pids(ask)]
        server.process.kill()
        until(lambda: not [pid for pid in everything if runs(pid)])


ASGI = """
import asyncio
import os

IMPORTED_BY = os.getpid()
started = []

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        started.append(os.getpid())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(0.01)
    said = f"{IMPORTED_BY} {os.getpid()} {os.getppid()} {started == [os.getpid()]}"
    headers = [(b"x-version", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said.encode()})
"""


def test_asgi_starts_in_each_worker(project: Path, runtime: Path, ask: Ask) -> None:
    (project / "main.py").write_text(ASGI)
    configure(project, app='asgi = "main"')
    with serve(project, runtime) as server:
        answers = Answers(server)
        answers.until_all(pids(ask))
        assert answers.importers == {preloader(ask)}
        assert set(answers.numbers) == {"True"}


def test_an_upgrade_takes_the_preloader_along(project: Path, runtime: Path, ask: Ask) -> None:
    with serve(project, runtime) as server:
        origin, before = preloader(ask), pids(ask)
        # The new program's own processes do not start, so it goes on with the former one's.
        (project / "urls.py").write_text("raise RuntimeError('no shelf')\n")
        ask("upgrade")
        server.wait_for("no shelf")
        until(lambda: report(ask)["upgrades"]["count"] == 1)
        assert (preloader(ask), pids(ask)) == (origin, before)
        os.kill(min(before), signal.SIGKILL)
        until_whole_again(ask, {min(before)})
        assert preloader(ask) == origin
        answers = Answers(server)
        answers.until_all(pids(ask))
        assert answers.importers == {origin}
