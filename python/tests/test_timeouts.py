"""Requests that are not answered in time: 504, and a log that shows where they stand."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import APPS, Server
from late import FOR_EVER
from watching import until

Start = Callable[..., Server]
STUBBORN = r'File ".*late\.py", line \d+, in stubborn_view$'
PATIENT = r'File ".*late\.py", line \d+, in patient_view$'
COMPUTING = r'File ".*late\.py", line \d+, in computing_view$'


@pytest.fixture
def begin(start: Start, tmp_path: Path) -> Iterator[Start]:
    """Starts servers, whose stubborn views are over when the test is."""
    over = tmp_path / "over"
    yield lambda *arguments: start(*arguments, env={"LATE_OVER": str(over)})
    over.touch()


def serve(begin: Start, interface: str, *options: str) -> Server:
    """Starts one application of `apps/late.py`."""
    return begin("run", f"late:{interface}", "--dir", APPS, "--listen", "127.0.0.1:0", *options)


@pytest.fixture(params=["alone", "beside another"])
def wsgi(request: pytest.FixtureRequest, begin: Start, tmp_path: Path) -> Server:
    """The WSGI application, with the runtime on its threads and without."""
    if request.param == "alone":
        return serve(begin, "wsgi", "--timeout", "1s", "--threads", "4")
    path = tmp_path / "hawksbill.toml"
    path.write_text(
        'listen = "127.0.0.1:0"\n'
        "[sites.'*']\n"
        f"'/' = {{ wsgi = 'late:wsgi', timeout = '1s', threads = 4, dir = '{APPS}' }}\n"
        f"'/asgi' = {{ asgi = 'late:asgi', timeout = '1s', dir = '{APPS}' }}\n"
    )
    return begin("run", "-c", path)


def late(server: Server, path: str, http2: bool = False) -> None:
    """Asks for what is answered 504, and sees when."""
    with server.client(http2=http2) as client:
        began = time.monotonic()
        answer = client.get(path)
        took = time.monotonic() - began
        assert answer.status_code == 504
        assert "did not answer in time" in answer.text
        # Before the application is done.
        assert 1 <= took < FOR_EVER, took
        # The connection goes on.
        assert client.get("/").text == "at once"


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_view_that_hangs_is_answered_504_and_shown(wsgi: Server, http2: bool) -> None:
    late(wsgi, "/stubborn?token=secret", http2)
    wsgi.wait_for(STUBBORN)
    wsgi.wait_for(
        r"GET /stubborn: no answer within 1s: answered 504; its call goes on, on thread (wsgi-\S+); .*\n"
        r"(    .*\n)*    thread \1:\n"
    )
    assert "secret" not in wsgi.output()


def test_others_are_served_meanwhile(wsgi: Server) -> None:
    with ThreadPoolExecutor() as pool, wsgi.client() as client:
        hanging = [pool.submit(late, wsgi, "/stubborn") for _ in range(3)]
        until(lambda: client.get("/hanging").text == "3")
        meanwhile = 0
        while not any(hangs.done() for hangs in hanging):
            assert client.get("/").text == "at once"
            meanwhile += 1
        # Who has to wait for them is served once, when they are over.
        assert meanwhile > 1
        for hangs in hanging:
            hangs.result()


def test_an_answer_that_has_begun_is_not_bounded(wsgi: Server) -> None:
    with wsgi.client() as client:
        assert client.get("/begun").text == "begun, ended"
    assert "no answer" not in wsgi.output()


def test_what_waits_for_a_thread_too_long_is_answered_503(begin: Start) -> None:
    server = serve(begin, "wsgi", "--timeout", "1s", "--threads", "1")
    with ThreadPoolExecutor() as pool:
        hangs = pool.submit(lambda: server.client().get("/stubborn").status_code)
        server.wait_for("a view is stubborn")
        with server.client() as client:
            assert client.get("/").status_code == 503
        assert hangs.result() == 504
    server.wait_for("1 requests have waited 1s for a thread, all being at work: answered 503")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_zero_is_never(begin: Start, interface: str) -> None:
    server = serve(begin, interface, "--timeout", "0")
    with server.client() as client:
        assert client.get("/slow").text == "at once"
    assert "no answer" not in server.output()


@pytest.fixture
def asgi(begin: Start) -> Server:
    """The ASGI application, on the runtime's thread."""
    return serve(begin, "asgi", "--timeout", "1s")


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_task_that_waits_for_ever_is_cancelled_and_shown(asgi: Server, http2: bool) -> None:
    late(asgi, "/patient", http2)
    asgi.wait_for(PATIENT)
    said = "GET /patient: no answer within 1s: answered 504; its task is .*\n    its task:\n"
    asgi.wait_for(said)
    asgi.wait_for("thread event loop:\n")
    with asgi.client() as client:
        assert client.get("/ended").text == "CancelledError"
        assert client.get("/begun").text == "at once"


def test_a_loop_that_does_not_turn_is_shown(asgi: Server) -> None:
    answers: list[str] = []
    with asgi.client() as client:
        asking = threading.Thread(target=lambda: answers.append(client.get("/computing").text))
        asking.start()
        asgi.wait_for("the event loop has not turned for 1s")
        asgi.wait_for(COMPUTING)
        asking.join()
        assert answers == ["at once"]
        again = asgi.wait_for("the event loop turns again")
        # It was shown while nobody else could have answered.
        shown = re.search(COMPUTING, asgi.output(), re.MULTILINE)
        assert shown
        assert shown.start() < again.start()
        assert client.get("/").text == "at once"
