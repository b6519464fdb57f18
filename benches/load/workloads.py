"""The table of what is asked of each server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Interface = Literal["wsgi", "asgi"]
Kind = Literal["http", "http2", "websocket", "idle", "idle websocket"]

KILOBYTE = 1024

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "http://127.0.0.1/basket?page=2",
    "Cookie": "sessionid=q8v1m3c7x5z2b9n4k6j0h8g2f5d7s1a3; csrftoken=L2p9T6r4W1y8Q5e3; theme=light",
    "DNT": "1",
    "Cache-Control": "max-age=0",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
"""The twelve headers that a browser sends with a page, beside Host."""

SESSION = {"Cookie": "sessionid=loadloadloadloadloadloadloadload"}
"""The session that `apps/django_page.py` makes."""


@dataclass(frozen=True)
class Workload:
    """One thing that is asked again and again, and of whom."""

    name: str
    """As in `--only`; it begins with the interface."""
    title: str
    """The heading of its table."""
    interface: Interface
    kind: Kind = "http"
    module: str = "plain"
    """The application's module in `apps`."""
    path: str = "/"
    connections: int = 64
    streams: int = 1
    """HTTP/2: requests at once on each connection."""
    headers: tuple[tuple[str, str], ...] = ()
    body: int = 0
    """Bytes sent with each request, or in each message."""
    size: int = 13
    """At least so many bytes come back."""
    threads: int | None = None
    """WSGI: that many threads; `None`: what suits the server."""
    bulk: bool = False
    """Whether MB/s say more of it than requests."""

    @property
    def is_idle(self) -> bool:
        """Whether memory is measured, not speed."""
        return self.kind.startswith("idle")

    def request(self, host: str) -> bytes:
        """The request as HTTP/1.1 has it."""
        method = "POST" if self.body else "GET"
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {self.body}"]
        return "\r\n".join([*lines, "", ""]).encode() + b"x" * self.body


_HELLO = Workload("hello", "hello: GET, 13 bytes, 64 connections", "wsgi")
_TEN = 10 * KILOBYTE

_BOTH = (
    _HELLO,
    replace(
        _HELLO, name="headers", title="hello with 12 headers of a browser", headers=tuple(BROWSER.items())
    ),
    replace(_HELLO, name="echo", title="echo of 10 KB, 64 connections", path="/echo", body=_TEN, size=_TEN),
    replace(_HELLO, name="large", title="an answer of 10 KB, 64 connections", path="/large", size=_TEN),
    replace(
        _HELLO,
        name="stream",
        title="10 MB streamed in pieces of 64 KB, without Content-Length, 8 connections",
        path="/stream",
        connections=8,
        size=10 * KILOBYTE**2,
        bulk=True,
    ),
    replace(
        _HELLO,
        name="rows",
        title="1000 rows of 100 bytes, one by one, without Content-Length, 8 connections",
        path="/rows",
        connections=8,
        size=1000 * 100,
    ),
    replace(
        _HELLO,
        name="sleep",
        title="a request that sleeps for 10 ms, 64 connections",
        path="/sleep",
        threads=16,
    ),
    replace(
        _HELLO,
        name="http2",
        title="hello by HTTP/2 with prior knowledge, 8 connections with 32 streams each",
        kind="http2",
        connections=8,
        streams=32,
    ),
    replace(_HELLO, name="one", title="one connection, one request at a time", connections=1),
    replace(
        _HELLO,
        name="django",
        title="a page of Django: session, user, 20 rows, template; SQLite; 16 connections",
        module="django_page",
        connections=16,
        headers=tuple(SESSION.items()),
        size=1000,
    ),
    replace(_HELLO, name="idle", title="memory at rest, and of idle connections", kind="idle"),
)

WEBSOCKET = Workload(
    "websocket-echo",
    "WebSocket echo of 1 KB, 16 connections, one message under way on each",
    "asgi",
    kind="websocket",
    path="/socket",
    connections=16,
    body=KILOBYTE,
    size=KILOBYTE,
)


def _of(interface: Interface) -> tuple[Workload, ...]:
    def one(workload: Workload) -> Workload:
        threads = workload.threads if interface == "wsgi" else None
        title = f"{interface.upper()}, {workload.title}" + (f", {threads} threads" if threads else "")
        name = f"{interface}-{workload.name}"
        return replace(workload, name=name, title=title, interface=interface, threads=threads)

    return tuple(map(one, _BOTH))


WORKLOADS: tuple[Workload, ...] = (
    *_of("wsgi"),
    *_of("asgi"),
    WEBSOCKET,
    replace(
        WEBSOCKET,
        name="websocket-idle",
        title="memory of idle WebSockets",
        kind="idle websocket",
        path="/socket",
    ),
)


def chosen(names: list[str]) -> tuple[Workload, ...]:
    """The workloads of these names; `hello` is `wsgi-hello` and `asgi-hello`, `asgi` all of ASGI's.

    Raises `ValueError`, with what there is, for a name of none.
    """
    for name in names:
        if not any(_matches(workload, name) for workload in WORKLOADS):
            known = ", ".join(workload.name for workload in WORKLOADS)
            raise ValueError(f"no workload is called '{name}'; there are {known}")
    return tuple(w for w in WORKLOADS if not names or any(_matches(w, name) for name in names))


def _matches(workload: Workload, name: str) -> bool:
    return name in (workload.name, *workload.name.split("-", 1))
