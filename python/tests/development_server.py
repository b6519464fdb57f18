"""`manage.py runserver` with Hawksbill, in projects that Django's own commands make."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from harness import fetch
from watching import PATIENCE, until

STARTED = re.compile(r"Starting development server at (http://\S+)/\n")


def environment() -> dict[str, str]:
    """The environment without what is set for other projects; Python keeps what it compiles, as usual."""
    others = ("DJANGO_", "PYTHONDONTWRITEBYTECODE")
    return {key: value for key, value in os.environ.items() if not key.startswith(others)}


def manage(project: Path, *words: str, **more: str) -> None:
    """Runs a command of the project."""
    command = [sys.executable, "manage.py", *words]
    subprocess.run(command, cwd=project, env={**environment(), **more}, check=True, timeout=120)


def start_project(directory: Path) -> Path:
    """What `django-admin startproject` makes, with one line more in INSTALLED_APPS."""
    command = [sys.executable, "-m", "django", "startproject", "mysite", "."]
    subprocess.run(command, cwd=directory, check=True)
    install(directory, "hawksbill")
    return directory


def install(project: Path, app: str) -> None:
    """Puts an application first into INSTALLED_APPS."""
    settings = project / "mysite/settings.py"
    text = settings.read_text()
    changed = text.replace("INSTALLED_APPS = [", f'INSTALLED_APPS = [\n    "{app}",')
    assert changed != text
    settings.write_text(changed)


class Running:
    """A development server, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.output())

    @property
    def base(self) -> str:
        until(lambda: STARTED.search(self.output()) is not None or self.process.poll() is not None)
        found = STARTED.search(self.output())
        assert found, self.output()
        return found[1]

    def get(self, path: str) -> httpx.Response:
        return fetch(self.base + path)


@contextmanager
def runserver(
    project: Path, *flags: str, at: str = "127.0.0.1:0", interpreter: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Serves a project; `interpreter` are flags of Python, or a debugger that goes before the command."""
    output = project / "output.log"
    command = [sys.executable, *interpreter, "manage.py", "runserver", at, *flags]
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=project, stdout=log, stderr=log, env=environment(), start_new_session=True
        )
    try:
        yield Running(process, output)
    finally:
        # To all, as a terminal does: the parent of Django's own server may miss it between two children.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
