"""A plain WSGI callable (PEP 3333) that shows a server's behaviour, one path for each.

| path | what it does |
|---|---|
| `/` | 200, `wsgi probe` |
| `/environ` | the environ as JSON: key to `{"type", "value"}` |
| `/echo` | the body, whole, with the request's content type |
| `/digest?piece=N` | reads the body N bytes at a time: `{"length", "sha256", "reads"}` |
| `/input?how=H` | what `wsgi.input` gives, as a JSON list of latin-1 strings; see `INPUT` |
| `/bytes?size=N&piece=P` | N bytes from a generator, P at a time, no Content-Length |
| `/sized?size=N&piece=P` | the same with Content-Length |
| `/file?size=N&kind=K` | N bytes through `wsgi.file_wrapper`; K: memory, disk (from its second byte on) |
| `/cookies` | sets two cookies, answers those received as JSON |
| `/redirect?to=URL&status=302` | Location |
| `/status?line=204%20No%20Content` | any status line, no body |
| `/header?name=N&value=V` | one response header of any name and value |
| `/fail/before` | raises before `start_response` |
| `/fail/started` | raises after `start_response`, before the first byte |
| `/fail/middle` | raises after the first block, which has been sent |
| `/fail/replaced` | calls `start_response` again with `exc_info`: 503 |
| `/fail/none` | returns without `start_response` |
| `/fail/str` | yields text where bytes are due |
| `/steps?id=I&count=N` | N lines with their numbers, each but the first when `/step?id=I` is asked for |
| `/steps?...&burst=M` | each M times; with `&computing=1` it computes until it is asked, instead of waiting |
| `/sleep?seconds=S` | answers after S seconds |
| `/write` | `one`, `two` by `write()`, `three` by the iterable |
| `/tracked?id=I&kind=K&size=N` | a body whose `close()` is noted; K: list, iterator |
| `/closed?id=I` | JSON: how often it was closed, and in which threads what ran |
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pattern import pieces

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Query = dict[str, str]
Reply = Iterable[bytes]
Handler = Callable[["WSGIEnvironment", "StartResponse", Query], Reply]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Reply:
    """Dispatches on PATH_INFO."""
    handler = ROUTES.get(environ.get("PATH_INFO", ""))
    if handler is None:
        return reply_text(start_response, "no such probe\n", "404 Not Found")
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    return handler(environ, start_response, query)


def reply_text(start_response: StartResponse, text: str, status: str = "200 OK") -> Reply:
    """A short answer with its length."""
    body = text.encode()
    length = ("Content-Length", str(len(body)))
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), length])
    return [body]


def reply_json(start_response: StartResponse, value: object) -> Reply:
    """A short JSON answer with its length."""
    body = json.dumps(value).encode()
    length = ("Content-Length", str(len(body)))
    start_response("200 OK", [("Content-Type", "application/json"), length])
    return [body]


def start_binary(start_response: StartResponse, size: int | None = None) -> None:
    """Starts a binary answer, of a known size or not."""
    headers = [("Content-Type", "application/octet-stream")]
    if size is not None:
        headers.append(("Content-Length", str(size)))
    start_response("200 OK", headers)


def home(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    """See the table above, as for all that follow."""
    return reply_text(start, "wsgi probe\n")


def show_environ(environ: WSGIEnvironment, start: StartResponse, _: Query) -> Reply:
    return reply_json(
        start,
        {
            key: {
                "type": type(value).__name__,
                "value": value if isinstance(value, (str, bool, int)) else repr(value),
            }
            for key, value in environ.items()
        },
    )


def echo(environ: WSGIEnvironment, start: StartResponse, _: Query) -> Reply:
    body = environ["wsgi.input"].read()
    kind = environ.get("CONTENT_TYPE") or "application/octet-stream"
    start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def digest(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    source, piece = environ["wsgi.input"], int(query.get("piece", 65536))
    length, reads, sha256 = 0, 0, hashlib.sha256()
    while block := source.read(piece):
        length += len(block)
        reads += 1
        sha256.update(block)
    result = {"length": length, "sha256": sha256.hexdigest(), "reads": reads}
    return reply_json(start, result)


INPUT: dict[str, Callable[[Any], list[bytes]]] = {
    "read": lambda source: [source.read()],
    "read-minus-one": lambda source: [source.read(-1)],
    "read-none": lambda source: [source.read(None)],
    "read-zero": lambda source: [source.read(0), source.read()],
    "readline": lambda source: list(iter(source.readline, b"")),
    "readline-short": lambda source: list(iter(lambda: source.readline(4), b"")),
    "readlines": lambda source: list(source.readlines()),
    "iterate": lambda source: list(source),
    "mixed": lambda source: [source.read(3), source.readline(), source.read()],
    "after-end": lambda source: [source.read(), source.read(), source.readline()],
}
"""How `/input` reads: each gives the blocks as the stream gave them."""


def read_input(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    blocks = INPUT[query["how"]](environ["wsgi.input"])
    return reply_json(start, [block.decode("latin-1") for block in blocks])


def some_bytes(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    start_binary(start)
    return pieces(int(query.get("size", 1024)), int(query.get("piece", 65536)))


def sized(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    size = int(query.get("size", 1024))
    start_binary(start, size)
    return pieces(size, int(query.get("piece", 65536)))


def file(environ: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    size = int(query.get("size", 1024))
    data = b"".join(pieces(size, 65536))
    wrap = environ["wsgi.file_wrapper"]
    wrapped: Reply
    if query.get("kind", "memory") == "memory":
        start_binary(start, size)
        wrapped = wrap(io.BytesIO(data), 65536)
        return wrapped
    start_binary(start)
    on_disk = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    on_disk.write(b"." + data)
    on_disk.seek(1)
    wrapped = wrap(on_disk, 65536)
    return wrapped


def cookies(environ: WSGIEnvironment, start: StartResponse, _: Query) -> Reply:
    received = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    values = {name: morsel.value for name, morsel in received.items()}
    body = json.dumps(values).encode()
    start(
        "200 OK",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Set-Cookie", "first=1; Path=/"),
            ("Set-Cookie", "second=2; Path=/; HttpOnly"),
        ],
    )
    return [body]


def redirect(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    status = f"{query.get('status', '302')} Found"
    location = ("Location", query.get("to", "/"))
    start(status, [location, ("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []


def status(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    line = query["line"]
    # No content, no type: `wsgiref.validate` insists on both halves of that.
    start(line, [] if line.startswith(("204", "304")) else [("Content-Type", "text/plain")])
    return []


def header(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    pair = (query["name"], query["value"])
    start("200 OK", [("Content-Type", "text/plain"), pair, ("Content-Length", "0")])
    return []


def fail_before(_: WSGIEnvironment, __: StartResponse, ___: Query) -> Reply:
    raise RuntimeError("probe: before start_response")


def fail_started(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    start_binary(start)
    raise RuntimeError("probe: after start_response")


def fail_middle(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    start_binary(start)
    yield b"the first block\n"
    raise RuntimeError("probe: in the middle of the body")


def fail_replaced(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    start("200 OK", [("Content-Type", "text/plain"), ("X-Thrown-Away", "yes")])
    try:
        raise RuntimeError("probe: caught by the application")
    except RuntimeError:
        headers = [("Content-Type", "text/plain"), ("Content-Length", "9")]
        start("503 Service Unavailable", headers, sys.exc_info())
    return [b"replaced\n"]


def fail_none(_: WSGIEnvironment, __: StartResponse, ___: Query) -> Reply:
    return [b"nobody called start_response"]


def fail_str(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    start("200 OK", [("Content-Type", "text/plain")])
    wrong: Any = ["text"]
    return wrong  # type: ignore[no-any-return]


_steps: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(0))


def steps(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    start("200 OK", [("Content-Type", "text/plain")])
    asked = _steps[query["id"]]
    for number in range(int(query["count"])):
        if number and "computing" in query:
            until = time.monotonic() + 120
            while not asked.acquire(blocking=False) and time.monotonic() < until:
                sum(range(100))
        elif number:
            asked.acquire(timeout=120)
        yield from [f"{number}\n".encode()] * int(query.get("burst", 1))


def step(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    _steps[query["id"]].release()
    return reply_text(start, "one more\n")


def sleep(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    time.sleep(float(query.get("seconds", 1)))
    return reply_text(start, "slept\n")


def write(_: WSGIEnvironment, start: StartResponse, __: Query) -> Reply:
    push = start("200 OK", [("Content-Type", "text/plain")])
    push(b"one\n")
    push(b"two\n")
    return [b"three\n"]


class Track:
    """What happened to one tracked body."""

    def __init__(self) -> None:
        self.closed = 0
        self.threads: dict[str, int] = {}

    def note(self, what: str) -> None:
        """Remembers the thread in which something ran."""
        self.threads[what] = threading.get_ident()


class TrackedList(list[bytes]):
    """A list with `close()`: easily taken for a plain list, which has none."""

    track: Track

    def close(self) -> None:
        """PEP 3333: called once, whatever happened."""
        self.track.closed += 1
        self.track.note("close")


class TrackedIterator:
    """An iterator with `close()`."""

    def __init__(self, track: Track, blocks: Iterator[bytes]) -> None:
        self.track = track
        self._blocks = blocks

    def __iter__(self) -> TrackedIterator:
        return self

    def __next__(self) -> bytes:
        self.track.note("next")
        return next(self._blocks)

    def close(self) -> None:
        """PEP 3333: called once, whatever happened."""
        self.track.closed += 1
        self.track.note("close")


_tracks: dict[str, Track] = {}


def tracked(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    track = _tracks[query["id"]] = Track()
    track.note("call")
    start_binary(start)
    blocks = pieces(int(query.get("size", 1024)), 65536)
    if query.get("kind", "iterator") == "iterator":
        return TrackedIterator(track, blocks)
    body = TrackedList(blocks)
    body.track = track
    return body


def closed(_: WSGIEnvironment, start: StartResponse, query: Query) -> Reply:
    track = _tracks.get(query["id"], Track())
    return reply_json(start, {"closed": track.closed, "threads": track.threads})


ROUTES: dict[str, Handler] = {
    "": home,
    "/": home,
    "/bytes": some_bytes,
    "/closed": closed,
    "/cookies": cookies,
    "/digest": digest,
    "/echo": echo,
    "/environ": show_environ,
    "/fail/before": fail_before,
    "/fail/middle": fail_middle,
    "/fail/none": fail_none,
    "/fail/replaced": fail_replaced,
    "/fail/started": fail_started,
    "/fail/str": fail_str,
    "/file": file,
    "/header": header,
    "/input": read_input,
    "/redirect": redirect,
    "/sized": sized,
    "/sleep": sleep,
    "/status": status,
    "/step": step,
    "/steps": steps,
    "/tracked": tracked,
    "/write": write,
}
