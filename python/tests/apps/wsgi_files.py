"""One large file from Django and from Flask, as each sends files, at `/django` and `/flask`.

The file is the one that `$BIG_FILE` names. Each path beneath says what the framework is given:

| path | what |
|---|---|
| `/path` | the name (Flask), or what `open` gives (Django) |
| `/unread` | an object with a descriptor whose `read` raises |
| `/closed` | no file: how often an `/unread` one was closed, as text |
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse
from django.urls import path
from flask import Flask, Response, send_file

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BIG = os.environ["BIG_FILE"]


class Unread:
    """A file that only its descriptor can be read by."""

    closed = 0

    def __init__(self) -> None:
        self._file = open(BIG, "rb")  # noqa: SIM115 - the server closes it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, _: int = -1) -> bytes:
        """Fails."""
        raise AssertionError("Python was asked for a block")

    def close(self) -> None:
        """As that of a file, and counted."""
        if not self._file.closed:
            Unread.closed += 1
        self._file.close()


def unread() -> IO[bytes]:
    """One that a framework takes for a file."""
    return cast("IO[bytes]", Unread())


settings.configure(SECRET_KEY="for tests alone", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)

urlpatterns = [
    path("django/path", lambda _: FileResponse(open(BIG, "rb"))),  # noqa: SIM115 - the server closes it
    path("django/unread", lambda _: FileResponse(unread())),
]


def closed(_: HttpRequest) -> HttpResponse:
    """How often."""
    return HttpResponse(str(Unread.closed))


urlpatterns.append(path("django/closed", closed))

flask_app = Flask(__name__)


@flask_app.get("/flask/path")
def flask_path() -> Response:
    """By name."""
    return send_file(BIG)


@flask_app.get("/flask/unread")
def flask_unread() -> Response:
    """By descriptor."""
    return send_file(unread(), mimetype="application/octet-stream")


@flask_app.get("/flask/closed")
def flask_closed() -> str:
    """How often."""
    return str(Unread.closed)


django_app = get_wsgi_application()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Either."""
    chosen = django_app if environ["PATH_INFO"].startswith("/django") else flask_app
    return chosen(environ, start_response)
