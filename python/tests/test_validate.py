"""Every test of `test_wsgi` once more, with `wsgiref.validate` between the server and the application.

The validator raises an AssertionError where either side breaks a rule of PEP 3333, so a broken rule is a 500
in a test that expects an answer. What it can only say while an object is thrown away (a body never closed) is
looked for in the server's output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from harness import APPS, Server
from test_wsgi import *  # noqa: F403 - the tests themselves, collected a second time under this module's fixture

PROVOKED = (
    "Bad header name: ",
    "Bad header value: ",
    "Header names may not contain",
    "Iterator yielded non-bytestring",
    "Status codes must be three characters: ",
    "The application returns and we started iterating over its body, but start_response",
)
"""Beginnings of what the validator says to the answers that the tests get wrong on purpose."""


@pytest.fixture(scope="session")
def wsgi_probe() -> Iterator[Server]:
    """`apps/wsgi_validated.py`, in the place of the plain probe."""
    server = Server("run", "wsgi_validated:application", "--wsgi", "--dir", APPS, "--listen", "127.0.0.1:0")
    with server:
        yield server
    said = re.findall(r"^AssertionError(?:: (.*))?$", server.output(), re.MULTILINE)
    unexpected = [words for words in said if not words.startswith(PROVOKED)]
    assert not unexpected, f"wsgiref.validate found: {unexpected}\n{server.output()}"
    assert "garbage collected without being closed" not in server.output()
