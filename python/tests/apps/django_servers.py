"""Runs Django's own `tests/servers` with Hawksbill in place of Django's development server.

    python django_servers.py DIRECTORY     # `tests` of Django's source archive

`LiveServerThread.server_class` is where Django lets a server be named. Everything else is Django's: the
thread, the handlers for static and media files, the fixtures and the views. A test that starts Django's own
server all the same fails.
"""

from __future__ import annotations

import os
import runpy
import sys
import unittest
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.core.servers import basehttp
from django.db import connections
from django.test.testcases import LiveServerThread
from hawksbill import Gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TESTS = "servers.tests"
EXCLUDED = {
    f"{TESTS}.LiveServerTestCloseConnectionTest.test_closes_connections": (
        "names ThreadedWSGIServer as its server class and waits in a method of it"
    ),
    f"{TESTS}.SingleThreadLiveServerViews.test_closes_connection_with_content_length": (
        "builds Django's single-threaded WSGIServer, which cannot keep a connection"
    ),
    f"{TESTS}.LiveServerViews.test_closes_connection_without_content_length": (
        "wants a stream of unknown length ended by closing: Django's server knows no chunks"
    ),
    f"{TESTS}.LiveServerViews.test_keep_alive_on_connection_with_content_length": (
        "wants no 'Connection: close' in the answer to a request that asked for it; RFC 9112, 9.6 wants one"
    ),
    f"{TESTS}.LiveServerViews.test_keep_alive_connection_clears_previous_request_data": (
        "as the one before; test_django_servers.py has the rest of both"
    ),
}
"""What can hold for no server but Django's own. `servers.test_basehttp` as a whole tests the classes of that
server without a socket, and is not run."""


class Server:
    """What `LiveServerThread` expects of a server, around a gateway with a live object."""

    def __init__(
        self,
        address: tuple[str, int],
        handler_class: type,
        *,
        allow_reuse_address: bool,
        connections_override: dict[str, Any] | None = None,
    ) -> None:
        self._override = connections_override or {}
        gateway = Gateway(listen=":".join(map(str, address)))
        gateway.site("*").route("/", self._with_connections)
        self._running = gateway.start()
        self.server_address = (address[0], self._running.port)

    def set_app(self, application: Callable[..., Iterable[bytes]]) -> None:
        """Says what is served, before anybody knows the port."""
        self._application = application

    def _with_connections(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # As Django's server does: in each thread a database in memory is the one of the test.
        for alias, connection in self._override.items():
            connections[alias] = connection
        return self._application(environ, start_response)

    def serve_forever(self) -> None:
        """Serves until `shutdown`."""
        self._running.wait()

    def shutdown(self) -> None:
        """Ends `serve_forever`."""
        self._running.stop()

    def server_close(self) -> None:
        """The gateway has closed its socket itself."""


def refuse(*_: object, **__: object) -> None:
    """In place of the constructor of Django's server."""
    raise AssertionError("Django's own server was started, not Hawksbill")


def names_without_excluded(loader: unittest.TestLoader, case: type[unittest.TestCase]) -> list[str]:
    """The names of a case's tests, but for those excluded."""
    names: list[str] = []
    for name in _names(loader, case):
        full = f"{case.__module__}.{case.__qualname__}.{name}"
        if full in EXCLUDED:
            _left_out.add(full)
        else:
            names.append(name)
    return names


_names = unittest.TestLoader.getTestCaseNames
_left_out: set[str] = set()


def main(directory: str) -> None:
    """Runs the suite, as Django's `runtests.py` does, and ends with its status."""
    LiveServerThread.server_class = Server
    basehttp.WSGIServer.__init__ = refuse
    unittest.TestLoader.getTestCaseNames = names_without_excluded  # type: ignore[assignment, method-assign]
    os.chdir(directory)
    sys.path.insert(0, directory)
    sys.argv = ["runtests.py", "--parallel=1", "--verbosity=2", TESTS, "servers.test_liveserverthread"]
    try:
        runpy.run_path("runtests.py", run_name="__main__")
    finally:
        absent = EXCLUDED.keys() - _left_out
        print(f"excluded {len(_left_out)}, absent {sorted(absent)}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
