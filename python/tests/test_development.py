"""`hawksbill run --reload`: what was saved is live."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import COMMAND, Server
from watching import PATIENCE, free_port, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WSGI = """
import os

def application(environ, start_response):
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    return [b"{text}"]
"""

ASGI = """
import os

async def application(scope, receive, send):
    assert scope["type"] == "http"
    headers = [(b"x-pid", str(os.getpid()).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": b"{text}"}})
"""

CONFIG = """
listen = "127.0.0.1:0"
[apps.shop]
wsgi = "main"
dir = "shop"
workers = 3
[apps.blog]
asgi = "main"
dir = "blog"
[sites."*"]
"/" = "shop"
"/blog" = "blog"
"""


def answer(server: Server, path: str = "/") -> tuple[str, str]:
    """The text that answers, and its process."""
    with server.client() as client:
        found = client.get(path)
    return found.text, found.headers.get("x-pid", "")


def answers(server: Server, text: str) -> None:
    """Waits until this answers."""
    until(lambda: answer(server)[0] == text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two applications of one gateway."""
    for name, app in (("shop", WSGI), ("blog", ASGI)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app.format(text=0))
    (tmp_path / "hawksbill.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("app", [WSGI, ASGI])
def test_each_save_is_live(tmp_path: Path, app: str) -> None:
    file = tmp_path / "main.py"
    file.write_text(app.format(text=0))
    # Python keeps what it compiles, as usual.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    with Server("run", "main", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path, env=env) as server:
        server.wait_for(r"development \(--reload\), not for production")
        assert answer(server)[0] == "0"
        # Within a second and of the same size: Python itself would take what it compiled before.
        for text in "123":
            file.write_text(app.format(text=text))
            answers(server, text)
        server.wait_for("main.py changed: loading the configuration and main again")


def test_what_an_application_imports_counts_and_what_it_writes_does_not(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "text.py").write_text("TEXT = b'0'\n")
    (tmp_path / "main.py").write_text(
        "from shop.text import TEXT\n" + WSGI.format(text="").replace('b""', "TEXT")
    )
    with Server("run", "main", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        before = answer(server)
        for name in ("db.sqlite3", "upload.png", ".main.py.swp"):
            (tmp_path / name).write_text("x")
        # A directory that was not there before is noticed, and shows that the others were not.
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "page.html").write_text("x")
        until(lambda: answer(server)[1] != before[1])
        server.wait_for("page.html changed: loading")
        (package / "text.py").write_text("TEXT = b'1'\n")
        until(lambda: answer(server)[0] == "1")
        server.wait_for("text.py changed: loading")
        assert server.output().count("changed: loading") == 2


def test_only_the_application_that_changed_is_replaced(project: Path) -> None:
    with Server("run", "--reload", cwd=project) as server:
        shop, blog = answer(server), answer(server, "/blog")
        assert {answer(server)[1] for _ in range(20)} == {shop[1]}, "one worker, whatever the file says"
        (project / "shop/main.py").write_text(WSGI.format(text=1))
        until(lambda: answer(server)[0] == "1")
        assert answer(server, "/blog") == blog
        shop = answer(server)
        (project / "blog/main.py").write_text(ASGI.format(text=2))
        until(lambda: answer(server, "/blog")[0] == "2")
        assert answer(server) == shop


def test_a_module_from_elsewhere_counts_once_it_is_imported(project: Path) -> None:
    shelf = project / "lib/shelf.py"
    shelf.parent.mkdir()
    shelf.write_text("TEXT = b'0'\n")
    (shelf.parent / "other.py").write_text("")
    source = "from shelf import TEXT\n" + WSGI.format(text="").replace('b""', "TEXT")
    (project / "shop/main.py").write_text(source)
    with Server("run", "--reload", cwd=project, env={"PYTHONPATH": str(shelf.parent)}) as server:
        blog = answer(server, "/blog")
        (shelf.parent / "other.py").write_text("NOT_IMPORTED = 1\n")
        shelf.write_text("TEXT = 1 / 0\n")
        until(lambda: "ZeroDivisionError" in page(server).text)
        # It is not imported now, and is known even so.
        shelf.write_text("TEXT = b'1'\n")
        until(lambda: answer(server)[0] == "1")
        assert answer(server, "/blog") == blog
        assert "other.py" not in server.output()


def test_a_changed_configuration_is_read_again(project: Path) -> None:
    config = project / "hawksbill.toml"
    with Server("run", "--reload", cwd=project) as server:
        config.write_text(CONFIG + '"/new" = { respond = "new" }\n')
        until(lambda: answer(server, "/new")[0] == "new")
        config.write_text(CONFIG + '"/new" = \n')
        server.wait_for(r"the old generation goes on(?s:.)*hawksbill\.toml:13")
        assert answer(server, "/new")[0] == "new"
        config.write_text(CONFIG + '"/new" = { respond = "mended" }\n')
        until(lambda: answer(server, "/new")[0] == "mended")


def test_no_configuration_asks_for_it(project: Path) -> None:
    (project / "hawksbill.toml").write_text("reload = true\n" + CONFIG)
    refused = subprocess.run([*COMMAND, "check"], cwd=project, capture_output=True, text=True, env=os.environ)
    assert refused.returncode == 1
    assert "reload" in refused.stderr


def page(server: Server, path: str = "/", **headers: str) -> httpx.Response:
    with server.client() as client:
        return client.get(path, headers={"Accept": "text/html", **headers})


BROKEN = [
    ("import os\nprint('one'\nraise\n", "main.py:2", "SyntaxError"),
    ("import os\nraise RuntimeError('<no shelf>')\n", "main.py:2", "RuntimeError: &lt;no shelf&gt;"),
    ("import os\n\nfrom json import nothing\n", "main.py:3", "ImportError"),
]


@pytest.mark.parametrize(("source", "place", "summary"), BROKEN, ids=["syntax", "raised", "import"])
def test_what_is_wrong_is_answered_until_it_is_mended(
    project: Path, source: str, place: str, summary: str
) -> None:
    file = project / "shop/main.py"
    with Server("run", "--reload", cwd=project) as server:
        blog = answer(server, "/blog")
        file.write_text(source)
        until(lambda: page(server).status_code == 500)
        found = page(server)
        assert found.headers["content-type"] == "text/html; charset=utf-8"
        assert found.headers["cache-control"] == "no-store"
        for said in (place, summary, '<pre class="traceback">', str(file)):
            assert said in found.text
        assert "<no shelf>" not in found.text
        plain = page(server, Accept="*/*")
        assert plain.headers["content-type"].startswith("text/plain")
        assert place in plain.text
        assert answer(server, "/blog") == blog
        server.wait_for("shop does not start")
        assert server.output().count("shop does not start") == 1
        file.write_text(WSGI.format(text=1))
        until(lambda: answer(server)[0] == "1")


def test_a_project_that_is_broken_from_the_first_waits_to_be_mended(project: Path) -> None:
    file = project / "blog/main.py"
    file.write_text("raise RuntimeError('no ink')\n")
    with Server("run", "--reload", cwd=project) as server:
        assert answer(server)[0] == "0"
        assert "RuntimeError: no ink" in page(server, "/blog").text
        server.wait_for("blog does not start")
        assert server.output().count("blog does not start") == 1
        server.wait_for("RuntimeError: no ink")
        file.write_text(ASGI.format(text=1))
        until(lambda: answer(server, "/blog")[0] == "1")


def test_what_does_not_even_look_like_an_application_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(WSGI.format(text=0))
    with Server("run", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        assert answer(server)[0] == "0"
        file.write_text("a ship\n")
        until(lambda: page(server).status_code == 500)
        assert "app.py:1" in page(server).text
        file.write_text(WSGI.format(text=1))
        until(lambda: answer(server)[0] == "1")


def test_processes_that_die_are_answered_for(project: Path) -> None:
    file = project / "shop/main.py"
    file.write_text("import os\nos._exit(7)\n")
    with Server("run", "--reload", cwd=project) as server:
        assert "ended while it started: exit code 7" in page(server).text
        assert answer(server, "/blog")[0] == "0"
        file.write_text(WSGI.format(text=1))
        until(lambda: answer(server)[0] == "1")
        file.write_text("import os\nos._exit(8)\n")
        until(lambda: "exit code 8" in page(server).text)
        file.write_text(WSGI.format(text=2))
        until(lambda: answer(server)[0] == "2")


def test_a_port_that_the_former_worker_has_is_waited_for(tmp_path: Path) -> None:
    """As a debugger's, which listens when the application is imported."""
    port = free_port()
    source = f"import socket\nlistener = socket.create_server(('127.0.0.1', {port}))\n" + WSGI
    file = tmp_path / "main.py"
    file.write_text(source.format(text=0))
    with Server("run", "main", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        assert answer(server)[0] == "0"
        file.write_text(source.format(text=1))
        until(lambda: answer(server)[0] == "1")


LIFESPAN = """
async def application(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    raise RuntimeError("no sand")
"""


def test_a_startup_that_fails_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text(ASGI.format(text=0))
    arguments = ("run", "main", "--reload", "--listen", "127.0.0.1:0", "--lifespan", "on")
    file.write_text(LIFESPAN)
    with Server(*arguments, cwd=tmp_path) as server:
        assert "no sand" in page(server).text


def test_who_waits_on_the_page_hears_of_something_newer(tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text("import nothing_of_this_name\n")
    with Server("run", "main", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        number = page(server).headers["x-hawksbill-broken"]
        # Another one's number is no reason to wait.
        assert page(server, **{"X-Hawksbill-Wait": "1-2"}).headers["x-hawksbill-broken"] == number
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(page, server, **{"X-Hawksbill-Wait": number})
            file.write_text(WSGI.format(text=1))
            assert waiting.result(PATIENCE).headers["x-hawksbill-broken"] == number
        assert answer(server)[0] == "1"


SOCKET = """
async def application(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({{"type": "websocket.accept"}})
    await send({{"type": "websocket.send", "text": "{text}"}})
    while (await receive())["type"] != "websocket.disconnect":
        pass
"""


def test_websocket_clients_are_told_to_come_back(tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text(SOCKET.format(text=0))
    with Server("run", "main", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        with connect(url, proxy=None) as websocket:
            assert websocket.recv(PATIENCE) == "0"
            file.write_text(SOCKET.format(text=1))
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        with connect(url, proxy=None) as websocket:
            assert websocket.recv(PATIENCE) == "1"


def test_an_application_may_be_called_as_the_front_is(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "front.py").write_text(WSGI.format(text="old"))
    server = start("run", "front:application", "--reload", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert answer(server)[0] == "old"
    (tmp_path / "front.py").write_text(WSGI.format(text="new"))
    answers(server, "new")
    (tmp_path / "front.py").write_text("1 / 0\n")
    until(lambda: "ZeroDivisionError" in answer(server)[0])
    (tmp_path / "front.py").write_text(WSGI.format(text="mended"))
    answers(server, "mended")


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_a_variable_asks_for_it_and_is_told(start: Callable[..., Server], project: Path, value: str) -> None:
    server = start("run", cwd=project, env={"HAWKSBILL_RELOAD": value})
    assert "development (HAWKSBILL_RELOAD), not for production" in server.output()
    (project / "shop/main.py").write_text(WSGI.format(text="new"))
    answers(server, "new")


@pytest.mark.parametrize("value", ["0", "false", ""])
def test_a_variable_that_says_no_makes_no_development(
    start: Callable[..., Server], project: Path, value: str
) -> None:
    server = start("run", cwd=project, env={"HAWKSBILL_RELOAD": value})
    assert answer(server)[0] == "0"
    assert "development" not in server.output()


def test_a_variable_that_is_not_clear_starts_nothing(project: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run"],
        cwd=project,
        env={**os.environ, "HAWKSBILL_RELOAD": "production"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "set HAWKSBILL_RELOAD to 1 or true for development, to 0 or false for production" in done.stderr
