"""The extensions of ASGI's HTTP: trailers and files, by way of `apps/asgi_probe.py`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from harness import Server
from http2 import Http2

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@pytest.fixture
def some_file(tmp_path: Path) -> Path:
    """A file of a few blocks in which no part repeats."""
    path = tmp_path / "some file.bin"
    path.write_bytes(b"".join(number.to_bytes(4, "big") for number in range(100_000)))
    return path


def extensions(server: Server, http2: bool, **headers: str) -> set[str]:
    """What the scope announces."""
    with server.client(http2=http2) as client:
        announced: dict[str, object] = client.get("/scope", headers=headers).json()["extensions"]["value"]
    return set(announced)


# Trailers


@VERSIONS
def test_trailers_are_announced_to_who_takes_them(asgi_probe: Server, http2: bool) -> None:
    trailers = "http.response.trailers"
    assert trailers not in extensions(asgi_probe, http2)
    assert trailers in extensions(asgi_probe, http2, TE="trailers")


def test_trailers_come_behind_the_last_chunk(asgi_probe: Server) -> None:
    with asgi_probe.connect() as connection:
        ask = "GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
        connection.sendall(ask.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"trailer: x-sum, x-count" in head.lower()
    assert body == b"6\r\nturtle\r\n0\r\nx-sum: 42\r\nx-count: 6\r\n\r\n"


def test_http_1_0_has_no_place_for_trailers(asgi_probe: Server) -> None:
    with asgi_probe.connect() as connection:
        connection.sendall(b"GET /trailers HTTP/1.0\r\nTE: trailers\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"\r\n\r\nno trailers")


def test_trailers_end_a_stream_of_http2(asgi_probe: Server) -> None:
    with Http2(asgi_probe) as client:
        stream = client.ask("GET", "/trailers", te="trailers")
        assert client.whole(stream) == b"turtle"
        assert client.trailers(stream) == {"x-sum": "42", "x-count": "6"}
        other = client.ask("GET", "/trailers")
        assert client.whole(other) == b"no trailers"


# Files


@VERSIONS
def test_a_file_is_sent_by_its_path(asgi_probe: Server, http2: bool, some_file: Path) -> None:
    assert "http.response.pathsend" in extensions(asgi_probe, http2)
    with asgi_probe.client(http2=http2) as client:
        answer = client.get("/path", params={"path": str(some_file)})
        assert answer.content == some_file.read_bytes()
        assert answer.headers["content-length"] == str(some_file.stat().st_size)
        head = client.head("/path", params={"path": str(some_file)})
        assert (head.content, head.headers["content-length"]) == (b"", str(some_file.stat().st_size))


def test_an_empty_file_is_a_whole_answer(asgi_probe: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with asgi_probe.client() as client:
        answer = client.get("/path", params={"path": str(tmp_path / "empty")})
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "0", b"")


def test_what_cannot_be_sent_is_raised_before_anything_is(
    asgi_probe: Server, tmp_path: Path, some_file: Path
) -> None:
    size = some_file.stat().st_size
    with asgi_probe.client() as client:

        def raised(path: Path | str, **query: int) -> str:
            return client.get("/path", params={"path": str(path), **query}).text

        missing = tmp_path / "missing"
        assert raised(missing) == f"FileNotFoundError: [Errno 2] No such file or directory: '{missing}'"
        assert raised(tmp_path).startswith("IsADirectoryError: ")
        assert raised("/dev/zero").startswith("OSError: /dev/zero: only regular files")
        # The application's own error text has not the promised length either.
        wrong = client.get("/path", params={"path": str(some_file), "length": size + 1})
        assert wrong.status_code == 500


@VERSIONS
def test_parts_of_a_file_are_sent_among_blocks(asgi_probe: Server, http2: bool, some_file: Path) -> None:
    assert "http.response.zerocopysend" in extensions(asgi_probe, http2)
    content = some_file.read_bytes()
    with asgi_probe.client(http2=http2) as client:
        answer = client.get("/file", params={"path": str(some_file)})
    parts = [b"<", content[:10], b"|", content[10:], b"|", content[5:8], b">", content[:1]]
    assert answer.content == b"".join(parts)


def test_a_client_that_leaves_a_file_harms_nobody(asgi_probe: Server, big: Path) -> None:
    with asgi_probe.client() as leaving:
        with leaving.stream("GET", "/path", params={"path": str(big)}) as answer:
            next(answer.iter_raw())
        with pytest.raises(httpx.ReadTimeout):
            leaving.get("/sleep?seconds=9", timeout=0.2)
    with asgi_probe.client() as client:
        assert client.get("/").text == "asgi probe\n"
