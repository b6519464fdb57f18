"""The example with Celery: a real Redis, worker and beat as services of the gateway."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import TESTS, Ask, Server, descendants, fetch, good, runs
from watching import free_port, pids, until, until_whole_again

pytestmark = pytest.mark.once

CELERY = TESTS.parent.parent / "examples" / "celery"


@pytest.fixture
def project() -> Path:
    return CELERY


@pytest.fixture
def letters(tmp_path: Path, runtime: Path) -> Iterator[Server]:
    port = free_port()
    env = {
        "PORT": "0",
        "REDIS_PORT": str(port),
        "BEAT_FILE": str(tmp_path / "beat"),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with Server("run", cwd=CELERY, env=env) as server:
        yield server


def written(server: Server, name: str) -> str:
    """A letter that was asked for, and written by the worker."""
    with server.client() as client:
        place = client.get("/letters", params={"name": name}).json()["letter"]
        answers: list[dict[str, str]] = []

        def is_written() -> bool:
            answers.append(client.get(place).json())
            return answers[-1]["state"] == "SUCCESS"

        until(is_written)
    return answers[-1]["letter"]


def ticks(server: Server) -> int:
    return int(fetch(f"{server.base}/ticks").json()["ticks"])


def test_a_worker_and_beat_live_beside_the_site(letters: Server, ask: Ask) -> None:
    assert written(letters, "Ada").startswith("Dear Ada, ")
    before = ticks(letters)
    until(lambda: ticks(letters) > before + 1)

    until(lambda: pids(ask, "worker") != set())
    (first,) = pids(ask, "worker")
    its_own = descendants(first)
    assert its_own
    os.kill(first, signal.SIGKILL)
    until(lambda: not any(map(runs, its_own)))
    until_whole_again(ask, {first}, "worker", workers=1)
    assert written(letters, "Grace").startswith("Dear Grace, ")

    shown = good(ask("status"))
    assert all(name in shown for name in ("letters", "redis", "worker", "beat", "tidy"))
    everybody = descendants(letters.process.pid)
    assert len(everybody) >= 6
    assert "the gateway has ended" in good(ask("stop"))
    letters.ended()
    until(lambda: not any(map(runs, everybody)))
    said = letters.output()
    # Redis is asked to end when nobody needs it any more.
    assert said.index("Warm shutdown") < said.index("User requested shutdown"), said
