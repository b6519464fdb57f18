"""Fixtures: real servers with the example's sites and with the probes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import APPS, COMMAND, DOMAINS, Ask, Server

ADMIN_PASSWORD = "only for these tests"
MEBIBYTE = 2**20

# The tests compute from the probes' own modules what the probes will send.
sys.path.insert(0, str(APPS))

# Where a script runs the tests in its background they ignore Ctrl-C, and so would what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Names the marks."""
    config.addinivalue_line("markers", "browser: drives a headless Chromium")
    for line in (
        "suite: runs a whole suite of somebody else's; on the default Python alone",
        "once: shows what is the same whichever Python hosts the application; on the default one alone",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test: `start("run", "-c", path, env=...)`."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Server(*arguments, **options))


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The example, all sites of it, with a fresh database."""
    data = tmp_path_factory.mktemp("shop")
    env = {"SHOP_DATA": str(data), "SHOP_ADMIN_PASSWORD": ADMIN_PASSWORD, "PORT": "0"}
    prepare = [sys.executable, "manage.py", "prepare"]
    subprocess.run(prepare, cwd=DOMAINS, env={**os.environ, **env}, check=True, timeout=120)
    with Server("run", "-c", DOMAINS / "hawksbill.toml", env=env) as server:
        yield server


@pytest.fixture(scope="session")
def wsgi_probe() -> Iterator[Server]:
    """`apps/wsgi_probe.py` on the one site "*"."""
    yield from _probe("wsgi_probe:application")


@pytest.fixture(scope="session")
def asgi_probe() -> Iterator[Server]:
    """`apps/asgi_probe.py` on the one site "*"."""
    yield from _probe("asgi_probe:application")


def _probe(name: str) -> Iterator[Server]:
    with Server("run", name, "--dir", APPS, "--listen", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 64 MiB in which no part repeats."""
    path = tmp_path_factory.mktemp("big") / "upload.png"
    path.write_bytes(random.Random(64).randbytes(64 * MEBIBYTE))
    return path


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Where the sockets of a test are. The path of a socket has to be short."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def ask(project: Path, runtime: Path) -> Ask:
    """Runs a command in the project's directory."""

    def ask(*arguments: str | Path, cwd: Path = project) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HAWKSBILL_")}
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=cwd,
            env={**kept, "XDG_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return ask
