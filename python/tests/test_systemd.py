"""Under a service manager: sockets that it opens and passes (`sd_listen_fds(3)`)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from harness import COMMAND, Ask, Server, bad, fetch, good, unix_client
from sites import write
from watching import Load, free_port, until

pytestmark = pytest.mark.once

CONFIG = """
listen = {listen}
front = {front}

[apps.shop]
wsgi = "site_app"
workers = 2

[sites."*"]
"/" = "shop"
"""

TELLS_ENVIRONMENT = """
import json

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC"]
    return [json.dumps([name for name in names if name in os.environ]).encode()]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path, 1)
    return tmp_path


def configure(project: Path, listen: list[str], front: str = "false") -> None:
    # A list of strings is written the same in TOML and here.
    (project / "hawksbill.toml").write_text(CONFIG.format(listen=listen, front=front))


def activate(*sockets: str | Path, names: str = "", more: tuple[str, ...] = ()) -> list[str]:
    """The command that opens these sockets, waits for a client, and becomes another command."""
    listen = [word for one in sockets for word in ("-l", str(one))]
    keep = [name for name in os.environ if not name.startswith(("HAWKSBILL_", "LISTEN_"))]
    keep += ["XDG_RUNTIME_DIR", "HAWKSBILL_LOG_FORMAT"]
    env = [word for name in sorted(set(keep)) for word in ("-E", name)]
    named = ["--fdname", names] if names else []
    return ["systemd-socket-activate", *listen, *named, *more, *env, "--"]


class Knock:
    """The client for whom everything is started. It waits for its answer from the very beginning."""

    def __init__(self, address: tuple[str, int] | Path) -> None:
        self._address = address

    def __call__(self) -> None:
        family = socket.AF_UNIX if isinstance(self._address, Path) else socket.AF_INET
        target = str(self._address) if isinstance(self._address, Path) else self._address
        self._connection = socket.socket(family)

        def is_let_in() -> bool:
            with suppress(ConnectionRefusedError, FileNotFoundError):
                self._connection.connect(target)
                return True
            return False

        until(is_let_in)
        self._connection.sendall(b"GET / HTTP/1.0\r\nHost: knock\r\n\r\n")

    def answer(self) -> str:
        self._connection.settimeout(60)
        with closing(self._connection), self._connection.makefile("rb") as answer:
            return answer.read().decode()


class Sockets:
    """One of each kind, as a manager would open them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "web.sock"
        self.four, self.six = free_port(), free_port(socket.AF_INET6)
        self.all = [f"127.0.0.1:{self.four}", f"[::1]:{self.six}", str(self.path)]
        self.listen = [f"unix:{self.path}", f"127.0.0.1:{self.four}", f"[::1]:{self.six}"]
        self.knock = Knock(("127.0.0.1", self.four))

    def answers(self) -> list[str]:
        """What curl gets at each of them."""
        urls = [f"http://127.0.0.1:{self.four}/", f"http://[::1]:{self.six}/", "http://web/"]
        return [
            subprocess.run(
                ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--globoff", *more, url],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout
            for url, more in zip(urls, ([], [], ["--unix-socket", str(self.path)]), strict=True)
        ]


@pytest.fixture
def sockets(runtime: Path) -> Sockets:
    return Sockets(runtime)


@pytest.fixture(params=["false", "true"], ids=["fused", "front"])
def server(
    request: pytest.FixtureRequest,
    start: Callable[..., Server],
    project: Path,
    runtime: Path,
    sockets: Sockets,
) -> Server:
    """It is in use from outside while it starts."""
    configure(project, sockets.listen, request.param)
    return start(
        "run",
        cwd=project,
        env={"XDG_RUNTIME_DIR": str(runtime)},
        listeners=3,
        through=activate(*sockets.all, names="four:six:web"),
        wake=sockets.knock,
    )


def test_sockets_that_are_passed_are_used_and_stay(
    server: Server, ask: Ask, project: Path, sockets: Sockets
) -> None:
    assert sockets.knock.answer().endswith("1")
    assert sockets.answers() == ["1"] * 3
    inode = sockets.path.stat().st_ino
    with Load(server) as load:
        write(project, 2)
        good(ask("reload"))
        assert sockets.answers() == ["2"] * 3
        for version in (3, 4):
            # What tells of the sockets would still be true of the new program: it has the same number.
            write(project, version)
            assert f"serves (pid {server.process.pid})" in good(ask("upgrade"))
            assert sockets.answers() == [str(version)] * 3
        write(project, 5)
        good(ask("reload"))
        assert sockets.answers() == ["5"] * 3
    assert load.failures == []
    good(ask("stop"))
    assert server.ended() == 0
    # It is the manager's, who listens there still.
    assert sockets.path.stat().st_ino == inode


def test_an_application_does_not_take_itself_for_the_service(
    server: Server, ask: Ask, project: Path, sockets: Sockets
) -> None:
    write(project, 2, TELLS_ENVIRONMENT)
    good(ask("reload"))
    assert sockets.answers() == ["[]"] * 3


def test_what_is_not_passed_is_bound(
    start: Callable[..., Server], ask: Ask, project: Path, runtime: Path
) -> None:
    port, passed, own = free_port(), runtime / "passed.sock", runtime / "own.sock"
    configure(project, [f"unix:{own}", f"unix:{passed}", f"localhost:{port}", "127.0.0.1:0"])
    server = start(
        "run",
        cwd=project,
        env={"XDG_RUNTIME_DIR": str(runtime)},
        listeners=4,
        through=activate(passed, f"127.0.0.1:{port}", f"[::1]:{port}"),
        wake=Knock(passed),
    )
    assert len([url for url in server.urls if url.endswith(f":{port}")]) == 2
    good(ask("upgrade"))
    for path in (own, passed):
        with unix_client(path) as client:
            assert client.get("http://hawksbill/").text == "1"
    for url in server.urls:
        if url.startswith("http"):
            assert fetch(url).text == "1"
    assert server.stop() == 0
    assert passed.exists()
    assert not own.exists()


def test_a_descriptor_may_be_named_by_its_number(
    start: Callable[..., Server], ask: Ask, project: Path, runtime: Path
) -> None:
    path = runtime / "web.sock"
    configure(project, ["fd:3"])
    start(
        "run",
        cwd=project,
        env={"XDG_RUNTIME_DIR": str(runtime)},
        through=activate(path),
        wake=Knock(path),
    )
    for command in ("reload", "upgrade", "reload"):
        good(ask(command))
        with unix_client(path) as client:
            assert client.get("http://hawksbill/").text == "1"


def refused(project: Path, through: list[str], wake: Callable[[], object]) -> str:
    """What it says when it does not start."""
    child = subprocess.Popen(
        [*through, *COMMAND, "run"],
        cwd=project,
        env={**os.environ, "HAWKSBILL_LOG_FORMAT": "text"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wake()
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 1
    return said


def test_a_socket_that_nothing_names_is_refused(project: Path, runtime: Path) -> None:
    path = runtime / "web.sock"
    configure(project, ["127.0.0.1:0"])
    said = refused(project, activate(path, names="web"), Knock(path))
    assert f"unix:{path} (descriptor 3, \"web\") that no 'listen' names" in said
    assert f'add "unix:{path}" to listen, or take it out of the .socket unit' in said
    assert '(listen is "127.0.0.1:0")' in said
    assert path.exists()


def test_a_reload_cannot_give_a_passed_socket_up(server: Server, ask: Ask, sockets: Sockets) -> None:
    config = Path(f"/proc/{server.process.pid}/cwd").resolve() / "hawksbill.toml"
    former = config.read_text()
    config.write_text(former.replace(f"127.0.0.1:{sockets.four}", f"127.0.0.1:{free_port()}"))
    for _ in range(2):
        said = bad(ask("reload"))
        assert f"a socket at 127.0.0.1:{sockets.four} (descriptor 3, \"four\") that no 'listen' names" in said
        assert sockets.answers() == ["1"] * 3
        config.write_text(former)
        good(ask("upgrade"))
        config.write_text(former.replace(f"127.0.0.1:{sockets.four}", f"127.0.0.1:{free_port()}"))


def test_only_a_stream_socket_that_listens_can_be_used(project: Path) -> None:
    port = free_port()
    configure(project, [f"127.0.0.1:{port}"])

    def wake() -> None:
        # There is no telling when a datagram socket is there, but by sending until somebody is woken.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))

            def arrived() -> bool:
                try:
                    client.send(b"knock")
                    time.sleep(0.05)
                    client.send(b"knock")
                except ConnectionRefusedError:
                    return False
                return True

            until(arrived)

    said = refused(project, activate(f"127.0.0.1:{port}", names="web", more=("--datagram",)), wake)
    assert 'descriptor 3 ("web") is not a listening stream socket' in said
    assert "ListenStream= and Accept=no" in said


def test_sockets_of_another_process_are_left_alone(
    start: Callable[..., Server], project: Path, runtime: Path
) -> None:
    configure(project, ["127.0.0.1:0"])
    env = {"XDG_RUNTIME_DIR": str(runtime), "LISTEN_PID": "1", "LISTEN_FDS": "3"}
    server = start("run", cwd=project, env=env)
    assert fetch(server.base).text == "1"
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0
