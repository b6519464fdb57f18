"""64 MiB as Django's `FileResponse` and Flask's `send_file` give them, by way of `apps/wsgi_files.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MEBIBYTE
from harness import APPS, Server
from watching import until

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
FRAMEWORKS = pytest.mark.parametrize("framework", ["django", "flask"])


@pytest.fixture(scope="module")
def server(big: Path) -> Iterator[Server]:
    """The application, with the large file."""
    env = {"BIG_FILE": str(big)}
    with Server(
        "run", "wsgi_files:application", "--wsgi", "--dir", APPS, "--listen", "127.0.0.1:0", env=env
    ) as server:
        yield server


@FRAMEWORKS
@VERSIONS
@pytest.mark.parametrize("what", ["path", "unread"])
def test_it_arrives_whole_and_the_memory_stays_flat(
    server: Server, big: Path, framework: str, what: str, http2: bool
) -> None:
    received = hashlib.sha256()
    with server.client(http2=http2) as client:
        assert client.get(f"/{framework}/closed").status_code == 200
        before = server.peak()
        with client.stream("GET", f"/{framework}/{what}") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-length"] == str(64 * MEBIBYTE)
            for block in answer.iter_raw():
                received.update(block)
    assert received.digest() == hashlib.sha256(big.read_bytes()).digest()
    assert server.peak() - before < 16 * MEBIBYTE


@FRAMEWORKS
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_it_is_closed_once(server: Server, framework: str, leaves: bool) -> None:
    with server.client() as client:
        before = int(client.get(f"/{framework}/closed").text)
        with client.stream("GET", f"/{framework}/unread") as answer:
            for _ in answer.iter_raw():
                if leaves:
                    break
        until(lambda: int(client.get(f"/{framework}/closed").text) != before)
        assert int(client.get(f"/{framework}/closed").text) == before + 1


def test_a_part_is_sent_without_what_stands_before_it(server: Server, big: Path) -> None:
    """Flask answers ranges: it seeks in the wrapper."""
    with server.client() as client:
        answer = client.get("/flask/path", headers={"Range": "bytes=60000000-60999999"})
    assert (answer.status_code, answer.headers["content-length"]) == (206, "1000000")
    assert answer.content == big.read_bytes()[60_000_000:61_000_000]


@FRAMEWORKS
def test_head_says_the_length_alone(server: Server, framework: str) -> None:
    with server.client() as client:
        answer = client.head(f"/{framework}/path")
    assert (answer.headers["content-length"], answer.content) == (str(64 * MEBIBYTE), b"")
