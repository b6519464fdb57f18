"""What the command and the process that serves have in common."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from hawksbill import _terminal

VARIABLE = "HAWKSBILL_FLASK"
"""Where the command leaves what it was called with for the processes that serve, as JSON."""

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

prepared: Wsgi | None = None
"""The application, where the command itself is the process that serves."""


def tell(app: str | None, host: str, debugger: bool) -> None:
    """Leave word for the processes that serve."""
    os.environ[VARIABLE] = json.dumps({"app": app, "host": host, "debugger": debugger})
    # By this an application, and Werkzeug's debugger, know the process that serves from the one that watches.
    os.environ["WERKZEUG_RUN_MAIN"] = "true"


def start() -> Wsgi:
    """Load the application as ``flask run`` does, and give it."""
    if prepared is not None:
        return prepared
    from flask.cli import ScriptInfo

    told = json.loads(os.environ[VARIABLE])
    _terminal.speak_plainly()
    return dressed(ScriptInfo(app_import_path=told["app"]).load_app(), told["host"], told["debugger"])


def dressed(application: Any, host: str, debugger: bool) -> Wsgi:
    """Put around the application what ``flask run`` puts there: the debugger, and a line for each request."""
    if debugger:
        from werkzeug.debug import DebuggedApplication

        application = DebuggedApplication(application, evalex=True)
        # Under other names the debugger runs no code (CVE-2024-34069); the one it was given is meant.
        trusted = getattr(application, "trusted_hosts", None)
        if trusted is not None:
            trusted.append(host)
    return _told(application)


def _told(application: Wsgi) -> Wsgi:
    logger = logging.getLogger("werkzeug")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())

    def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING")
        path = environ.get("REQUEST_URI") or environ.get("PATH_INFO", "") + (f"?{query}" if query else "")
        line = f"{environ['REQUEST_METHOD']} {path} {environ['SERVER_PROTOCOL']}"
        client = environ.get("REMOTE_ADDR") or "-"

        def start(status: str, headers: Any, *more: Any) -> Any:
            when = time.strftime("%d/%b/%Y %H:%M:%S")
            logger.info('%s - - [%s] "%s" %s -', client, when, line, status.partition(" ")[0])
            return start_response(status, headers, *more)

        return application(environ, start)

    return told
