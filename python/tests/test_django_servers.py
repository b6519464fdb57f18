"""Django's own `tests/servers`, from its source archive, with Hawksbill in place of Django's server.

`apps/django_servers.py` puts the server in, and names the tests that can hold for no server but Django's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from harness import APPS
from hawksbill import Gateway
from sources import unpack

pytestmark = pytest.mark.suite

RUN_SECONDS = 120.0


def test_django_accepts_it_as_its_live_server(tmp_path: Path) -> None:
    suite = unpack("django", tmp_path) / "tests"
    command = [sys.executable, str(APPS / "django_servers.py"), str(suite)]
    # The directory is one without a package `hawksbill`, so that the installed one is found.
    ended = subprocess.run(command, cwd=APPS, capture_output=True, text=True, timeout=RUN_SECONDS)
    said = ended.stderr + ended.stdout
    assert ended.returncode == 0, said
    ran = re.search(r"^Ran (\d+) tests", said, re.MULTILINE)
    assert ran, said
    assert int(ran[1]) >= 17, said
    assert "absent []" in said, "a test that is excluded by name is no longer there:\n" + said


def test_a_kept_connection_begins_each_request_afresh() -> None:
    """What the two excluded tests about keep-alive ask for, with the close announced (RFC 9112, 9.6)."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["REQUEST_METHOD"].encode() + b" " + environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    gateway = Gateway(listen="127.0.0.1:0")
    gateway.site("*").route("/", application)
    with gateway.start() as running:
        connection = HTTPConnection("127.0.0.1", running.port, timeout=60)
        answers = []
        sockets = set()
        for body, wish in ((b"{}", "keep-alive"), (b"", "keep-alive"), (b"last", "close")):
            connection.request("POST", "/", body, headers={"Connection": wish})
            sockets.add(connection.sock)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read(), answer.getheader("Connection")))
        connection.close()
    assert answers == [(200, b"POST {}", None), (200, b"POST ", None), (200, b"POST last", "close")]
    assert len(sockets) == 1
