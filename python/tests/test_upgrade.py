"""The program is replaced in place while it serves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from harness import Ask, Server, bad, fetch, good, unix_client
from sites import write
from watching import Load, report, until

pytestmark = pytest.mark.once

CONFIG = """
listen = ["127.0.0.1:0", "unix:{socket}"]
front = {front}

[apps.shop]
wsgi = "site_app"
dir = "one"
workers = 2

[sites."*"]
"/" = "shop"
"""


@pytest.fixture
def project(tmp_path: Path, runtime: Path) -> Path:
    for version, name in enumerate(["one", "two"], start=1):
        (tmp_path / name).mkdir()
        write(tmp_path / name, version)
    return tmp_path


@pytest.fixture(params=["false", "true"], ids=["fused", "front"])
def server(
    request: pytest.FixtureRequest, start: Callable[..., Server], project: Path, runtime: Path
) -> Server:
    config = CONFIG.format(socket=runtime / "web.sock", front=request.param)
    (project / "hawksbill.toml").write_text(dedent(config))
    return start("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)}, listeners=2)


def workers(ask: Ask) -> set[int]:
    return {process["pid"] for pool in report(ask)["pools"].values() for process in pool["processes"]}


def test_an_upgrade_loses_nothing(server: Server, ask: Ask, runtime: Path) -> None:
    before = workers(ask)
    with Load(server) as load:
        assert f"serves (pid {server.process.pid})" in good(ask("upgrade"))
        # What a service manager sends.
        server.process.send_signal(signal.SIGUSR2)
        until(lambda: server.output().count("the new generation serves") == 2)
        load.goes_on()
    assert load.failures == []
    until(lambda: before.isdisjoint(workers(ask)))
    # The socket's file is still its own: it answers there, and takes the file away at the end.
    socket = runtime / "web.sock"
    with unix_client(socket) as client:
        assert client.get("http://hawksbill/").text == "1"
    good(ask("stop"))
    assert server.ended() == 0
    assert not socket.exists()


def test_what_was_deployed_outlives_an_upgrade(server: Server, ask: Ask, project: Path) -> None:
    good(ask("deploy", "shop", "--dir", project / "two", "--probation", "0s", "--keep", "1m"))
    good(ask("upgrade"))
    assert fetch(server.base).text == "2"


def test_a_program_that_does_not_start_is_no_successor(server: Server, ask: Ask, project: Path) -> None:
    before = workers(ask)
    config = (project / "hawksbill.toml").read_text()
    (project / "hawksbill.toml").write_text(config + "listne = 1\n")
    said = bad(ask("upgrade"))
    assert "listne" in said
    assert fetch(server.base).text == "1"
    assert workers(ask) == before


def test_processes_that_do_not_start_leave_the_former(server: Server, ask: Ask, project: Path) -> None:
    write(project / "one", 3, "raise RuntimeError('no shelf')\n")
    said = bad(ask("upgrade"))
    assert "no shelf" in said
    assert "those of the former program serve on" in said
    assert fetch(server.base).text == "1"
    write(project / "one", 4)
    good(ask("reload"))
    assert fetch(server.base).text == "4"
