"""What makes Django under ASGI cheaper, in the test suites of asgiref and Django: nothing else may change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import APPS
from sources import unpack

pytestmark = pytest.mark.suite

RUN_SECONDS = 200.0
EXCLUDED = "tests/test_sync_thread_sensitive_context.py::test_plain_context_allows_calls_after_exit"
"""Takes the executor out of asgiref's private table and blocks the event loop on a future of it, which
here is one of the event loop's own."""


def run(*command: str | Path, cwd: Path, log: Path) -> str:
    path = [str(APPS / "crossing"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "CROSSING_LOG": str(log)}
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_asgirefs_own_tests_pass(tmp_path: Path) -> None:
    tree = unpack("asgiref", tmp_path)
    said = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--deselect={EXCLUDED}",
        "tests",
        cwd=tree,
        log=tmp_path / "log",
    )
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) > 100, said


def test_djangos_own_tests_pass(tmp_path: Path) -> None:
    tests = unpack("django", tmp_path) / "tests"
    log = tmp_path / "log"
    labels = ["asgi", "async", "handlers", "middleware_exceptions", "signals"]
    said = run("runtests.py", "--parallel=1", *labels, cwd=tests, log=log)
    ran = re.search(r"^Ran (\d+) tests", said, re.MULTILINE)
    assert ran, said
    assert int(ran[1]) > 150, said
    assert "eased" in log.read_text()
