"""`manage.py runserver` with Hawksbill in INSTALLED_APPS, beside what Django's own does."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from development_server import Running, runserver, start_project
from harness import fetch
from watching import PATIENCE, free_port, until
from websockets.sync.client import connect

RELOADS = pytest.mark.parametrize("flags", [(), ("--noreload",)], ids=["reload", "noreload"])

VIEWS = """
from django.http import HttpResponse

def hello(request):
    return HttpResponse("{text}")
"""
URLS = """
from django.contrib import admin
from django.urls import path
from . import views

urlpatterns = [path("admin/", admin.site.urls), path("hello/", views.hello)]
"""
ASGI = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.asgi import get_asgi_application
django = get_asgi_application()

async def application(scope, receive, send):
    if scope["type"] != "websocket":
        return await django(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project with a view."""
    start_project(tmp_path)
    (tmp_path / "mysite/views.py").write_text(VIEWS.format(text="one"))
    (tmp_path / "mysite/urls.py").write_text(URLS)
    return tmp_path


@RELOADS
def test_it_speaks_as_djangos_own(project: Path, flags: tuple[str, ...]) -> None:
    with runserver(project, *flags) as server:
        assert server.get("/hello/?a=1").text == "one"
        assert server.get("/nowhere").status_code == 404
        style = server.get("/static/admin/css/base.css")
        assert style.status_code == 200
        assert style.headers["content-type"].startswith("text/css")
        server.wait_for('"GET /nowhere HTTP/1.1" 404')
        server.wait_for("css/base.css")
        output = server.output()
    said = [
        *([] if flags else ["Watching for file changes with Hawksbill"]),
        "Performing system checks...",
        "System check identified no issues (0 silenced).",
        "You have 18 unapplied migration(s).",
        "Django version 5.2",
        "using settings 'mysite.settings'",
        "Starting development server at http://127.0.0.1:",
        "Quit the server with CONTROL-C.",
        "WARNING: This is a development server.",
        '] "GET /hello/?a=1 HTTP/1.1" 200 3\n',
    ]
    places = [output.find(text) for text in said]
    assert -1 not in places, output
    assert places == sorted(places), output
    assert output.count("Not Found: /nowhere") == 1
    assert "hawksbill: listening" not in output
    assert "Traceback" not in output


def test_a_save_is_live_and_a_mistake_is_shown(project: Path) -> None:
    views = project / "mysite/views.py"
    with runserver(project) as server:
        assert server.get("/hello/").text == "one"
        for text in ("two", "six"):
            views.write_text(VIEWS.format(text=text))
            until(lambda text=text: server.get("/hello/").text == text)  # type: ignore[misc]
        views.write_text("def hello(:\n")
        until(lambda: server.get("/hello/").status_code == 500)
        page = fetch(server.base + "/hello/", headers={"Accept": "text/html"}).text
        assert "views.py" in page
        assert "SyntaxError" in page
        server.wait_for("SyntaxError")
        views.write_text(VIEWS.format(text="end"))
        until(lambda: server.get("/hello/").text == "end")


@RELOADS
def test_websockets_are_served_where_there_is_an_asgi_application(
    project: Path, flags: tuple[str, ...]
) -> None:
    (project / "mysite/asgi.py").write_text(ASGI)
    with (project / "mysite/settings.py").open("a") as settings:
        settings.write('\nASGI_APPLICATION = "mysite.asgi.application"\n')
    with runserver(project, *flags) as server:
        assert server.get("/hello/").text == "one"
        assert server.get("/static/admin/css/base.css").status_code == 200
        with connect(server.base.replace("http:", "ws:") + "/live?x=1") as socket:
            socket.send("hello")
            assert socket.recv(PATIENCE) == "hello"
        server.wait_for("WebSocket CONNECT /live?x=1")
        server.wait_for("WebSocket DISCONNECT /live?x=1")


def test_what_cannot_be_is_said_in_djangos_words(project: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        with runserver(project, at=at) as server:
            assert server.process.wait(PATIENCE) == 1
            assert server.output() == "Error: That port is already in use.\n"
    for at in ("nonsense:port", "127.0.0.1:99999"):
        with runserver(project, at=at) as server:
            assert server.process.wait(PATIENCE) == 1
            assert "Traceback" not in server.output()


@pytest.mark.parametrize(
    ("at", "flags", "said"),
    [("0:0", (), "http://0.0.0.0:"), ("[::1]:0", (), "http://[::1]:"), ("0", ("-6",), "http://[::1]:")],
)
def test_addresses_are_read_as_django_reads_them(
    project: Path, at: str, flags: tuple[str, ...], said: str
) -> None:
    with runserver(project, *flags, at=at) as server:
        assert server.base.startswith(said)
        port = server.base.rpartition(":")[2]
        host = "127.0.0.1" if "0.0.0.0" in said else "[::1]"
        found = fetch(f"http://{host}:{port}/hello/")
        # A wildcard's own name is in no ALLOWED_HOSTS, but the loopback address is.
        assert found.text == "one"


@RELOADS
def test_control_c_ends_it(project: Path, flags: tuple[str, ...]) -> None:
    with runserver(project, *flags) as server:
        assert server.get("/hello/").text == "one"
        # A terminal gives it to all that run in it.
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.output()


def test_a_check_that_fails_is_none_where_checks_are_skipped(project: Path) -> None:
    with (project / "mysite/settings.py").open("a") as settings:
        settings.write('STATICFILES_DIRS = "static"\n')
    for flags in ((), ("--noreload",)):
        with runserver(project, "--skip-checks", *flags) as server:
            assert server.get("/hello/").text == "one"
            assert "Performing system checks" not in server.output()


@RELOADS
def test_one_view_at_a_time_without_threads(project: Path, flags: tuple[str, ...]) -> None:
    (project / "mysite/views.py").write_text(
        "import threading\nfrom django.http import HttpResponse\n"
        "count, most, both = 0, 0, threading.Event()\n"
        "def hello(request):\n"
        "    global count, most\n    count += 1\n    most = max(most, count)\n"
        "    if count > 1: both.set()\n    both.wait(0.3)\n"
        "    count -= 1\n    return HttpResponse(str(most))\n"
    )
    for threading, most in ((("--nothreading",), "1"), ((), "2")):
        with runserver(project, *threading, *flags) as server, ThreadPoolExecutor(2) as threads:
            # One that a browser has opened and says nothing on.
            port = int(server.base.rpartition(":")[2])
            with closing(socket.create_connection(("127.0.0.1", port))):
                answers = [threads.submit(server.get, "/hello/") for _ in range(2)]
                assert max(answer.result(PATIENCE).text for answer in answers) == most


@RELOADS
def test_flags_of_the_interpreter_reach_the_process_that_serves(
    project: Path, flags: tuple[str, ...]
) -> None:
    (project / "mysite/views.py").write_text(
        "import sys\nfrom django.http import HttpResponse\n"
        "def hello(request):\n"
        "    has = (sys.flags.dev_mode, 'error::UserWarning' in sys.warnoptions, sys.flags.optimize)\n"
        "    return HttpResponse(repr(has))\n"
    )
    interpreter = ("-X", "dev", "-W", "error::UserWarning", "-O")
    with runserver(project, *flags, interpreter=interpreter) as server:
        assert server.get("/hello/").text == "(True, True, 1)"


def test_checks_that_fail_are_told(project: Path) -> None:
    with (project / "mysite/settings.py").open("a") as settings:
        settings.write('STATICFILES_DIRS = "static"\n')
    with runserver(project, "--noreload") as server:
        assert server.process.wait(PATIENCE) == 1
        assert "staticfiles.E001" in server.output()
        assert "Traceback" not in server.output()
    at = f"127.0.0.1:{free_port()}"
    with runserver(project, at=at) as server:
        # Nothing is served yet, so nothing says where; the page is there all the same.
        server.wait_for("?: (staticfiles.E001) The STATICFILES_DIRS setting is not a tuple or list.\n")
        # No terminal, but a person: an editor shows it.
        assert '{"' not in server.output()
        page = fetch(f"http://{at}/hello/")
        assert page.status_code == 500
        assert "staticfiles.E001" in page.text


def test_static_files_only_where_they_are_wanted(project: Path) -> None:
    with runserver(project, "--nostatic") as server:
        assert server.get("/static/admin/css/base.css").status_code == 404
    settings = project / "mysite/settings.py"
    closed = settings.read_text().replace("DEBUG = True", "DEBUG = False")
    settings.write_text(closed.replace("ALLOWED_HOSTS = []", 'ALLOWED_HOSTS = ["127.0.0.1"]'))
    with runserver(project) as server:
        assert server.get("/static/admin/css/base.css").status_code == 404
    with runserver(project, "--insecure") as server:
        assert server.get("/static/admin/css/base.css").status_code == 200


def test_manage_py_counts_wherever_it_is_called_from(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What it does to `sys.path` and the environment holds in the process that serves."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "shelf").mkdir()
    (elsewhere / "shelf/books.py").write_text("TITLE = 'Dune'\n")
    manage = project / "manage.py"
    shelf = str(elsewhere / "shelf")
    added = f"import os, sys\nsys.path.insert(1, {shelf!r})\nos.environ['SHELF'] = 'full'\n"
    manage.write_text(added + manage.read_text())
    (project / "mysite/views.py").write_text(
        "import os, books\nfrom django.http import HttpResponse\n"
        "def hello(request):\n    return HttpResponse(books.TITLE + os.environ['SHELF'])\n"
    )
    output = project / "output.log"
    with output.open("wb") as log:
        command = [sys.executable, str(manage), "runserver", "127.0.0.1:0"]
        process = subprocess.Popen(command, cwd=elsewhere, stdout=log, stderr=log)
    try:
        assert Running(process, output).get("/hello/").text == "Dunefull"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def test_a_debugger_has_the_terminal(project: Path) -> None:
    (project / "mysite/views.py").write_text(
        "from django.http import HttpResponse\n"
        "def hello(request):\n    answer = 'deep'\n    breakpoint()\n    return HttpResponse(answer)\n"
    )
    leader, follower = pty.openpty()
    seen = bytearray()

    def reads(text: str) -> bool:
        seen.extend(os.read(leader, 4096))
        return text in seen.decode(errors="replace")

    command = [sys.executable, "manage.py", "runserver", "127.0.0.1:0", "--no-color"]
    process = subprocess.Popen(
        command, cwd=project, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    try:
        until(lambda: reads("Quit the server"))
        found = re.search(r"server at (http://\S+)/", seen.decode(errors="replace"))
        assert found
        asking = subprocess.Popen(["curl", "-s", found[1] + "/hello/"], stdout=subprocess.PIPE)
        until(lambda: reads("(Pdb)"))
        os.write(leader, b"answer = 'changed'\nc\n")
        answer, _ = asking.communicate(timeout=PATIENCE)
        assert answer == b"changed"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        os.close(leader)
