"""A front with the applications behind it: what each has of its own, what a death and a reload cost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from textwrap import dedent

import httpx
import pytest
from harness import COMMAND, Server
from watching import PATIENCE, Load, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

APP = """
import os
import sys
import time

import settings

def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/slow"):
        begun = os.path.join(os.path.dirname(__file__), "begun-" + environ["REQUEST_METHOD"])
        if not os.path.exists(begun):
            open(begun, "w").close()
            time.sleep(300)
    facts = ("REMOTE_ADDR", "SCRIPT_NAME", "PATH_INFO", "wsgi.url_scheme", "SERVER_PORT")
    shown = [settings.NAME, os.environ.get("COLOUR", ""), str(os.getpid()), sys.prefix]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\\n".join(shown + [environ[fact] for fact in facts]).encode()]
"""

SOCKET = """
import settings

async def application(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": settings.NAME + " " + message["text"]})
"""

CONFIG = """
listen = "127.0.0.1:0"
drain = "5s"
[apps.shop]
wsgi = "main"
dir = "shop"
env = { COLOUR = "green" }
workers = 2
[apps.blog]
wsgi = "main"
dir = "blog"
venv = "blog/venv"
[apps.chat]
asgi = "main"
dir = "chat"
[sites."*"]
"/" = "shop"
"/blog" = { mount = "blog" }
"/chat" = "chat"
"/text" = { respond = "from the front" }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three applications that all have a module `main` and a module `settings`."""
    for name, text in (("shop", APP), ("blog", APP), ("chat", SOCKET)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(text)
        (tmp_path / name / "settings.py").write_text(f"NAME = '{name}'\n")
    environment(tmp_path / "blog" / "venv")
    (tmp_path / "hawksbill.toml").write_text(CONFIG)
    return tmp_path


def environment(path: Path) -> None:
    """A virtual environment that finds this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True, timeout=60)
    found = next(path.glob("lib/python*/site-packages"))
    ours = next(entry for entry in sys.path if entry.endswith("site-packages"))
    (found / "ours.pth").write_text(f"{ours}\n")


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    """All three behind a front."""
    with Server("run", cwd=project) as server:
        yield server


def lines(server: Server, path: str = "/") -> list[str]:
    """What an application shows."""
    with server.client() as client:
        return client.get(path).text.split("\n")


def test_each_application_has_its_own(server: Server, project: Path) -> None:
    shop, blog = lines(server, "/a/b"), lines(server, "/blog/a/b")
    assert shop[:2] == ["shop", "green"]
    assert blog[:2] == ["blog", ""]
    assert (shop[3], blog[3]) == (sys.prefix, str(project / "blog" / "venv"))
    assert shop[4:] == ["127.0.0.1", "", "/a/b", "http", str(server.port)]
    assert blog[4:] == ["127.0.0.1", "/blog", "/a/b", "http", str(server.port)]
    pids = {shop[2], blog[2], str(server.process.pid)}
    assert len(pids) == 3
    assert lines(server, "/text") == ["from the front"]


def test_no_header_forges_the_facts(server: Server) -> None:
    forged = {
        "X-Forwarded-For": "10.1.2.3",
        "Forwarded": "for=10.1.2.3;proto=https",
        "X-Forwarded-Proto": "https",
        "Script-Name": "/forged",
        "X-Script-Name": "/forged",
        "Remote-Addr": "10.1.2.3",
    }
    with server.client() as client:
        seen = client.get("/x", headers=forged).text.split("\n")
    assert seen[4:] == ["127.0.0.1", "", "/x", "http", str(server.port)]


def test_a_websocket_passes(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/chat") as websocket:
        for text in ("a", "b" * 100_000):
            websocket.send(text)
            assert websocket.recv(PATIENCE) == f"chat {text}"


def test_a_websocket_is_told_of_the_end(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/chat") as websocket:
        websocket.send("a")
        assert websocket.recv(PATIENCE) == "chat a"
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            websocket.recv(PATIENCE)
        assert websocket.close_code == 1012


def test_a_killed_worker_takes_only_what_must_not_be_done_twice(server: Server, project: Path) -> None:
    slow: dict[str, httpx.Response] = {}

    def ask(method: str) -> None:
        with server.client() as client:
            slow[method] = client.request(method, "/blog/slow")

    victim = int(lines(server, "/blog")[2])
    asking = [threading.Thread(target=ask, args=[method]) for method in ("GET", "POST")]
    for each in asking:
        each.start()
    until(lambda: len(list((project / "blog").glob("begun-*"))) == 2)
    with Load(server, 3, ("/", "/text", "/"), keep=True) as load:
        load.goes_on()
        os.kill(victim, signal.SIGKILL)
        for each in asking:
            each.join(PATIENCE)
        assert slow["POST"].status_code == 502
        # Nobody is there, so the requests wait until somebody is.
        assert slow["GET"].status_code == 200
        assert int(lines(server, "/blog")[2]) == int(slow["GET"].text.split("\n")[2]) != victim
        load.goes_on()
    assert load.failures == []


def test_a_pool_under_load_loses_nothing_that_is_asked_of_a_killed_worker(server: Server) -> None:
    def two_answer(ended: set[str]) -> bool:
        answering = {answer.split("\n")[2] for answer in load.answers[-50:]}
        return len(answering) == 2 and answering.isdisjoint(ended)

    ended: set[str] = set()
    with Load(server, 6, keep=True) as load:
        for _ in range(3):
            victim = lines(server)[2]
            os.kill(int(victim), signal.SIGKILL)
            ended.add(victim)
            until(partial(two_answer, ended))
    assert load.failures == []


def test_a_reload_keeps_the_front_and_loses_nothing(server: Server, project: Path) -> None:
    before = {lines(server, path)[2] for path in ("/", "/blog")}
    with Load(server, 4, ("/", "/blog", "/text", "/"), keep=True) as load:
        for turn in range(2):
            for name in ("shop", "blog"):
                (project / name / "settings.py").write_text(f"NAME = '{name} {turn}'\n")
            server.process.send_signal(signal.SIGHUP)
            wanted = {f"shop {turn}", f"blog {turn}", "from the front"}
            until(
                lambda wanted=wanted: {answer.split("\n")[0] for answer in load.answers[-40:]} == wanted,  # type: ignore[misc]
            )
    assert load.failures == []
    assert before.isdisjoint({lines(server, path)[2] for path in ("/", "/blog")})
    # Its clients' connections outlive a reload of code: none of the three clients had to connect again.
    assert server.output().count("listening on") == 1


def test_check_says_which_processes_there_will_be(project: Path) -> None:
    checked = subprocess.run(
        [*COMMAND, "check"], cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
    said = [line for line in checked.stdout.splitlines() if line.startswith("processes ")]
    assert said == [
        "processes front: workers=1 (it has the sockets: there are 3 Python applications)",
        "processes shop: workers=2 (behind the front)",
        "processes blog: workers=1 (behind the front)",
        "processes chat: workers=1 (behind the front)",
    ]


def test_an_application_of_a_route_has_processes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "settings.py").write_text("NAME = 'one'\n")
    config = """
        listen = "127.0.0.1:0"
        [sites."*"]
        "/" = { wsgi = "main" }
        "/other" = { callable = "main" }
        """
    (tmp_path / "hawksbill.toml").write_text(dedent(config))
    with Server("run", cwd=tmp_path) as server:
        assert lines(server, "/")[2] != lines(server, "/other")[2]


def test_a_start_that_fails_says_where(project: Path) -> None:
    (project / "blog" / "main.py").write_text("raise RuntimeError('no shelf')\n")
    ended = subprocess.run(
        [*COMMAND, "run"], cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "no shelf" in ended.stderr
    assert re.search(r"^hawksbill: \S*hawksbill\.toml:9:\d+: apps\.blog: ", ended.stderr, re.MULTILINE)


def test_nothing_is_left_behind(project: Path) -> None:
    with Server("run", cwd=project) as server:
        lines(server)
        places = {Path("/run"), Path(os.environ.get("XDG_RUNTIME_DIR", "/run")), Path(gettempdir())}
        made = [place / f"hawksbill-{server.process.pid}" for place in places]
        made = [place for place in made if place.exists()]
        assert len(made) == 1
        assert [place.stat().st_mode & 0o777 for place in made[0].iterdir()] == [0o700] * 3
    assert not made[0].exists()
