"""The standard library's server, with a thread for each connection: `wsgiref_server.py PORT MODULE`.

A peer that is always there; it is measured where it is asked for by name.
"""

from __future__ import annotations

import importlib
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Does nothing."""


class Threaded(ThreadingMixIn, WSGIServer):
    """A server whose connections do not wait for each other."""

    daemon_threads = True
    request_queue_size = 1024


if __name__ == "__main__":
    application = importlib.import_module(sys.argv[2]).wsgi
    make_server("127.0.0.1", int(sys.argv[1]), application, Threaded, Quiet).serve_forever()
