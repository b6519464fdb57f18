"""As many threads do the requests as these can do with: one where they compute, many where they wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import pytest
from harness import Server
from watching import until

THREADS = 6

APPLICATION = """
import hashlib
import threading
import time

BLOCK = bytes(4096)
TOGETHER = threading.Barrier(4)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/together":
        # Four requests, each within a thread of its own, or none.
        TOGETHER.wait(30)
    else:
        # Lets go of the interpreter as often as a page does that has rows of a database.
        for _ in range(5):
            until = time.thread_time() + 0.0002
            while time.thread_time() < until:
                pass
            hashlib.sha256(BLOCK)
    thread = str(threading.get_ident()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(thread)))])
    return [thread]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The application above."""
    (tmp_path / "threads.py").write_text(APPLICATION)
    words = ("run", "--dir", tmp_path, "--threads", str(THREADS), "--workers", "1")
    with Server(*words, "--listen", "127.0.0.1:0", "threads:application") as server:
        yield server


@contextmanager
def computing(server: Server) -> Iterator[deque[str]]:
    """A crowd that asks for what computes; gives in which threads the last requests were."""
    last: deque[str] = deque(maxlen=2000)
    over = threading.Event()

    def ask() -> None:
        # Quick, so that there always is a crowd.
        client = HTTPConnection("localhost")
        client.sock = server.connect()
        with closing(client):
            while not over.is_set():
                client.request("GET", "/")
                last.append(client.getresponse().read().decode())

    with ThreadPoolExecutor(2 * THREADS) as pool:
        asked = [pool.submit(ask) for _ in range(2 * THREADS)]
        try:
            yield last
        finally:
            over.set()
        for one in asked:
            one.result()


def together(server: Server) -> int:
    """In how many threads four requests are that wait for each other."""

    def ask(_: int) -> str:
        with server.client() as client:
            answer = client.get("/together")
            assert answer.status_code == 200
            return answer.text

    with ThreadPoolExecutor(4) as pool:
        return len(set(pool.map(ask, range(4))))


def test_what_computes_is_done_by_one_thread_and_what_waits_by_many(server: Server) -> None:
    assert together(server) == 4

    def are_in_one_thread() -> bool:
        """Hardly ever another one than before; threads that take turns do so with every few requests."""
        seen = list(last)
        return len(seen) == last.maxlen and sum(one != other for one, other in pairwise(seen)) < 40

    with computing(server) as last:
        until(are_in_one_thread)
        # Whoever waits is noticed, and held against one thread for a while.
        assert together(server) == 4
        last.clear()
        until(are_in_one_thread)
        assert together(server) == 4
