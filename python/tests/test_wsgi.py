"""WSGI (PEP 3333) as an application sees it, by way of `apps/wsgi_probe.py`."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import APPS, Server
from pattern import pieces
from watching import until
from wsgi_probe import INPUT

VERSIONS = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@pytest.fixture
def client(wsgi_probe: Server) -> Iterator[httpx.Client]:
    """A client of the probe, speaking HTTP/1.1."""
    with wsgi_probe.client() as client:
        yield client


def environ(answer: httpx.Response) -> dict[str, Any]:
    """The values of `/environ`."""
    return {key: entry["value"] for key, entry in answer.json().items()}


def eventually_closed(client: httpx.Client, mark: str) -> dict[str, Any]:
    """What `/closed` says once the body has been closed, which may be after its end."""
    state: dict[str, Any] = {}

    def is_closed() -> bool:
        state.update(client.get("/closed", params={"id": mark}).json())
        return bool(state["closed"])

    until(is_closed)
    return state


# The environ


@VERSIONS
def test_the_environ_describes_the_request(wsgi_probe: Server, http2: bool) -> None:
    with wsgi_probe.client("probe.test", http2) as client:
        seen = environ(client.post("/environ?a=%20b&c", content=b"xyz"))
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ",
        "QUERY_STRING": "a=%20b&c",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": f"probe.test:{wsgi_probe.port}",
        "SERVER_PORT": str(wsgi_probe.port),
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.version": "(1, 0)",
        "wsgi.run_once": False,
        "wsgi.multithread": True,
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert seen["SERVER_PROTOCOL"] in (("HTTP/2", "HTTP/2.0") if http2 else ("HTTP/1.1",))
    assert "HTTP_CONTENT_LENGTH" not in seen


def test_the_environ_has_the_types_that_pep_3333_names(client: httpx.Client) -> None:
    entries = client.get("/environ", headers={"X-Text": "1"}).json()
    variables = {key: entry for key, entry in entries.items() if key.isupper()}
    assert variables
    assert {entry["type"] for entry in variables.values()} == {"str"}
    types = {key: entries[key]["type"] for key in ("wsgi.version", "wsgi.multithread")}
    assert types == {"wsgi.version": "tuple", "wsgi.multithread": "bool"}
    assert {"wsgi.input", "wsgi.errors", "wsgi.multiprocess"} <= entries.keys()


def test_the_process_environment_stays_outside(client: httpx.Client) -> None:
    assert "PATH" not in environ(client.get("/environ"))


def test_headers_are_joined_and_cannot_impersonate_each_other(client: httpx.Client) -> None:
    headers = [("X-Twice", "a"), ("X-Twice", "b"), ("X_Who", "forged"), ("X-Who", "x")]
    seen = environ(client.get("/environ", headers=headers))
    assert seen["HTTP_X_TWICE"].replace(" ", "") == "a,b"
    assert seen["HTTP_X_WHO"] == "x"


def test_text_outside_ascii_arrives_as_latin_1(client: httpx.Client) -> None:
    answer = client.get("/environ", headers=[(b"X-Name", "Zoë".encode())])
    assert environ(answer)["HTTP_X_NAME"].encode("latin-1") == "Zoë".encode()
    answer = client.get("/header?name=X-Back&value=%C3%A9")
    assert (b"x-back", b"\xe9") in [(name.lower(), value) for name, value in answer.headers.raw]


# The body of a request


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("how", INPUT)
def test_the_input_reads_like_a_file(client: httpx.Client, how: str, chunked: bool) -> None:
    body = b"first\nsecond\r\n\n" + b"long" * 50_000 + b"\nlast without an end"
    blocks = (body[at : at + 7000] for at in range(0, len(body), 7000))
    answer = client.post(f"/input?how={how}", content=blocks if chunked else body)
    expected = [block.decode("latin-1") for block in INPUT[how](io.BytesIO(body))]
    assert answer.json() == expected


def test_a_body_left_unread_does_not_become_the_next_request(client: httpx.Client) -> None:
    body = b"GET /nothing HTTP/1.1\r\n\r\n" * 20_000
    for _ in range(3):
        assert client.post("/", content=body).status_code == 200
        assert client.get("/").text == "wsgi probe\n"


# The answer


def test_cookies_stay_apart(client: httpx.Client) -> None:
    answer = client.get("/cookies", headers={"Cookie": "a=1; b=2"})
    assert answer.json() == {"a": "1", "b": "2"}
    expected = ["first=1; Path=/", "second=2; Path=/; HttpOnly"]
    assert answer.headers.get_list("set-cookie") == expected


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_keeps_its_target(client: httpx.Client, code: int) -> None:
    answer = client.get("/redirect", params={"status": str(code), "to": "/a?b=c#d"})
    assert (answer.status_code, answer.headers["location"]) == (code, "/a?b=c#d")


@pytest.mark.parametrize("line", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body(client: httpx.Client, line: str) -> None:
    answer = client.get("/status", params={"line": line})
    assert (answer.status_code, answer.content) == (int(line[:3]), b"")
    assert "transfer-encoding" not in answer.headers


def test_head_has_the_length_and_no_body(client: httpx.Client) -> None:
    answer = client.head("/sized?size=12345")
    assert (answer.headers["content-length"], answer.content) == ("12345", b"")
    assert client.get("/").text == "wsgi probe\n"


@pytest.mark.parametrize("path", ["/bytes", "/sized", "/file"])
def test_blocks_of_any_size_arrive(client: httpx.Client, path: str) -> None:
    for size in (0, 1, 65_535, 65_537, 300_000):
        assert len(client.get(path, params={"size": size}).content) == size


@VERSIONS
@pytest.mark.parametrize("size", [0, 1, 131_072, 1_000_001])
def test_a_file_is_sent_from_where_it_stands(wsgi_probe: Server, size: int, http2: bool) -> None:
    with wsgi_probe.client(http2=http2) as client:
        for _ in range(2):
            answer = client.get("/file", params={"size": size, "kind": "disk"})
            assert answer.content == b"".join(pieces(size, 65536))
        head = client.head("/file", params={"size": size, "kind": "disk"})
    assert head.content == b""


def test_write_comes_before_the_iterable(client: httpx.Client) -> None:
    assert client.get("/write").text == "one\ntwo\nthree\n"


@VERSIONS
@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize("meanwhile", ["waiting", "computing"])
def test_each_block_is_sent_when_it_is_given(
    wsgi_probe: Server, http2: bool, burst: int, meanwhile: str
) -> None:
    mark = uuid.uuid4().hex
    with (
        wsgi_probe.client(http2=http2) as client,
        wsgi_probe.client() as other,
        client.stream("GET", f"/steps?id={mark}&count=4&burst={burst}&{meanwhile}=1") as answer,
    ):
        lines = answer.iter_lines()
        for number in range(4):
            # Those after them are not made before these have arrived.
            assert [next(lines) for _ in range(burst)] == [str(number)] * burst
            assert other.get(f"/step?id={mark}").status_code == 200
        assert list(lines) == []


@pytest.mark.parametrize("kind", ["list", "iterator"])
def test_close_is_called_once_and_in_the_thread_of_the_call(client: httpx.Client, kind: str) -> None:
    mark = f"finished-{kind}"
    assert len(client.get(f"/tracked?id={mark}&kind={kind}&size=200000").content) == 200_000
    state = eventually_closed(client, mark)
    assert state["closed"] == 1
    assert len(set(state["threads"].values())) == 1


def test_close_is_called_when_the_client_leaves(client: httpx.Client) -> None:
    with client.stream("GET", f"/tracked?id=left&size={2**30}") as answer:
        next(answer.iter_raw())
    assert eventually_closed(client, "left")["closed"] == 1


# Failures


@pytest.mark.parametrize("way", ["before", "started", "none", "str"])
def test_a_failure_before_the_first_byte_is_a_500(wsgi_probe: Server, client: httpx.Client, way: str) -> None:
    answer = client.get(f"/fail/{way}")
    assert answer.status_code == 500
    assert "probe" not in answer.text
    assert "Traceback" not in answer.text
    if way in ("before", "started"):
        words = {"before": "before start_response", "started": "after start_response"}
        wsgi_probe.wait_for(f"RuntimeError: probe: {words[way]}")


@VERSIONS
def test_a_failure_in_the_middle_does_not_look_complete(wsgi_probe: Server, http2: bool) -> None:
    with wsgi_probe.client(http2=http2) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/fail/middle")
        assert client.get("/").status_code == 200
    wsgi_probe.wait_for("RuntimeError: probe: in the middle of the body")


def test_an_answer_can_be_replaced_until_it_is_sent(client: httpx.Client) -> None:
    answer = client.get("/fail/replaced")
    assert (answer.status_code, answer.text) == (503, "replaced\n")
    assert "x-thrown-away" not in answer.headers


@pytest.mark.parametrize("line", ["99 Too Low", "1000 Too High", "OK", "", "200 A\r\nX: y"])
def test_an_impossible_status_harms_its_own_request_only(client: httpx.Client, line: str) -> None:
    assert client.get("/status", params={"line": line}).status_code == 500
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Split", "a\r\nX-Other: b"), ("X Space", "a"), ("", "a"), ("X-Nul", "\0")],
)
def test_an_impossible_header_harms_its_own_request_only(client: httpx.Client, name: str, value: str) -> None:
    answer = client.get("/header", params={"name": name, "value": value})
    assert answer.status_code == 500
    assert "x-other" not in answer.headers
    assert client.get("/").status_code == 200


# Threads


def test_four_requests_run_at_once(wsgi_probe: Server) -> None:
    def ask(_: int) -> str:
        with wsgi_probe.client() as client:
            return client.get("/sleep?seconds=1").text

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["slept\n"] * 4
    # One after the other they would take four seconds.
    assert time.monotonic() - began < 4


CROWDED = """
listen = "127.0.0.1:0"

[apps.probe]
wsgi = "wsgi_probe:application"
dir = "{dir}"
threads = 2

[sites."*"]
"/" = "probe"
"/still" = {{ respond = "still" }}
"""


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Server]:
    """The probe on two threads, and a route that needs none."""
    config = tmp_path / "hawksbill.toml"
    config.write_text(CROWDED.format(dir=APPS))
    with Server("run", "--config", config) as server:
        yield server


def get(server: Server, path: str) -> bytes:
    """A page by a connection of its own."""
    with server.client() as client:
        return client.get(path).content


def test_a_crowd_is_served_to_its_last(crowded: Server) -> None:
    large = 3 * 2**20
    paths = ["/sleep?seconds=0.02", "/still", f"/sized?size={large}&piece=65536"] * 20
    with ThreadPoolExecutor(12) as pool:
        bodies = list(pool.map(lambda path: get(crowded, path), paths))
    assert bodies[0::3] == [b"slept\n"] * 20
    assert bodies[1::3] == [b"still"] * 20
    assert [len(body) for body in bodies[2::3]] == [large] * 20


def test_what_needs_no_thread_waits_for_none(crowded: Server) -> None:
    with ThreadPoolExecutor(6) as pool:
        slow = [pool.submit(get, crowded, "/sleep?seconds=5") for _ in range(6)]
        until(lambda: sum(one.running() for one in slow) == 6)
        for _ in range(20):
            assert get(crowded, "/still") == b"still"
        assert not any(one.done() for one in slow)
        assert [one.result() for one in slow] == [b"slept\n"] * 6


@VERSIONS
def test_the_digest_counts_what_was_sent(wsgi_probe: Server, http2: bool) -> None:
    with wsgi_probe.client(http2=http2) as client:
        answer = client.post("/digest?piece=1000", content=b"x" * 10_500)
    assert json.loads(answer.content)["length"] == 10_500
