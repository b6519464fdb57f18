"""A pytest plugin by which the test client of every Flask application speaks to a running Hawksbill.

Werkzeug's client builds a request as a WSGI environ and calls the application; here the call goes over a
socket to a gateway that hosts the application as a live object. Cookies, redirects and `with client:` stay
Flask's: the gateway's side hands the contexts of a request to the client that sent it, as Flask's own client
has it done.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hawksbill import Gateway
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PRESERVE = "werkzeug.debug.preserve_context"
TAG = "X-Test-Request"

answered = 0
"""How many requests have gone over sockets."""

_stack = ExitStack()
_ports: dict[Flask, int] = {}
_waiting: dict[str, Callable[[Any], None]] = {}
_tags = itertools.count(1)


class SocketClient(FlaskClient):
    """A Flask client whose application is behind a socket."""

    def run_wsgi_app(self, environ: WSGIEnvironment, buffered: bool = False) -> Any:
        """Sends what `environ` describes and gives what comes back: body, status, headers."""
        global answered
        assert isinstance(self.application, Flask)
        port = _ports.get(self.application) or host(self.application)
        tag = str(next(_tags))
        self._add_cookies_to_wsgi(environ)
        if PRESERVE in environ:
            _waiting[tag] = environ[PRESERVE]
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        target = environ["REQUEST_URI"]
        headers = {**sent_headers(environ), TAG: tag}
        try:
            connection.request(environ["REQUEST_METHOD"], target, environ["wsgi.input"].read(), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
            _waiting.pop(tag, None)
        answered += 1
        received = Headers(answer.getheaders())
        self._update_cookies_from_response("localhost", "/", received.getlist("Set-Cookie"))
        return [body], f"{answer.status} {answer.reason}", received


def sent_headers(environ: WSGIEnvironment) -> dict[str, str]:
    """The request's headers, from the names that WSGI gives them."""
    named = {key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            named[key] = environ[key]
    return {name.replace("_", "-").title(): value for name, value in named.items()}


def host(flask: Flask) -> int:
    """Starts a gateway for an application and gives its port."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        preserve = _waiting.get(environ.pop("HTTP_X_TEST_REQUEST", ""))
        if preserve:
            environ[PRESERVE] = preserve
        return flask.wsgi_app(environ, start_response)

    gateway = Gateway(listen="127.0.0.1:0")
    gateway.site("*").route("/", application)
    _ports[flask] = _stack.enter_context(gateway.start()).port
    return _ports[flask]


@pytest.fixture(autouse=True)
def gateways() -> Iterator[None]:
    """Ends the gateways of a test with it."""
    yield
    _stack.close()
    _ports.clear()


def pytest_configure() -> None:
    """Puts the client in."""
    Flask.test_client_class = SocketClient


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many requests there were, so that a run without sockets is noticed."""
    terminalreporter.write_line(f"answered over sockets: {answered}")
