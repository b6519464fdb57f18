"""A plain ASGI 3 callable that shows a server's behaviour, one path for each.

HTTP:

| path | what it does |
|---|---|
| `/` | 200, `asgi probe` |
| `/scope` | the scope as JSON: key to `{"type", "value"}`, header names and values as text |
| `/echo` | each piece of the body sent back as it arrives |
| `/digest` | JSON of the body: `{"length", "sha256", "messages"}` |
| `/bytes?size=N&piece=P` | N bytes, P at a time, no Content-Length |
| `/sized?size=N&piece=P` | the same with Content-Length |
| `/cookies` | sets two cookies, answers the Cookie header received as JSON |
| `/redirect?to=URL&status=302` | Location |
| `/status?code=204` | any status, no body |
| `/header?name=N&value=V` | one response header of any name and value |
| `/fail/before` | raises before `http.response.start` |
| `/fail/started` | raises after `http.response.start`, before the first byte |
| `/fail/middle` | raises after the first block, which has been sent |
| `/fail/none` | returns without an answer |
| `/fail/order` | sends a body before the start; answers what it got for that |
| `/steps?id=I&count=N` | N events with their numbers, each but the first when `/step?id=I` is asked for |
| `/sleep?seconds=S` | answers after S seconds |
| `/until-gone?id=I` | starts an answer, then waits for `http.disconnect` |
| `/send-until-gone?id=I` | sends until `send` raises or the task is cancelled |
| `/gone?id=I` | JSON list of what such a request saw |
| `/state` | the lifespan state's counters; each request adds one to `requests` |
| `/trailers` | `turtle`, with the trailers x-sum and x-count if they are announced |
| `/path?path=P&length=N` | the file P by `http.response.pathsend`; the text of what it raises |
| `/file?path=P` | the file P by several `http.response.zerocopysend` among blocks of text |

WebSocket:

| path | what it does |
|---|---|
| `/ws` | echo |
| `/ws/scope` | sends the scope as JSON, then closes |
| `/ws/subprotocol` | accepts with the last subprotocol offered |
| `/ws/headers` | accepts with the header `x-probe: yes` |
| `/ws/close?code=C&reason=R` | accepts, then closes |
| `/ws/reject` | closes before accepting: 403 |
| `/ws/reject-oddly` | the same, with a code and a reason that could not be sent |
| `/ws/deny` | a 401 with a body, by the denial response |
| `/ws/fail` | raises after accepting |
| `/ws/track?id=I` | notes every message received, for `/gone?id=I` |
| `/ws/flood?count=N&size=S` | sends N binary messages of S bytes, then closes |
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from pattern import NOISE, pieces

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Query = dict[str, str]

_seen: dict[str, list[Message]] = {}


class Exchange:
    """One request: its scope, its channels and its query string."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        text = scope.get("query_string", b"").decode("latin-1")
        self.query: Query = dict(parse_qsl(text, keep_blank_values=True))

    async def start(self, status: int = 200, *headers: tuple[str, str]) -> None:
        """Sends `http.response.start`."""
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def body(self, block: bytes = b"", more: bool = False) -> None:
        """Sends `http.response.body`."""
        await self.send({"type": "http.response.body", "body": block, "more_body": more})

    async def whole(self, block: bytes, kind: str = "text/plain", status: int = 200) -> None:
        """Sends a short answer with its length."""
        length = ("content-length", str(len(block)))
        await self.start(status, ("content-type", kind), length)
        await self.body(block)

    async def json(self, value: object) -> None:
        """Sends a short JSON answer."""
        await self.whole(json.dumps(value).encode(), "application/json")

    def number(self, name: str, usual: int) -> int:
        """A whole number from the query string."""
        return int(self.query.get(name, usual))

    def note(self, message: Message) -> None:
        """Remembers for `/gone` what this request saw."""
        _seen.setdefault(self.query["id"], []).append(message)


Handler = Callable[[Exchange], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Dispatches on the scope's type and path."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    routes = WEBSOCKET if scope["type"] == "websocket" else HTTP
    handler = routes.get(scope["path"])
    exchange = Exchange(scope, receive, send)
    if handler is not None:
        await handler(exchange)
    elif scope["type"] == "http":
        await exchange.whole(b"no such probe\n", status=404)
    else:
        await receive()
        await send({"type": "websocket.close"})


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Counts start-ups in the state, which the requests share."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if "state" in scope:
                counts = {"startups": 1, "requests": 0}
                scope["state"].update(counts=counts, plain="as it was")
            await send({"type": "lifespan.startup.complete"})
        else:
            print("asgi probe: lifespan shut down", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return


def described(scope: Scope) -> dict[str, Message]:
    """The scope, each value with its type's name, in what JSON can say."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value if isinstance(value, (str, int, float, type(None))) else repr(value)

    return {key: {"type": type(value).__name__, "value": plain(value)} for key, value in scope.items()}


async def home(exchange: Exchange) -> None:
    """See the table above, as for all that follow."""
    await exchange.whole(b"asgi probe\n")


async def show_scope(exchange: Exchange) -> None:
    await exchange.json(described(exchange.scope))


async def echo(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "application/octet-stream"))
    more = True
    while more:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await exchange.body(message.get("body", b""), more)


async def digest(exchange: Exchange) -> None:
    length, messages, sha256 = 0, 0, hashlib.sha256()
    more = True
    while more:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            return
        messages += 1
        length += len(message.get("body", b""))
        sha256.update(message.get("body", b""))
        more = message.get("more_body", False)
    result = {"length": length, "sha256": sha256.hexdigest(), "messages": messages}
    await exchange.json(result)


async def some_bytes(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "application/octet-stream"))
    await _send_bytes(exchange)


async def sized(exchange: Exchange) -> None:
    length = ("content-length", str(exchange.number("size", 1024)))
    await exchange.start(200, ("content-type", "application/octet-stream"), length)
    await _send_bytes(exchange)


async def _send_bytes(exchange: Exchange) -> None:
    piece = exchange.number("piece", 65536)
    for block in pieces(exchange.number("size", 1024), piece):
        await exchange.body(block, more=True)
    await exchange.body()


async def cookies(exchange: Exchange) -> None:
    sent = [value for name, value in exchange.scope["headers"] if name == b"cookie"]
    await exchange.start(
        200,
        ("content-type", "application/json"),
        ("set-cookie", "first=1; Path=/"),
        ("set-cookie", "second=2; Path=/; HttpOnly"),
    )
    await exchange.body(json.dumps([value.decode("latin-1") for value in sent]).encode())


async def redirect(exchange: Exchange) -> None:
    location = ("location", exchange.query.get("to", "/"))
    await exchange.start(exchange.number("status", 302), location, ("content-length", "0"))
    await exchange.body()


async def status(exchange: Exchange) -> None:
    await exchange.start(exchange.number("code", 200))
    await exchange.body()


async def header(exchange: Exchange) -> None:
    pair = (exchange.query["name"], exchange.query["value"])
    await exchange.start(200, pair, ("content-length", "0"))
    await exchange.body()


async def fail_before(_: Exchange) -> None:
    raise RuntimeError("probe: before http.response.start")


async def fail_started(exchange: Exchange) -> None:
    await exchange.start(200)
    raise RuntimeError("probe: after http.response.start")


async def fail_middle(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "text/plain"))
    await exchange.body(b"the first block\n", more=True)
    raise RuntimeError("probe: in the middle of the body")


async def fail_none(_: Exchange) -> None:
    return


async def fail_order(exchange: Exchange) -> None:
    try:
        await exchange.body(b"too early")
    except Exception as error:
        await exchange.whole(f"{type(error).__name__}: {error}".encode())


_steps: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))


async def steps(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "text/event-stream"))
    for number in range(exchange.number("count", 5)):
        if number:
            await _steps[exchange.query["id"]].acquire()
        await exchange.body(f"data: {number}\n\n".encode(), more=True)
    await exchange.body()


async def step(exchange: Exchange) -> None:
    _steps[exchange.query["id"]].release()
    await exchange.whole(b"one more\n")


async def sleep(exchange: Exchange) -> None:
    await asyncio.sleep(float(exchange.query.get("seconds", 1)))
    await exchange.whole(b"slept\n")


async def until_gone(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "text/plain"))
    await exchange.body(b"waiting\n", more=True)
    while True:
        message = await exchange.receive()
        exchange.note({"type": message["type"]})
        if message["type"] == "http.disconnect":
            return


async def send_until_gone(exchange: Exchange) -> None:
    await exchange.start(200, ("content-type", "text/plain"))
    try:
        for _ in range(10_000):
            await exchange.body(NOISE[:65536], more=True)
            await asyncio.sleep(0.001)
    except (Exception, asyncio.CancelledError) as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        exchange.note({"type": "raised", "kinds": kinds})
        raise


async def gone(exchange: Exchange) -> None:
    await exchange.json(_seen.get(exchange.query["id"], []))


async def show_state(exchange: Exchange) -> None:
    state = exchange.scope.get("state")
    if state is None:
        await exchange.json(None)
        return
    # The namespace is copied for each request, the objects in it are shared (ASGI spec,
    # lifespan state): the counter below is seen by all, the replaced string by none.
    state["counts"]["requests"] += 1
    plain, state["plain"] = state["plain"], "changed by a request"
    await exchange.json({**state["counts"], "plain": plain})


async def trailers(exchange: Exchange) -> None:
    announced = "http.response.trailers" in exchange.scope["extensions"]
    names = (b"trailer", b"x-sum, x-count")
    start = {"type": "http.response.start", "status": 200, "headers": [names]}
    await exchange.send({**start, "trailers": announced})
    await exchange.body(b"turtle" if announced else b"no trailers", more=True)
    await exchange.body()
    if announced:
        kind = "http.response.trailers"
        await exchange.send({"type": kind, "headers": [(b"x-sum", b"42")], "more_trailers": True})
        await exchange.send({"type": kind, "headers": [(b"x-count", b"6")]})


async def send_path(exchange: Exchange) -> None:
    length = exchange.query.get("length")
    await exchange.start(200, *([("content-length", length)] if length else []))
    try:
        await exchange.send({"type": "http.response.pathsend", "path": exchange.query["path"]})
    except (OSError, ValueError, RuntimeError) as error:
        # Nothing is sent yet, but the start cannot be taken back.
        await exchange.body(f"{type(error).__name__}: {error}".encode())


async def send_file(exchange: Exchange) -> None:
    kind = "http.response.zerocopysend"
    with open(exchange.query["path"], "rb") as file:
        await exchange.start(200)
        await exchange.body(b"<", more=True)
        await exchange.send({"type": kind, "file": file, "count": 10, "more_body": True})
        await exchange.body(b"|", more=True)
        # From where the file stands now.
        await exchange.send({"type": kind, "file": file, "more_body": True})
        await exchange.body(b"|", more=True)
        await exchange.send({"type": kind, "file": file, "offset": 5, "count": 3, "more_body": True})
        await exchange.body(b">", more=True)
        await exchange.send({"type": kind, "file": file, "offset": 0, "count": 1})


async def accept(exchange: Exchange, **extra: Any) -> None:
    """Takes `websocket.connect` and accepts."""
    message = await exchange.receive()
    assert message["type"] == "websocket.connect", message
    await exchange.send({"type": "websocket.accept", **extra})


async def ws_echo(exchange: Exchange) -> None:
    await accept(exchange)
    while (message := await exchange.receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        kept = {"bytes": data} if text is None else {"text": text}
        await exchange.send({"type": "websocket.send", **kept})


async def ws_scope(exchange: Exchange) -> None:
    await accept(exchange)
    text = json.dumps(described(exchange.scope))
    await exchange.send({"type": "websocket.send", "text": text})
    await exchange.send({"type": "websocket.close"})


async def ws_subprotocol(exchange: Exchange) -> None:
    offered = exchange.scope["subprotocols"]
    await accept(exchange, subprotocol=offered[-1] if offered else None)
    await exchange.send({"type": "websocket.close"})


async def ws_headers(exchange: Exchange) -> None:
    await accept(exchange, headers=[(b"x-probe", b"yes")])
    await exchange.send({"type": "websocket.close"})


async def ws_close(exchange: Exchange) -> None:
    await accept(exchange)
    code, reason = exchange.number("code", 1000), exchange.query.get("reason", "")
    await exchange.send({"type": "websocket.close", "code": code, "reason": reason})


async def ws_reject(exchange: Exchange) -> None:
    await exchange.receive()
    await exchange.send({"type": "websocket.close"})


async def ws_reject_oddly(exchange: Exchange) -> None:
    await exchange.receive()
    await exchange.send({"type": "websocket.close", "code": 1006, "reason": [{"loc": ["query"]}]})


async def ws_deny(exchange: Exchange) -> None:
    await exchange.receive()
    assert "websocket.http.response" in exchange.scope["extensions"]
    kind, headers = "websocket.http.response", [(b"www-authenticate", b"Basic")]
    await exchange.send({"type": f"{kind}.start", "status": 401, "headers": headers})
    await exchange.send({"type": f"{kind}.body", "body": b"who ", "more_body": True})
    await exchange.send({"type": f"{kind}.body", "body": b"are you?"})


async def ws_fail(exchange: Exchange) -> None:
    await accept(exchange)
    raise RuntimeError("probe: in a WebSocket")


async def ws_track(exchange: Exchange) -> None:
    await accept(exchange)
    while True:
        message = await exchange.receive()
        exchange.note(
            {
                key: value.decode("latin-1") if isinstance(value, bytes) else value
                for key, value in message.items()
            }
        )
        if message["type"] == "websocket.disconnect":
            return


async def ws_flood(exchange: Exchange) -> None:
    await accept(exchange)
    block = NOISE[: exchange.number("size", 1024)]
    for _ in range(exchange.number("count", 100)):
        await exchange.send({"type": "websocket.send", "bytes": block})
    await exchange.send({"type": "websocket.close"})


HTTP: dict[str, Handler] = {
    "": home,
    "/": home,
    "/bytes": some_bytes,
    "/cookies": cookies,
    "/digest": digest,
    "/echo": echo,
    "/fail/before": fail_before,
    "/file": send_file,
    "/fail/middle": fail_middle,
    "/fail/none": fail_none,
    "/fail/order": fail_order,
    "/fail/started": fail_started,
    "/gone": gone,
    "/header": header,
    "/path": send_path,
    "/redirect": redirect,
    "/scope": show_scope,
    "/send-until-gone": send_until_gone,
    "/sized": sized,
    "/sleep": sleep,
    "/state": show_state,
    "/status": status,
    "/step": step,
    "/steps": steps,
    "/trailers": trailers,
    "/until-gone": until_gone,
}

WEBSOCKET: dict[str, Handler] = {
    "/ws": ws_echo,
    "/ws/close": ws_close,
    "/ws/deny": ws_deny,
    "/ws/fail": ws_fail,
    "/ws/flood": ws_flood,
    "/ws/headers": ws_headers,
    "/ws/reject": ws_reject,
    "/ws/reject-oddly": ws_reject_oddly,
    "/ws/scope": ws_scope,
    "/ws/subprotocol": ws_subprotocol,
    "/ws/track": ws_track,
}
