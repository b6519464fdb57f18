"""The example's sites by httpx, curl and websockets, as other programs use them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from conftest import ADMIN_PASSWORD, MEBIBYTE
from harness import Server
from watching import PATIENCE, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

SITES = ("shop", "avatar", "monster", "live")
VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


def curl(
    server: Server,
    site: str,
    path: str,
    *options: str,
    http2: bool,
    stdin: IO[bytes] | None = None,
) -> bytes:
    """The body of curl's answer, which has to have a status below 400."""
    program = shutil.which("curl")
    assert program, "no curl: install Debian's package 'curl'"
    version = "--http2-prior-knowledge" if http2 else "--http1.1"
    host = f"Host: {site}.localhost:{server.port}"
    command = [program, "-sS", "--fail", "--max-time", "60", "--noproxy", "*", version]
    command += ["-H", host, *options, server.base + path]
    source = stdin or subprocess.DEVNULL
    done = subprocess.run(command, stdin=source, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def websocket(server: Server, path: str) -> ClientConnection:
    """A WebSocket to the site live.localhost."""
    uri = f"ws://live.localhost:{server.port}{path}"
    return connect(uri, sock=server.connect(), proxy=None)


def log_in(client: httpx.Client) -> None:
    """Fills in the shop's login form."""
    token = csrf_token(client.get("/accounts/login/"))
    form = {"username": "admin", "password": ADMIN_PASSWORD, "csrfmiddlewaretoken": token}
    answer = client.post("/accounts/login/", data=form)
    assert answer.status_code == 302, answer.text


def csrf_token(page: httpx.Response) -> str:
    """The token in a page's first form."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found, page.text
    return found[1]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose checksums and pixels have been verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert zlib.crc32(kind + body) == checksum
        chunks[kind] = body
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)
    return width, height


# Every site


@VERSIONS
@pytest.mark.parametrize("site", SITES)
def test_every_site_answers(domains: Server, site: str, http2: bool) -> None:
    with domains.client(f"{site}.localhost", http2) as client:
        answer = client.get("/")
    assert answer.status_code == 200
    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert answer.headers["content-type"].startswith("text/html")
    assert curl(domains, site, "/", http2=http2).startswith(b"<!doctype html>")


@VERSIONS
def test_a_host_that_no_site_names_is_misdirected(domains: Server, http2: bool) -> None:
    with domains.client("elsewhere.localhost", http2) as client:
        answer = client.get("/")
    assert answer.status_code == 421
    assert "shop" not in answer.text


# The shop


@VERSIONS
def test_a_photo_of_64_mb_goes_up_and_comes_back(domains: Server, big: Path, http2: bool) -> None:
    with domains.client("shop.localhost", http2) as client:
        log_in(client)
        name = f"Huge {'two' if http2 else 'one'}"
        form = {"name": name, "price": "1", "csrfmiddlewaretoken": ""}
        form["csrfmiddlewaretoken"] = csrf_token(client.get("/products/new/"))
        with big.open("rb") as file:
            files = {"photo": ("huge.png", file, "image/png")}
            answer = client.post("/products/new/", data=form, files=files)
        assert answer.status_code == 302, answer.text
        detail = client.get(answer.headers["location"])
        found = re.search(r'class="photo" src="(/media/[^"]+)"', detail.text)
        assert found, detail.text
        photo = client.get(found[1])
        assert photo.headers["content-type"] == "image/png"
        assert photo.content == big.read_bytes()
    by_curl = curl(domains, "shop", found[1], http2=http2)
    assert hashlib.sha256(by_curl).digest() == hashlib.sha256(big.read_bytes()).digest()


def test_a_form_without_its_token_is_refused(domains: Server) -> None:
    with domains.client("shop.localhost") as client:
        log_in(client)
        assert client.post("/products/new/", data={"name": "x", "price": "1"}).status_code == 403


def test_a_form_from_another_origin_is_refused(domains: Server) -> None:
    with domains.client("shop.localhost") as client:
        form = {"csrfmiddlewaretoken": csrf_token(client.get("/"))}
        answers = {
            origin: client.post("/products/1/basket/", data=form, headers={"Origin": origin})
            for origin in (
                f"http://shop.localhost:{domains.port}",
                f"http://evil.localhost:{domains.port}",
                f"https://shop.localhost:{domains.port}",
            )
        }
    assert [answer.status_code for answer in answers.values()] == [302, 403, 403]


def test_static_files_are_not_sent_twice(domains: Server) -> None:
    path = "/static/catalog/shop.css"
    with domains.client("shop.localhost") as client:
        first = client.get(path)
        assert first.status_code == 200
        assert first.headers["content-type"].startswith("text/css")
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        part = client.get(path, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, first.content[5:10])


def test_static_and_media_give_only_what_is_theirs(domains: Server) -> None:
    with domains.client("shop.localhost") as client:
        for path in ("/static2/catalog/shop.css", "/media/nothing.png"):
            assert client.get(path).status_code == 404, path
    for path in (
        "/media/../shop.sqlite3",
        "/media/..%2fshop.sqlite3",
        "/media/%2e%2e/shop.sqlite3",
        "/static/../secret_key",
    ):
        host = f"Host: shop.localhost:{domains.port}"
        command = ["curl", "-s", "--path-as-is", "--noproxy", "*", "-H", host]
        command += ["-o", "/dev/null", "-w", "%{http_code}", domains.base + path]
        status = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
        assert status in (b"400", b"404"), path


# The avatar and its monster


@VERSIONS
def test_the_avatar_shows_the_salted_hash(domains: Server, http2: bool) -> None:
    expected = hashlib.sha256("a pinch of saltZoë".encode()).hexdigest()
    with domains.client("avatar.localhost", http2) as client:
        page = client.post("/", data={"name": "Zoë"})
    assert page.status_code == 200
    assert f'src="/monster/{expected}"' in page.text
    by_curl = curl(domains, "avatar", "/", "--data-urlencode", "name=Zoë", http2=http2)
    assert expected.encode() in by_curl


def test_the_avatar_fetches_a_monster_once(domains: Server) -> None:
    digest = hashlib.sha256(str(time.time_ns()).encode()).hexdigest()
    with domains.client("avatar.localhost") as client:
        first, second = (client.get(f"/monster/{digest}") for _ in range(2))
    assert [answer.headers["x-cache"] for answer in (first, second)] == ["miss", "hit"]
    assert first.headers["content-type"] == "image/png"
    assert first.content == second.content
    with domains.client("monster.localhost") as client:
        assert client.get(f"/{digest}.png").content == first.content


def test_a_monster_is_distinct_and_stays_the_same(domains: Server) -> None:
    with domains.client("monster.localhost") as client:
        one, again, other = (
            client.get(f"/{seed * 32}.png", params={"size": "64"}).content for seed in ("ab", "ab", "cd")
        )
        assert one == again != other
        assert png_size(one) == (64, 64)
        assert client.get("/abcdef01.png?size=9999").status_code == 400
        assert client.get("/nothing.png").status_code == 404
        assert client.post("/").status_code == 405


# The live site


@VERSIONS
def test_events_are_sent_as_they_happen(domains: Server, http2: bool) -> None:
    numbers: list[int] = []
    with (
        domains.client("live.localhost", http2) as client,
        client.stream("GET", "/events?count=1000&interval=0.1") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: {") and "number" in line:
                numbers.append(json.loads(line.removeprefix("data: "))["number"])
            # Long before the last of them has happened.
            if len(numbers) == 5:
                break
    assert numbers == [1, 2, 3, 4, 5]


def test_a_websocket_echoes_text_and_bytes(domains: Server) -> None:
    with websocket(domains, "/ws") as socket:
        for message in ("Hello", "zażółć 🐢", "", b"\x00\xff", b"x" * MEBIBYTE):
            socket.send(message)
            assert socket.recv(timeout=PATIENCE) == message


def test_the_lifespan_state_counts(domains: Server) -> None:
    with domains.client("live.localhost") as client:
        before = client.get("/api/status").json()
        with websocket(domains, "/ws") as socket:
            socket.send("one more")
            socket.recv(timeout=PATIENCE)
            during = client.get("/api/status").json()
        assert during["messages"] == before["messages"] + 1
        assert during["open_sockets"] == before["open_sockets"] + 1
        # The application is told of the close.
        until(lambda: client.get("/api/status").json()["open_sockets"] == before["open_sockets"])


@VERSIONS
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_64_mb_go_up(domains: Server, big: Path, http2: bool, chunked: bool) -> None:
    data = big.read_bytes()
    expected = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(data), MEBIBYTE):
            yield data[start : start + MEBIBYTE]

    # Even when the length is known the client gets blocks: it would copy all that is left
    # of one large block for each frame of HTTP/2.
    headers = {} if chunked else {"Content-Length": str(len(data))}
    with domains.client("live.localhost", http2) as client:
        answer = client.post("/api/digest", content=blocks(), headers=headers)
    assert answer.json() == expected
    # curl does not know the length of its standard input, and on HTTP/1.1 it sends
    # `Expect: 100-continue` with bodies of this size.
    source = ["-X", "POST", "-T", "-"] if chunked else ["--data-binary", f"@{big}"]
    with big.open("rb") as file:
        by_curl = curl(domains, "live", "/api/digest", *source, http2=http2, stdin=file)
    assert json.loads(by_curl) == expected


@VERSIONS
def test_64_mb_come_down(domains: Server, http2: bool) -> None:
    path = f"/api/bytes?size={64 * MEBIBYTE}"
    with domains.client("live.localhost", http2) as client:
        data = client.get(path).content
    assert len(data) == 64 * MEBIBYTE
    numbers = [int(data[start : start + 15]) for start in range(0, len(data), 65536)]
    assert numbers == list(range(1024))
    assert set(data[16:65536]) == {ord(".")}
    assert curl(domains, "live", path, http2=http2) == data


def test_an_unknown_websocket_path_is_refused(domains: Server) -> None:
    with pytest.raises(Exception, match="403"), websocket(domains, "/nothing"):
        pass


def test_a_close_code_reaches_the_client(asgi_probe: Server) -> None:
    uri = f"ws://127.0.0.1:{asgi_probe.port}/ws/close?code=4321&reason=enough"
    with connect(uri, proxy=None) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough")
