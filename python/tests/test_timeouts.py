"""Requests that are not answered in time: 504, and a log that shows where they stand."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, Server

Start = Callable[..., Server]
STUBBORN = r'File ".*late\.py", line \d+, in stubborn_view$'
PATIENT = r'File ".*late\.py", line \d+, in patient_view$'
COMPUTING = r'File ".*late\.py", line \d+, in computing_view$'


def serve(start: Start, interface: str, *options: str) -> Server:
    """Starts one application of `apps/late.py`."""
    return start("run", f"late:{interface}", "--dir", APPS, "--listen", "127.0.0.1:0", *options)


@pytest.fixture(params=["alone", "beside another"])
def wsgi(request: pytest.FixtureRequest, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The WSGI application, with the runtime on its threads and without."""
    if request.param == "alone":
        return serve(start, "wsgi", "--timeout", "1s", "--threads", "4")
    path = tmp_path_factory.mktemp("both") / "hawksbill.toml"
    path.write_text(
        'listen = "127.0.0.1:0"\n'
        "[sites.'*']\n"
        f"'/' = {{ wsgi = 'late:wsgi', timeout = '1s', threads = 4, dir = '{APPS}' }}\n"
        f"'/asgi' = {{ asgi = 'late:asgi', timeout = '1s', dir = '{APPS}' }}\n"
    )
    return start("run", "-c", path)


def late(server: Server, path: str, http2: bool = False) -> None:
    """Asks for what is answered 504, and sees when."""
    with server.client(http2=http2) as client:
        began = time.monotonic()
        answer = client.get(path)
        took = time.monotonic() - began
        assert answer.status_code == 504
        assert "did not answer in time" in answer.text
        assert 1 <= took < 3, took
        # The connection goes on.
        assert client.get("/").text == "at once"


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_view_that_hangs_is_answered_504_and_shown(wsgi: Server, http2: bool) -> None:
    late(wsgi, "/stubborn?token=secret", http2)
    wsgi.wait_for(STUBBORN)
    assert re.search(
        r"GET /stubborn: no answer within 1s: answered 504; its call goes on, on thread (wsgi-\S+); .*\n"
        r"(    .*\n)*    thread \1:\n",
        wsgi.output(),
    )
    assert "secret" not in wsgi.output()


def test_others_are_served_meanwhile(wsgi: Server) -> None:
    with ThreadPoolExecutor() as pool, wsgi.client() as client:
        hanging = [pool.submit(late, wsgi, "/stubborn") for _ in range(3)]
        while any(not hangs.done() for hangs in hanging):
            began = time.monotonic()
            assert client.get("/").text == "at once"
            assert time.monotonic() - began < 0.5
        for hangs in hanging:
            hangs.result()


def test_an_answer_that_has_begun_is_not_bounded(wsgi: Server) -> None:
    with wsgi.client() as client:
        assert client.get("/begun").text == "begun, ended"
    assert "no answer" not in wsgi.output()


def test_what_waits_for_a_thread_too_long_is_answered_503(start: Start) -> None:
    server = serve(start, "wsgi", "--timeout", "1s", "--threads", "1")
    with ThreadPoolExecutor() as pool:
        hangs = pool.submit(lambda: server.client().get("/stubborn").status_code)
        time.sleep(0.3)
        with server.client() as client:
            assert client.get("/").status_code == 503
        assert hangs.result() == 504
    server.wait_for("1 requests have waited 1s for a thread, all being at work: answered 503")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_zero_is_never(start: Start, interface: str) -> None:
    server = serve(start, interface, "--timeout", "0")
    with server.client() as client:
        assert client.get("/slow").text == "at once"
    assert "no answer" not in server.output()


@pytest.fixture
def asgi(start: Start) -> Server:
    """The ASGI application, on the runtime's thread."""
    return serve(start, "asgi", "--timeout", "1s")


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_task_that_waits_for_ever_is_cancelled_and_shown(asgi: Server, http2: bool) -> None:
    late(asgi, "/patient", http2)
    asgi.wait_for(PATIENT)
    said = "GET /patient: no answer within 1s: answered 504; its task is .*\n    its task:\n"
    assert re.search(said, asgi.output())
    assert "thread event loop:\n" in asgi.output()
    with asgi.client() as client:
        assert client.get("/ended").text == "CancelledError"
        assert client.get("/begun").text == "at once"


def test_a_loop_that_does_not_turn_is_shown(asgi: Server) -> None:
    answers: list[str] = []
    with asgi.client() as client:
        asking = threading.Thread(target=lambda: answers.append(client.get("/computing").text))
        asking.start()
        asgi.wait_for("the event loop has not turned for 1s")
        asgi.wait_for(COMPUTING, seconds=2)
        # Nobody else could have answered it.
        assert not answers
        asking.join()
        assert answers == ["at once"]
        asgi.wait_for("the event loop turns again")
        assert client.get("/").text == "at once"
