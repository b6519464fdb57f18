"""`flask hawksbill`: the real flask command, serving by Hawksbill."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from harness import fetch
from watching import PATIENCE, until

FLASK = [sys.executable, "-m", "flask"]
APP = """
from flask import Flask
app = Flask(__name__)
@app.get("/")
def index():
    return "one"
@app.get("/boom")
def boom():
    return str(1 / 0)
"""


class Running:
    """The command, while it serves."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.output(), re.MULTILINE)):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.output()}"
            time.sleep(0.02)
        return found

    def get(self, path: str) -> httpx.Response:
        url = self.wait_for(r"Running on (http://\S+)")[1]
        return fetch(url + path)

    def interrupt(self) -> int:
        """Do what Ctrl-C does, and give the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def flask(directory: Path, *arguments: str, **env: str) -> Iterator[Running]:
    """Run `flask ARGUMENTS`, where Python keeps what it compiles, as usual."""
    others = ("HAWKSBILL_", "FLASK_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    log = directory.parent / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FLASK, *arguments],
            cwd=directory,
            env={**kept, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        # No such group means that all of it has ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "shop.py").write_text(APP)
    return directory


def test_it_serves_and_writes_the_lines_of_flask_run(project: Path) -> None:
    with flask(project, "--app", "shop", "hawksbill", "--port", "0") as running:
        assert running.get("/").text == "one"
        failed = running.get("/boom?a=1")
        assert failed.status_code == 500
        assert "Traceback" not in failed.text
        running.wait_for(r'^127\.0\.0\.1 - - \[\S+ \S+\] "GET / HTTP/1\.1" 200 -$')
        running.wait_for(r'"GET /boom\?a=1 HTTP/1\.1" 500 -$')
        said = running.output()
        assert " * Serving Flask app 'shop'\n * Debug mode: off\n" in said
        assert "Press CTRL+C to quit" in said
        running.wait_for("ZeroDivisionError")
        assert running.interrupt() == 0


def test_what_is_saved_is_live_and_the_debugger_answers(project: Path) -> None:
    with flask(project, "--app", "shop", "hawksbill", "-p", "0", "--debug") as running:
        assert running.get("/").text == "one"
        assert "Debug mode: on" in running.output()
        failed = running.get("/boom")
        assert failed.status_code == 500
        assert "Werkzeug Debugger" in failed.text
        running.wait_for("Debugger PIN")
        (project / "shop.py").write_text(APP.replace('"one"', '"two"'))
        until(lambda: running.get("/").text == "two")
        running.wait_for(r'"GET /boom HTTP/1\.1" 500 -$')
        assert len(re.findall(r"GET /boom ", running.output())) == 1, "a line is written once"
        running.interrupt()


def test_variables_are_those_of_flask_run(project: Path) -> None:
    env = {"FLASK_RUN_PORT": "0", "FLASK_APP": "shop", "FLASK_DEBUG": "1", "FLASK_RUN_RELOAD": "0"}
    with flask(project, "hawksbill", "--no-debugger", **env) as running:
        failed = running.get("/boom")
        # Debug mode without the debugger: Flask lets the error out, and the gateway answers.
        assert failed.status_code == 500
        assert "Werkzeug Debugger" not in failed.text
        assert "Debug mode: on" in running.output()
        running.wait_for("^ZeroDivisionError: division by zero$")


def test_a_port_in_use_is_told(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with flask(project, "--app", "shop", "hawksbill", "--port", port) as running:
            assert running.process.wait(PATIENCE) == 1
            assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in running.output()


def test_what_is_broken_ends_the_command(project: Path) -> None:
    (project / "shop.py").write_text("import nothing_of_this_name\n")
    with flask(project, "--app", "shop", "hawksbill", "--port", "0") as running:
        assert running.process.wait(PATIENCE) != 0
        assert "nothing_of_this_name" in running.output()
        assert "Running on" not in running.output()


def test_extra_files_are_a_change_and_excluded_ones_are_none(project: Path) -> None:
    data, drafts = project.parent / "prices.csv", project / "drafts"
    drafts.mkdir()
    data.write_text("1")
    (drafts / "draft.py").write_text("TEXT = 'one'")
    (project / "shop.py").write_text(
        "import pathlib\nfrom flask import Flask\nfrom drafts import draft\napp = Flask(__name__)\n"
        f"PRICE = pathlib.Path({str(data)!r}).read_text()\n"
        '@app.get("/")\ndef index():\n    return PRICE + draft.TEXT\n'
    )
    changes = [
        "--extra-files",
        f"{data}{os.pathsep}{project}/not-there-yet",
        "--exclude-patterns",
        "*/drafts/*",
    ]
    with flask(project, "--app", "shop", "hawksbill", "-p", "0", "--reload", *changes) as running:
        assert running.get("/").text == "1one"
        (drafts / "draft.py").write_text("TEXT = 'three'")
        # What was saved before it and counts would be loaded again by now.
        time.sleep(1)
        assert running.get("/").text == "1one"
        data.write_text("2")
        until(lambda: running.get("/").text == "2three")


def test_variables_of_flask_run_say_what_counts_as_a_change(project: Path) -> None:
    data = project.parent / "prices.csv"
    data.write_text("1")
    (project / "shop.py").write_text(
        "import pathlib\nfrom flask import Flask\napp = Flask(__name__)\n"
        f"PRICE = pathlib.Path({str(data)!r}).read_text()\n"
        '@app.get("/")\ndef index():\n    return PRICE\n'
    )
    env = {"FLASK_RUN_EXTRA_FILES": str(data), "FLASK_RUN_PORT": "0", "FLASK_RUN_RELOAD": "1"}
    with flask(project, "--app", "shop", "hawksbill", **env) as running:
        assert running.get("/").text == "1"
        data.write_text("2")
        until(lambda: running.get("/").text == "2")


def test_a_certificate_is_refused_with_what_to_do(project: Path) -> None:
    (project / "cert.pem").write_text("")
    (project / "key.pem").write_text("")
    for flags, said in [
        (["--cert", "cert.pem", "--key", "key.pem"], "Hawksbill has no TLS yet"),
        # Flask's own words.
        (["--cert", "cert.pem"], 'Required when using "--cert"'),
        (["--cert", "missing.pem"], "missing.pem"),
    ]:
        with flask(project, "--app", "shop", "hawksbill", "-p", "0", *flags) as running:
            assert running.process.wait(PATIENCE) == 2
            assert said in running.output()
            assert "Running on" not in running.output()
