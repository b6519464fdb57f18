"""64 MiB up and down, by WSGI and ASGI, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MEBIBYTE
from harness import Server
from pattern import pieces

SIZE = 64 * MEBIBYTE
VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@pytest.fixture(params=["wsgi_probe", "asgi_probe"])
def probe(request: pytest.FixtureRequest) -> Server:
    """Each probe in turn."""
    server: Server = request.getfixturevalue(request.param)
    return server


@VERSIONS
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_what_goes_up_is_what_was_sent(probe: Server, big: Path, http2: bool, chunked: bool) -> None:
    data = big.read_bytes()

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(data), MEBIBYTE):
            yield data[start : start + MEBIBYTE]

    headers = {} if chunked else {"Content-Length": str(len(data))}
    with probe.client(http2=http2) as client:
        answer = client.post("/digest", content=blocks(), headers=headers).json()
    assert answer["length"] == SIZE
    assert answer["sha256"] == hashlib.sha256(data).hexdigest()


@VERSIONS
@pytest.mark.parametrize("path", ["/bytes", "/sized"])
@pytest.mark.parametrize("piece", [10_000, 65_536, MEBIBYTE])
def test_what_comes_down_is_what_was_given(probe: Server, path: str, piece: int, http2: bool) -> None:
    expected = hashlib.sha256()
    for block in pieces(SIZE, piece):
        expected.update(block)
    received, length = hashlib.sha256(), 0
    with (
        probe.client(http2=http2) as client,
        client.stream("GET", path, params={"size": SIZE, "piece": piece}) as answer,
    ):
        assert ("content-length" in answer.headers) == (path == "/sized")
        for block in answer.iter_raw():
            received.update(block)
            length += len(block)
    assert length == SIZE
    assert received.hexdigest() == expected.hexdigest()
