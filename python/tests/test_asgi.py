"""ASGI 3 as an application sees it, by way of `apps/asgi_probe.py`."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import APPS, Server
from watching import PATIENCE, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@pytest.fixture
def client(asgi_probe: Server) -> Iterator[httpx.Client]:
    """A client of the probe, speaking HTTP/1.1."""
    with asgi_probe.client() as client:
        yield client


@pytest.fixture
def mark() -> str:
    """A name for one request, by which `/gone` tells what it saw."""
    return uuid.uuid4().hex


def websocket(server: Server, path: str, *offered: str) -> ClientConnection:
    """A WebSocket to the probe."""
    uri = f"ws://127.0.0.1:{server.port}{path}"
    protocols = [Subprotocol(name) for name in offered] or None
    return connect(uri, proxy=None, subprotocols=protocols, open_timeout=PATIENCE)


def gone(client: httpx.Client, mark: str, kind: str) -> dict[str, Any]:
    """The first message of a kind that the request saw, waited for."""
    found: list[dict[str, Any]] = []

    def is_seen() -> bool:
        seen = client.get("/gone", params={"id": mark}).json()
        found[:] = [message for message in seen if message["type"] == kind]
        return bool(found)

    until(is_seen)
    return found[0]


# The scope


@VERSIONS
def test_the_scope_describes_the_request(asgi_probe: Server, http2: bool) -> None:
    with asgi_probe.client("probe.test", http2) as client:
        scope = client.get("/scope?a=%20b&c", headers={"X-Twice": "1"}).json()
    values = {key: entry["value"] for key, entry in scope.items()}
    expected = {
        "type": "http",
        "http_version": "2" if http2 else "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/scope",
        "raw_path": "/scope",
        "query_string": "a=%20b&c",
        "root_path": "",
        "server": ["127.0.0.1", asgi_probe.port],
    }
    assert {key: values.get(key) for key in expected} == expected
    host, port = values["client"]
    assert host == "127.0.0.1"
    assert isinstance(port, int)
    assert values["asgi"]["version"] == "3.0"
    assert ["host", f"probe.test:{asgi_probe.port}"] in values["headers"]
    assert ["x-twice", "1"] in values["headers"]
    types = {key: scope[key]["type"] for key in ("path", "raw_path", "query_string")}
    assert types == {"path": "str", "raw_path": "bytes", "query_string": "bytes"}


def test_the_state_is_shared_and_its_namespace_is_not(client: httpx.Client) -> None:
    first, second = (client.get("/state").json() for _ in range(2))
    assert second["requests"] == first["requests"] + 1
    assert first["startups"] == second["startups"] == 1
    assert first["plain"] == second["plain"] == "as it was"


def test_the_lifespan_ends_with_the_server(start: Callable[..., Server]) -> None:
    listen = ("--listen", "127.0.0.1:0")
    server = start("run", "asgi_probe:application", "--dir", APPS, *listen)
    assert server.stop() == 0
    assert "asgi probe: lifespan shut down" in server.output()


# Bodies


@VERSIONS
def test_a_body_is_echoed_while_it_arrives(asgi_probe: Server, http2: bool) -> None:
    body = bytes(range(256)) * 2000
    blocks = (body[at : at + 5000] for at in range(0, len(body), 5000))
    with asgi_probe.client(http2=http2) as client:
        assert client.post("/echo", content=blocks).content == body
        assert client.post("/echo", content=b"").content == b""


def test_a_short_body_is_one_message(client: httpx.Client) -> None:
    answer = client.post("/digest", content=b"all of it").json()
    assert (answer["length"], answer["messages"]) == (9, 1)


@pytest.mark.parametrize("path", ["/bytes", "/sized"])
def test_blocks_of_any_size_arrive(client: httpx.Client, path: str) -> None:
    for size in (0, 1, 65_535, 65_537, 300_000):
        assert len(client.get(path, params={"size": size}).content) == size


def test_head_has_the_length_and_no_body(client: httpx.Client) -> None:
    answer = client.head("/sized?size=12345")
    assert (answer.headers["content-length"], answer.content) == ("12345", b"")
    assert client.get("/").text == "asgi probe\n"


def test_cookies_stay_apart(client: httpx.Client) -> None:
    answer = client.get("/cookies", headers={"Cookie": "a=1; b=2"})
    assert answer.json() == ["a=1; b=2"]
    expected = ["first=1; Path=/", "second=2; Path=/; HttpOnly"]
    assert answer.headers.get_list("set-cookie") == expected


@VERSIONS
def test_each_block_is_sent_when_it_is_given(asgi_probe: Server, mark: str, http2: bool) -> None:
    with (
        asgi_probe.client(http2=http2) as client,
        asgi_probe.client() as other,
        client.stream("GET", f"/steps?id={mark}&count=4") as answer,
    ):
        lines = answer.iter_lines()
        for number in range(4):
            # The next one is not made before this one has arrived.
            assert (next(lines), next(lines)) == (f"data: {number}", "")
            assert other.get(f"/step?id={mark}").status_code == 200
        assert list(lines) == []


# Failures and clients that leave


@pytest.mark.parametrize("way", ["before", "started", "none"])
def test_a_failure_before_the_first_byte_is_a_500(asgi_probe: Server, client: httpx.Client, way: str) -> None:
    answer = client.get(f"/fail/{way}")
    assert answer.status_code == 500
    assert "probe" not in answer.text
    assert "Traceback" not in answer.text
    if way != "none":
        words = {"before": "before", "started": "after"}[way]
        asgi_probe.wait_for(f"RuntimeError: probe: {words} http.response.start")


@VERSIONS
def test_a_failure_in_the_middle_does_not_look_complete(asgi_probe: Server, http2: bool) -> None:
    with asgi_probe.client(http2=http2) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/fail/middle")
        assert client.get("/").status_code == 200
    asgi_probe.wait_for("RuntimeError: probe: in the middle of the body")


def test_a_message_out_of_order_is_refused(client: httpx.Client) -> None:
    answer = client.get("/fail/order")
    assert answer.status_code == 200
    assert "Error" in answer.text


@pytest.mark.parametrize("code", [0, 99, 1000])
def test_an_impossible_status_harms_its_own_request_only(client: httpx.Client, code: int) -> None:
    assert client.get("/status", params={"code": code}).status_code == 500
    assert client.get("/").status_code == 200


@VERSIONS
def test_the_application_learns_that_the_client_left(
    asgi_probe: Server, client: httpx.Client, mark: str, http2: bool
) -> None:
    with (
        asgi_probe.client(http2=http2) as leaving,
        leaving.stream("GET", f"/until-gone?id={mark}") as answer,
    ):
        next(answer.iter_raw())
    gone(client, mark, "http.disconnect")


def test_sending_to_a_client_that_left_raises(asgi_probe: Server, client: httpx.Client, mark: str) -> None:
    with (
        asgi_probe.client() as leaving,
        leaving.stream("GET", f"/send-until-gone?id={mark}") as answer,
    ):
        next(answer.iter_raw())
    # ASGI, HTTP: 'send' after a disconnect raises an OSError.
    assert "OSError" in gone(client, mark, "raised")["kinds"]


# WebSockets


def test_a_websocket_has_a_scope_of_its_own(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws/scope?a=b", "one", "two") as socket:
        text = socket.recv(timeout=PATIENCE)
    scope = httpx.Response(200, content=text).json()
    values = {key: scope[key]["value"] for key in ("type", "scheme", "query_string")}
    assert values == {"type": "websocket", "scheme": "ws", "query_string": "a=b"}
    assert scope["subprotocols"]["value"] == ["one", "two"]
    assert "method" not in scope


def test_the_application_chooses_the_subprotocol(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws/subprotocol", "one", "two") as socket:
        assert socket.subprotocol == "two"


def test_compression_is_agreed_on(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws") as socket:
        assert socket.response is not None
        assert socket.response.headers["sec-websocket-extensions"].startswith("permessage-deflate")
        for text in ("turtle " * 50_000, "short"):
            socket.send(text)
            assert socket.recv(timeout=PATIENCE) == text


def test_the_settings_of_websockets_hold(start: Callable[..., Server], tmp_path: Path, mark: str) -> None:
    config = tmp_path / "hawksbill.toml"
    config.write_text(
        f"""
        listen = ["127.0.0.1:0"]
        [apps.probe]
        asgi = "asgi_probe:application"
        dir = "{APPS}"
        websocket = {{ max_message = "1KB", ping = "100ms", ping_timeout = "1s", compress = false }}
        [sites."*"]
        "/" = "probe"
        """
    )
    server = start("run", "-c", config)
    with websocket(server, "/ws") as talkative:
        assert talkative.response is not None
        assert "sec-websocket-extensions" not in talkative.response.headers
        talkative.send("x" * 1024)
        assert talkative.recv(timeout=PATIENCE) == "x" * 1024
        # The library answers pings by itself; who did not would have had its time.
        time.sleep(1.5)
        talkative.send("x" * 1025)
        with pytest.raises(ConnectionClosed) as closed:
            talkative.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    with server.connect() as silent, server.client() as client:
        silent.sendall(
            f"GET /ws/track?id={mark} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert gone(client, mark, "websocket.disconnect")["code"] == 1006


def test_headers_of_the_accept_arrive(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws/headers") as socket:
        assert socket.response is not None
        assert socket.response.headers["x-probe"] == "yes"


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1008, "no"), (4321, "enough, ça va")])
def test_a_close_reaches_the_client(asgi_probe: Server, code: int, reason: str) -> None:
    with (
        websocket(asgi_probe, f"/ws/close?code={code}&reason={reason}") as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


@pytest.mark.parametrize("path", ["/ws/reject", "/ws/reject-oddly", "/ws/nothing"])
def test_a_websocket_closed_before_accepting_is_a_403(asgi_probe: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        websocket(asgi_probe, path)
    assert refused.value.response.status_code == 403


def test_an_application_denies_a_websocket_in_its_own_words(asgi_probe: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        websocket(asgi_probe, "/ws/deny")
    response = refused.value.response
    assert (response.status_code, response.body) == (401, b"who are you?")
    assert response.headers["www-authenticate"] == "Basic"


def test_a_websocket_that_fails_is_closed_with_1011(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws/fail") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    asgi_probe.wait_for("RuntimeError: probe: in a WebSocket")


def test_the_clients_close_reaches_the_application(
    asgi_probe: Server, client: httpx.Client, mark: str
) -> None:
    with websocket(asgi_probe, f"/ws/track?id={mark}") as socket:
        socket.send("text")
        socket.send(b"bytes")
        socket.close(4001, "that was all")
    end = gone(client, mark, "websocket.disconnect")
    assert (end["code"], end.get("reason")) == (4001, "that was all")
    first, second = client.get("/gone", params={"id": mark}).json()[:2]
    assert (first["text"], first.get("bytes")) == ("text", None)
    assert (second["bytes"], second.get("text")) == ("bytes", None)


def test_a_lost_connection_is_a_disconnect_with_1006(
    asgi_probe: Server, client: httpx.Client, mark: str
) -> None:
    with websocket(asgi_probe, f"/ws/track?id={mark}") as lost:
        lost.socket.shutdown(socket.SHUT_RDWR)
    assert gone(client, mark, "websocket.disconnect")["code"] == 1006


def test_many_messages_arrive_whole_and_in_number(asgi_probe: Server) -> None:
    with websocket(asgi_probe, "/ws/flood?count=500&size=20000") as socket:
        sizes = [len(message) for message in socket]
    assert sizes == [20_000] * 500
