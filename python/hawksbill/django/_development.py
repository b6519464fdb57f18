"""What ``manage.py runserver`` and the process that serves have in common."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from hawksbill import _terminal

VARIABLE = "HAWKSBILL_RUNSERVER"
"""Where the command leaves its options for the processes that serve, as JSON."""
PASSED = ("skip_checks", "use_static_handler", "insecure_serving", "force_color", "no_color")
"""The options that they need."""
WORDS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}
"""As Django says it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

prepared: Wsgi | Asgi | None = None
"""The application, where the command itself is the process that serves."""


def why_not_bound(error: OSError | OverflowError) -> str:
    """Say why there is no socket."""
    return WORDS.get(getattr(error, "errno", None) or 0, str(error))


def start() -> Wsgi | Asgi:
    """Give the project's application; where the command has not, load the project, check and announce it."""
    if prepared is not None:
        return prepared
    command, options = _commanded()
    command.announce(options)
    return application(options)


def _commanded() -> tuple[Any, dict[str, Any]]:
    """Make the command again that has started this process."""
    told = json.loads(os.environ[VARIABLE])
    # What manage.py and its flags have put in front; what this process has itself is kept.
    sys.path[:] = list(dict.fromkeys([*told["path"], *sys.path]))
    _terminal.speak_plainly()
    # By this a project knows the process that serves from the one that watches.
    os.environ.setdefault("RUN_MAIN", "true")
    import django

    django.setup()
    from .management.commands.runserver import Command

    options = told["options"]
    colors = {key: options.get(key, False) for key in ("force_color", "no_color")}
    command = Command(stdout=sys.stdout, stderr=sys.stderr, **colors)
    place = told["place"]
    command.addr, command.port = place["addr"], place["port"]
    command.use_ipv6, command._raw_ipv6 = place["use_ipv6"], place["raw"]
    return command, options


def application(options: dict[str, Any]) -> Wsgi | Asgi:
    """Choose between the two interfaces as Daphne's command does: by ``ASGI_APPLICATION``."""
    from django.conf import settings

    static = options.get("use_static_handler", False) and (
        settings.DEBUG or options.get("insecure_serving", False)
    )
    if getattr(settings, "ASGI_APPLICATION", None):
        from django.utils.module_loading import import_string

        asgi: Asgi = import_string(settings.ASGI_APPLICATION)
        if static:
            from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

            asgi = ASGIStaticFilesHandler(asgi)
        return told_asgi(asgi)
    from django.core.servers.basehttp import get_internal_wsgi_application

    wsgi: Wsgi = get_internal_wsgi_application()
    if static:
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        wsgi = StaticFilesHandler(wsgi)
    return told_wsgi(wsgi)


def told_wsgi(application: Wsgi) -> Wsgi:
    """Have each request make a line, as Django's own server writes it."""

    def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        seen = {"status": "500"}

        def start(status: str, headers: Any, *more: Any) -> Any:
            seen["status"] = status.partition(" ")[0]
            return start_response(status, headers, *more)

        query = environ.get("QUERY_STRING")
        path = environ.get("REQUEST_URI") or environ.get("PATH_INFO", "") + (f"?{query}" if query else "")
        line = f"{environ['REQUEST_METHOD']} {path} {environ['SERVER_PROTOCOL']}"
        return _Told(application(environ, start), lambda size: log(line, seen["status"], size))

    return told


class _Told:
    """The body of an answer, whose length is told when it is over."""

    def __init__(self, body: Iterable[bytes], tell: Callable[[int], None]) -> None:
        self._body, self._tell, self._size = body, tell, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._body:
            self._size += len(piece)
            yield piece

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._tell(self._size)


def told_asgi(application: Asgi) -> Asgi:
    """Do the same under ASGI; WebSockets make a line when they begin and one when they end, as Daphne's."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await application(scope, receive, send)
        query = scope.get("query_string", b"").decode("latin-1")
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        path += f"?{query}" if query else ""
        if scope["type"] == "websocket":
            return await _websocket(application, scope, receive, send, path)
        line = f"{scope['method']} {path} HTTP/{scope['http_version']}"
        status, size = "500", 0

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = str(message["status"])
            size += len(message.get("body") or b"")
            await send(message)

        try:
            await application(scope, receive, counted)
        finally:
            log(line, status, size)

    return told


async def _websocket(application: Asgi, scope: Scope, receive: Receive, send: Send, path: str) -> None:
    from django.core.servers.basehttp import logger

    def note(what: str) -> None:
        client = scope.get("client")
        # The same attribute that the lines of requests are formatted with.
        where = f" [{client[0]}:{client[1]}]" if client else ""
        logger.info("WebSocket %s %s%s", what, path, where, extra={"server_time": now()})

    note("HANDSHAKING")
    accepted = False

    async def noted(message: MutableMapping[str, Any]) -> None:
        nonlocal accepted
        await send(message)
        if message["type"] == "websocket.accept":
            accepted = True
            note("CONNECT")
        elif message["type"] == "websocket.close" and not accepted:
            note("REJECT")

    try:
        await application(scope, receive, noted)
    finally:
        note("DISCONNECT")


def log(line: str, status: str, size: int) -> None:
    """Write a request's line by Django's own logger, whose format and colours are the project's."""
    from django.core.servers.basehttp import logger

    code = int(status) if status.isdigit() else 500
    level = logging.ERROR if code >= 500 else logging.WARNING if code >= 400 else logging.INFO
    extra = {"server_time": now(), "status_code": code}
    logger.log(level, '"%s" %s %s', line, status, size, extra=extra)


def now() -> str:
    """Give the time as Django's own server writes it: ``26/Nov/2026 15:40:01``."""
    return time.strftime("%d/%b/%Y %H:%M:%S")
