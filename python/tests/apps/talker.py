"""Applications that write and log."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import Any

log = logging.getLogger("talker.views")


def talk(path: str) -> None:
    if path == "/print":
        print("printed", 1)
        print("on standard error", file=sys.stderr)
    elif path == "/log":
        log.info("nobody hears this")
        log.warning("look\nout")
    elif path == "/raise":
        try:
            raise ValueError("caught")
        except ValueError:
            log.exception("it failed")
    elif path == "/traceback":
        try:
            raise ValueError("shown")
        except ValueError:
            traceback.print_exc()
    elif path == "/raw":
        os.write(2, b"raw \xff\n")
    elif path == "/thread":
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
    elif path == "/crash":
        os.abort()


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/errors":
        environ["wsgi.errors"].write("to wsgi.errors\n")
    talk(environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("unhandled")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("HTTP_X_REQUEST_ID", "-").encode()]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only http")
    talk(scope["path"])
    found = dict(scope["headers"]).get(b"x-request-id", b"-")
    if scope["path"] == "/fail":
        raise RuntimeError("unhandled")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": found})
