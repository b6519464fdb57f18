"""Requests that take long are shown in the log while they do, and when they are over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

import httpx
import pytest
from harness import Server

SETTINGS = """
SECRET_KEY = "only for this test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
"""

URLS = """
from django.urls import path

import reports

urlpatterns = [path("", reports.quick), path("report", reports.report)]
"""

VIEWS = """
import pathlib
import time

from django.http import HttpResponse

GATE = pathlib.Path(__file__).with_name("gate")

def quick(request):
    return HttpResponse("at once")

def report(request):
    return HttpResponse(add_up())

def add_up():
    while GATE.exists():
        time.sleep(0.01)
    return "the sum"
"""

ASGI = """
import asyncio
import pathlib
import time

GATE = pathlib.Path(__file__).with_name("gate")

async def patient():
    while GATE.exists():
        await asyncio.sleep(0.01)

def computing():
    while GATE.exists():
        time.sleep(0.01)

async def application(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/patient":
        await patient()
    if scope["path"] == "/computing":
        computing()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/streaming":
        await send({"type": "http.response.body", "body": b"begun, ", "more_body": True})
        await patient()
    await send({"type": "http.response.body", "body": b"at once"})
"""

CONFIG = """
listen = "127.0.0.1:0"
front = {front}
request_id = true

[apps.shop]
{kind}
slow = "200ms"
{more}

[sites."*"]
"/" = "shop"
"""

SLOW = timedelta(milliseconds=200)
"""As in the configuration."""

DJANGO = 'django = "settings"'
PLAIN = 'asgi = "main:application"'

ways = pytest.mark.parametrize(
    ("front", "http2"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["fused-http1", "front-http1", "fused-http2", "front-http2"],
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in (("settings", SETTINGS), ("urls", URLS), ("reports", VIEWS), ("main", ASGI)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def serve(
    start: Callable[..., Server], project: Path, kind: str, front: bool = False, more: str = ""
) -> Server:
    """An application that is slow after 200 ms."""
    text = CONFIG.format(front=str(front).lower(), kind=kind, more=more)
    (project / "hawksbill.toml").write_text(text)
    return start("run", cwd=project)


@contextmanager
def asking(server: Server, project: Path, path: str, http2: bool = False) -> Iterator[Future[httpx.Response]]:
    """Asks for what takes as long as this lasts."""
    gate = project / "gate"
    gate.touch()

    def ask() -> httpx.Response:
        with server.client(http2=http2) as client:
            return client.get(path)

    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask)
        try:
            yield answer
        finally:
            gate.unlink()


@ways
def test_a_django_view_is_shown_with_its_thread(
    start: Callable[..., Server], project: Path, front: bool, http2: bool
) -> None:
    server = serve(start, project, DJANGO, front)
    with asking(server, project, "/report?token=secret", http2) as answer:
        said = server.wait_for(
            r"WARN   shop\[\d+\] hawksbill::slow request=(\w+): "
            r"GET /report: no answer for \d+\.\ds, on thread wsgi-shop-\d+:$",
            60,
        )
        server.wait_for(r'^ +File ".*reports\.py", line \d+, in report$')
        server.wait_for(r'^ +File ".*reports\.py", line \d+, in add_up$')
        # Again, after twice as long.
        server.wait_for(r"GET /report: no answer for .*(\n.*)*GET /report: no answer for ")
        # Nobody is told of who is quick; a machine that is busy with other things may be slow once.
        with server.client() as client:
            quick = client.get("/")
        assert quick.text == "at once"
    assert answer.result().text == "the sum"
    assert said[1] == answer.result().headers["X-Request-ID"]
    # Each look finds the view in one of the two lines of its loop.
    server.wait_for(
        rf"request={said[1]}: GET /report: over after \d+\.\ds; "
        r"at \d of \d looks it was in .*reports\.py:\d+ in add_up$",
        60,
    )
    assert "secret" not in server.output()
    assert "GET /:" not in server.output() or quick.elapsed > SLOW


@ways
def test_an_asgi_handler_is_shown_with_what_it_awaits(
    start: Callable[..., Server], project: Path, front: bool, http2: bool
) -> None:
    server = serve(start, project, PLAIN, front)
    with asking(server, project, "/patient", http2) as answer:
        said = server.wait_for(r"request=(\w+): GET /patient: no answer for \d+\.\ds:$")
        server.wait_for(r'^ +File ".*main\.py", line \d+, in patient$')
        with server.client() as client:
            assert client.get("/").text == "at once"
    assert said[1] == answer.result().headers["X-Request-ID"]
    server.wait_for(r"GET /patient: over after \d+\.\ds; .*it was in .*main\.py:\d+ in patient$")


def test_a_loop_that_does_not_turn_is_shown(start: Callable[..., Server], project: Path) -> None:
    server = serve(start, project, PLAIN)
    with asking(server, project, "/computing"):
        server.wait_for(r"the event loop: no turn for \d+\.\ds, on thread event loop:$")
        server.wait_for(r'^ +File ".*main\.py", line \d+, in computing$')
    server.wait_for(
        r"the event loop: it turns again after \d+\.\ds; .*it was in .*main\.py:\d+ in computing$", 60
    )


def test_an_answer_that_has_begun_may_take_long(start: Callable[..., Server], project: Path) -> None:
    server = serve(start, project, PLAIN)
    gate, begun = project / "gate", Event()
    gate.touch()

    def stream() -> str:
        with server.client() as client, client.stream("GET", "/streaming") as answer:
            blocks = answer.iter_text()
            first = next(blocks)
            begun.set()
            return first + "".join(blocks)

    with ThreadPoolExecutor() as pool:
        streaming = pool.submit(stream)
        assert begun.wait(60)
        # As slow as it, and told of.
        with asking(server, project, "/patient"):
            server.wait_for(r"GET /patient: no answer for .*(\n.*)*GET /patient: no answer for ")
        assert streaming.result() == "begun, at once"
    assert "/streaming" not in server.output()


def test_what_is_late_as_well_is_over_when_it_is_answered(
    start: Callable[..., Server], project: Path
) -> None:
    server = serve(start, project, DJANGO, more='timeout = "1s"')
    with asking(server, project, "/report") as answer:
        assert answer.result().status_code == 504
        server.wait_for(r"GET /report: over after \d+\.\ds; ")
    assert re.search(r"GET /report: no answer for (.*\n)*.*GET /report: no answer within 1s", server.output())


@pytest.mark.parametrize("kind", [DJANGO, PLAIN], ids=["wsgi", "asgi"])
def test_it_needs_no_timeout(start: Callable[..., Server], project: Path, kind: str) -> None:
    server = serve(start, project, kind, more='timeout = "0"')
    path = "/report" if kind == DJANGO else "/patient"
    with asking(server, project, path):
        server.wait_for(f"GET {path}: no answer for ")
    server.wait_for(f"GET {path}: over after ")
