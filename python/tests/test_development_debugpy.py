"""An editor's debugger: debugpy around the server, or within the application."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import test_development_debugger
from dap import GENEROUS, Editor
from development_server import runserver, start_project
from harness import Server
from watching import until

VIEWS = """
from django.http import HttpResponse

def hello(request):
    x = 41
    return HttpResponse(f"the answer is {x}")
"""
URLS = """
from django.urls import path
from . import views

urlpatterns = [path("hello/", views.hello)]
"""
WSGI, ASGI = (
    app.replace("    breakpoint()\n", "")
    for app in (test_development_debugger.WSGI, test_development_debugger.ASGI)
)
LISTENS = "import debugpy\ndebugpy.listen(('127.0.0.1', %d))\n"
FLAGS = ("-X", "frozen_modules=off")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
        return port


def after(path: Path, text: str = "x = 41") -> int:
    """The line behind one."""
    lines = path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 2) if text in line)


def ask(url: str) -> str:
    return httpx.get(url, timeout=4 * GENEROUS, trust_env=False).text


def stop_and_go_on(editor: Editor, url: str, threads: ThreadPoolExecutor, line: int) -> str:
    """What a request answers that stops at a breakpoint, where the client looks at a value and changes it."""
    deadline = time.monotonic() + GENEROUS
    while time.monotonic() < deadline:
        answer: Future[str] = threads.submit(ask, url)
        stop = editor.stopped(unless=answer.done)
        if stop is None:
            # The editor is only just on its way to the process that has answered.
            continue
        assert stop.top()["line"] == line
        assert stop.evaluate("x + 100") == "141"
        stop.evaluate("x = 42")
        assert not answer.done()
        stop.go_on()
        return answer.result(GENEROUS)
    raise AssertionError(f"it does not stop; the answer is {answer.result()!r}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    start_project(tmp_path)
    (tmp_path / "mysite/views.py").write_text(VIEWS)
    (tmp_path / "mysite/urls.py").write_text(URLS)
    return tmp_path


@pytest.mark.parametrize("flags", [(), ("--noreload",)], ids=["reload", "noreload"])
def test_runserver_under_debugpy_stops_at_a_breakpoint(project: Path, flags: tuple[str, ...]) -> None:
    """As VS Code starts a Django project; with the reloader the views run in a process of their own."""
    views, port = project / "mysite/views.py", free_port()
    line = after(views)
    debugpy = (*FLAGS, "-m", "debugpy", "--listen", f"127.0.0.1:{port}")
    with (
        runserver(project, *flags, interpreter=debugpy) as server,
        Editor(port, {views: [line]}) as editor,
        ThreadPoolExecutor(1) as threads,
    ):
        url = server.base + "/hello/"
        assert stop_and_go_on(editor, url, threads, line) == "the answer is 42"
        if not flags:
            # What is saved is loaded by a new process, and the editor follows.
            views.write_text(VIEWS.replace("answer is", "new answer is"))
            until(lambda: "new" in stop_and_go_on(editor, url, threads, line))


def test_runserver_waits_for_an_editor_that_comes_later(project: Path) -> None:
    views, port = project / "mysite/views.py", free_port()
    line = after(views)
    debugpy = (*FLAGS, "-m", "debugpy", "--listen", f"127.0.0.1:{port}")
    with runserver(project, interpreter=debugpy) as server, ThreadPoolExecutor(1) as threads:
        assert server.get("/hello/").text == "the answer is 41"
        with Editor(port, {views: [line]}) as editor:
            assert stop_and_go_on(editor, server.base + "/hello/", threads, line) == "the answer is 42"


def test_no_process_is_followed_where_the_editor_wants_none(project: Path) -> None:
    views, port = project / "mysite/views.py", free_port()
    debugpy = (*FLAGS, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--configure-subProcess", "False")
    with (
        runserver(project, interpreter=debugpy) as server,
        Editor(port, {views: [after(views)]}) as editor,
    ):
        assert server.get("/hello/").text == "the answer is 41"
        assert len(editor.sessions) == 1


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_an_application_that_listens_is_debugged_and_loaded_again(tmp_path: Path, app: str) -> None:
    main, port = tmp_path / "main.py", free_port()
    main.write_text(LISTENS % port + app)
    line = after(main)
    flags = ("run", "main", "--reload", "--listen", "127.0.0.1:0")
    with Server(*flags, cwd=tmp_path) as server, ThreadPoolExecutor(1) as threads:
        with Editor(port, {main: [line]}) as editor:
            assert stop_and_go_on(editor, server.base, threads, line) == "the answer is 42"
        main.write_text(LISTENS % port + app.replace("answer is", "new answer is"))
        until(lambda: ask(server.base) == "the new answer is 41")
        # The port is the new process's now.
        with Editor(port, {main: [line]}) as editor:
            assert stop_and_go_on(editor, server.base, threads, line) == "the new answer is 42"


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_hawksbill_run_under_debugpy_stops_in_its_workers(tmp_path: Path, app: str) -> None:
    main, port = tmp_path / "main.py", free_port()
    main.write_text(app)
    line = after(main)
    debugpy = (*FLAGS, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client")
    editors: list[Editor] = []
    come: Callable[[], object] = lambda: editors.append(Editor(port, {main: [line]}))  # noqa: E731
    flags = ("run", "main", "--reload", "--listen", "127.0.0.1:0")
    with (
        Server(*flags, cwd=tmp_path, interpreter=debugpy, wake=come) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        (editor,) = editors
        with editor:
            assert stop_and_go_on(editor, server.base, threads, line) == "the answer is 42"
    assert not re.search("Debugger warning", server.output())
