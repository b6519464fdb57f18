"""Every test of `test_wsgi` once more, with the application in a process behind a front."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import APPS, Server
from test_wsgi import *  # noqa: F403 - the tests themselves, collected a second time under this module's fixture


@pytest.fixture(scope="session")
def wsgi_probe() -> Iterator[Server]:
    """`apps/wsgi_probe.py`, behind a front."""
    arguments = ("--front", "wsgi_probe:application", "--dir", APPS, "--listen", "127.0.0.1:0")
    with Server("run", *arguments) as server:
        yield server
